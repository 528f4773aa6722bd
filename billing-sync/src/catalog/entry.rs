//! What the four kinds of catalog entries have in common: they are listed, shown, put and deleted in one way.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use turnpike_domain::catalog::{Catalog, CatalogKind, CatalogPlan, change_catalog};
use turnpike_domain::identity::Scope;
use turnpike_domain::port::control::{AuditNote, ControlState, Decision, answer_of};
use turnpike_domain::problem::Problem;
use turnpike_http::{Answered, Caller, Changing, Page, PageQuery, Reply};

use crate::control::{CatalogAt, Control, agree, page_of};

/// A kind of catalog entry, in the shape that callers send and see.
pub(super) trait Entry: Clone + Serialize + Send + 'static {
    /// Which kind it is.
    const KIND: CatalogKind;
    /// A PUT in the audit log.
    const PUT: &'static str;
    /// A DELETE in the audit log.
    const DELETE: &'static str;

    /// The entries in force, in the order of their keys, each at its current version.
    fn all(catalog: &Catalog) -> impl Iterator<Item = (&String, Self)>;

    /// The entry in force under `key`.
    fn find(catalog: &Catalog, key: &str) -> Option<Self>;

    /// The key inside of a body.
    fn key(&mut self) -> &mut String;

    /// Puts it into the catalog.
    fn put_into(self, plan: &mut CatalogPlan, state: &dyn ControlState) -> Result<(), Problem>;
}

pub(super) fn list<E: Entry>(control: &Control, caller: &Caller, page: &PageQuery) -> Reply<Json<Page<E>>> {
    caller.require(Scope::Read)?;
    let catalog = control.directory.catalog(caller.tenant);
    Ok(Json(page_of(E::all(&catalog), page)))
}

pub(super) fn get<E: Entry>(control: &Control, caller: &Caller, key: &str) -> Reply<Json<E>> {
    caller.require(Scope::Read)?;
    let catalog = control.directory.catalog(caller.tenant);
    let found = E::find(&catalog, key).ok_or_else(|| Problem::not_found(E::KIND.name(), key))?;
    Ok(Json(found))
}

/// Which version is asked for.
#[derive(Debug, Clone, Copy, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct VersionQuery {
    /// The version, from 1; the current one unless said. Also one of an entry that was taken away.
    #[param(minimum = 1)]
    version: Option<u32>,
}

/// An entry that has versions.
pub(super) trait Versioned: Entry {
    /// The entry under `key` at a version, retired or not.
    fn at(catalog: &Catalog, key: &str, version: u32) -> Option<Self>;
}

pub(super) fn get_version<E: Versioned>(
    control: &Control,
    caller: &Caller,
    key: &str,
    query: VersionQuery,
) -> Reply<Json<E>> {
    let Some(version) = query.version else {
        return get(control, caller, key);
    };
    caller.require(Scope::Read)?;
    let catalog = control.directory.catalog(caller.tenant);
    let missing = || Problem::not_found(E::KIND.name(), &format!("{key} version {version}"));
    Ok(Json(E::at(&catalog, key, version).ok_or_else(missing)?))
}

pub(super) async fn put<E: Entry>(
    control: &Control,
    changing: &Changing,
    key: &str,
    mut body: E,
) -> Reply<Answered> {
    changing.require(Scope::Admin)?;
    agree("/key", key, body.key())?;
    let (at, asked) = (control.catalog_at(changing.tenant()), body.clone());
    control
        .change(changing, &asked, move |state| decide_put(state, at, body))
        .await
}

pub(super) async fn remove<E: Entry>(control: &Control, changing: &Changing, key: String) -> Reply<Answered> {
    changing.require(Scope::Admin)?;
    let at = control.catalog_at(changing.tenant());
    control
        .change(changing, &(), move |state| decide_remove::<E>(state, at, &key))
        .await
}

fn decide_put<E: Entry>(state: &dyn ControlState, at: CatalogAt, mut entry: E) -> Result<Decision, Problem> {
    let (current, key) = (state.catalog(at.tenant), entry.key().clone());
    let plan = change_catalog(&current, &at.used(state), |plan| entry.put_into(plan, state))?;
    let answer = answer_of(&E::find(&plan.after, &key))?;
    let note = AuditNote::new(E::PUT, format!("{}/{key}", E::KIND.name()));
    if !plan.diff.created.is_empty() {
        return Ok(Decision::changed(plan.effects, note, 201, answer));
    }
    let Some(item) = plan.diff.changed.first() else {
        return Ok(Decision::unchanged(answer));
    };
    let fields: Vec<_> = item.changes.iter().map(|change| &change.pointer).collect();
    let note = note.with_detail(json!({ "version": item.version, "fields": fields }));
    Ok(Decision::changed(plan.effects, note, 200, answer))
}

fn decide_remove<E: Entry>(state: &dyn ControlState, at: CatalogAt, key: &str) -> Result<Decision, Problem> {
    let current = state.catalog(at.tenant);
    let plan = change_catalog(&current, &at.used(state), |plan| {
        plan.remove(E::KIND, key);
        Ok(())
    })?;
    if plan.effects.is_empty() {
        return Err(Problem::not_found(E::KIND.name(), key));
    }
    let note = AuditNote::new(E::DELETE, format!("{}/{key}", E::KIND.name()));
    Ok(Decision::changed(plan.effects, note, 204, Value::Null))
}
