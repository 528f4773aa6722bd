//! What overrides and grants have in common: they belong to one customer, and are listed, shown, put and deleted in one way.

use std::sync::Arc;

use axum::Json;
use serde::Serialize;
use serde_json::Value;
use turnpike_domain::catalog::Customer;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::port::control::{AuditNote, ControlState, Decision, Effect, answer_of};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{Randomness, Timestamp};
use turnpike_http::{Answered, Caller, Changing, Page, PageQuery, Reply};

use crate::control::{Control, agree, living_customer, page_of};

/// Something of one customer's own, under a key of its own.
pub(super) trait Own: Clone + PartialEq + Serialize + Send + 'static {
    /// Its name in messages.
    const NAME: &'static str;
    /// Its name in the objects of the audit log.
    const OBJECT: &'static str;
    /// A PUT or POST in the audit log.
    const PUT: &'static str;
    /// A DELETE in the audit log.
    const DELETE: &'static str;
    /// Where its key stands in a body.
    const KEY: &'static str;

    /// All of a customer, in the order of their keys.
    fn all(directory: &dyn Directory, tenant: TenantId, customer: &str) -> Vec<Arc<Self>>;

    /// Its key.
    fn key(&self) -> &String;

    /// Its key, to be filled in.
    fn key_mut(&mut self) -> &mut String;

    /// The key of its customer, to be filled in.
    fn customer_mut(&mut self) -> &mut String;

    /// Gives a key to one that is made without.
    fn name_anew(&mut self, _: &dyn Randomness) {}

    /// Fills in what the caller left out, from what stood `before`, at `now`.
    fn complete(&mut self, _before: Option<&Self>, _now: Timestamp) {}

    /// An error that names every invalid field.
    fn check(&self, state: &dyn ControlState, tenant: TenantId) -> Result<(), Problem>;

    /// An error when the customer cannot have one more.
    fn check_room(_: &dyn ControlState, _at: (TenantId, Timestamp), _customer: &str) -> Result<(), Problem> {
        Ok(())
    }

    /// What is kept with the customer of one that is replaced, or taken away, at `now`.
    fn kept(&self, _customer: &Customer, _now: Timestamp) -> Option<Effect> {
        None
    }

    /// What is kept with the customer of one that is taken away at `now`.
    fn kept_of_removed(&self, customer: &Customer, now: Timestamp) -> Option<Effect> {
        self.kept(customer, now)
    }

    /// Makes or replaces it.
    fn put(self) -> Effect;

    /// Takes it away.
    fn remove(customer: String, key: String) -> Effect;
}

pub(super) fn list<T: Own>(
    control: &Control,
    caller: &Caller,
    customer: &str,
    page: &PageQuery,
) -> Reply<Json<Page<T>>> {
    caller.require(Scope::Read)?;
    control.customer(caller.tenant, customer)?;
    let all = T::all(control.directory.as_ref(), caller.tenant, customer);
    let rows = all.iter().map(|one| (one.key(), T::clone(one)));
    Ok(Json(page_of(rows, page)))
}

pub(super) fn get<T: Own>(control: &Control, caller: &Caller, customer: &str, key: &str) -> Reply<Json<T>> {
    caller.require(Scope::Read)?;
    let found = find::<T>(control.directory.as_ref(), caller.tenant, customer, key)?;
    let found = found.ok_or_else(|| Problem::not_found(T::NAME, key))?;
    Ok(Json(T::clone(&found)))
}

pub(super) async fn create<T: Own>(
    control: &Control,
    changing: &Changing,
    customer: String,
    mut body: T,
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    let (at, asked) = (control.at(changing), body.clone());
    body.name_anew(control.randomness.as_ref());
    control
        .change(changing, &asked, move |state| {
            if find::<T>(state, at.0, &customer, body.key())?.is_some() {
                let detail = format!(
                    "customer \"{customer}\" has {} \"{}\" already: put it instead",
                    T::NAME,
                    body.key()
                );
                return Err(Problem::new(Code::AlreadyExists, detail));
            }
            decide_put(state, at, &customer, body)
        })
        .await
}

pub(super) async fn put<T: Own>(
    control: &Control,
    changing: &Changing,
    (customer, key): (String, String),
    mut body: T,
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    agree(T::KEY, &key, body.key_mut())?;
    let (at, asked) = (control.at(changing), body.clone());
    control
        .change(changing, &asked, move |state| {
            decide_put(state, at, &customer, body)
        })
        .await
}

pub(super) async fn remove<T: Own>(
    control: &Control,
    changing: &Changing,
    (customer, key): (String, String),
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    let (tenant, now) = control.at(changing);
    control
        .change(changing, &(), move |state| {
            let found = find::<T>(state, tenant, &customer, &key)?;
            let found = found.ok_or_else(|| Problem::not_found(T::NAME, &key))?;
            let whose = living_customer(state, tenant, &customer)?;
            let kept = found.kept_of_removed(&whose, now);
            let note = AuditNote::new(T::DELETE, format!("customer/{customer}/{}/{key}", T::OBJECT));
            let effects = [T::remove(customer, key)].into_iter().chain(kept);
            Ok(Decision::changed(effects.collect(), note, 204, Value::Null))
        })
        .await
}

/// The one under `key`; an error when the customer is not there.
fn find<T: Own>(
    directory: &dyn Directory,
    tenant: TenantId,
    customer: &str,
    key: &str,
) -> Result<Option<Arc<T>>, Problem> {
    living_customer(directory, tenant, customer)?;
    let mut all = T::all(directory, tenant, customer).into_iter();
    Ok(all.find(|one| one.key() == key))
}

fn decide_put<T: Own>(
    state: &dyn ControlState,
    (tenant, now): (TenantId, Timestamp),
    customer: &str,
    mut asked: T,
) -> Result<Decision, Problem> {
    agree("/customer", customer, asked.customer_mut())?;
    let before = find::<T>(state, tenant, customer, asked.key())?;
    asked.complete(before.as_deref(), now);
    asked.check(state, tenant)?;
    let answer = answer_of(&asked)?;
    let (status, kept) = match before {
        Some(before) if *before == asked => return Ok(Decision::unchanged(answer)),
        Some(before) => {
            let whose = living_customer(state, tenant, customer)?;
            (200, before.kept(&whose, now))
        }
        None => {
            T::check_room(state, (tenant, now), customer)?;
            (201, None)
        }
    };
    let object = format!("customer/{customer}/{}/{}", T::OBJECT, asked.key());
    let note = AuditNote::new(T::PUT, object);
    let effects = [asked.put()].into_iter().chain(kept);
    Ok(Decision::changed(effects.collect(), note, status, answer))
}
