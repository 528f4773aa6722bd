//! What a customer may be, and what becomes of one that goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use turnpike_domain::catalog::{Customer, Findings, field_changes};
use turnpike_domain::identity::TenantId;
use turnpike_domain::limits::{
    CUSTOMER_LEVELS_MAX, CUSTOMER_MOVES_MAX, CUSTOMER_SUBJECTS_MAX, METADATA_ENTRIES_MAX,
    METADATA_KEY_CHARS_MAX, METADATA_VALUE_CHARS_MAX, NAME_BYTES_MAX,
};
use turnpike_domain::port::control::{AuditNote, ControlState, Decision, Effect, answer_of};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{Timestamp, Zone};

use crate::control::living_customer;

pub(super) fn put(
    state: &dyn ControlState,
    (tenant, now): (TenantId, Timestamp),
    mut customer: Customer,
) -> Result<Decision, Problem> {
    let before = state.customer(tenant, &customer.key);
    if before.as_ref().is_some_and(|before| before.erased_at.is_some()) {
        let detail = format!(
            "customer \"{}\" was erased; a new one needs another key",
            customer.key
        );
        return Err(Problem::new(Code::AlreadyExists, detail));
    }
    fill_in(&mut customer);
    check(&customer).into_result()?;
    check_parent(state, tenant, &customer)?;
    check_subjects(state, tenant, &customer)?;
    customer.erased_at = None;
    follow(&mut customer, before.as_deref(), now)?;
    let answer = answer_of(&customer)?;
    let note = AuditNote::new("customer.put", format!("customer/{}", customer.key));
    let Some(before) = before else {
        return Ok(Decision::changed(
            vec![Effect::Customer(customer)],
            note,
            201,
            answer,
        ));
    };
    if *before == customer {
        return Ok(Decision::unchanged(answer));
    }
    // Names of fields only: the log of changes outlives the personal data.
    let changes = field_changes(&answer_of(before.as_ref())?, &answer);
    let fields: BTreeSet<_> = changes
        .iter()
        .filter_map(|change| change.pointer.split('/').nth(1).map(str::to_owned))
        .collect();
    let note = note.with_detail(json!({ "fields": fields }));
    Ok(Decision::changed(
        vec![Effect::Customer(customer)],
        note,
        200,
        answer,
    ))
}

/// Keeps whose usage its own counted for, and what it was entitled to. A new customer never was without the parent that it begins with.
fn follow(customer: &mut Customer, before: Option<&Customer>, now: Timestamp) -> Result<(), Problem> {
    (customer.parent_since, customer.former_parents) = (None, Vec::new());
    (customer.former_overrides, customer.former_grants) = (Vec::new(), Vec::new());
    if let Some(before) = before {
        customer.follow(before, now);
    }
    if customer.former_parents.len() > CUSTOMER_MOVES_MAX {
        let detail =
            format!("has moved {CUSTOMER_MOVES_MAX} times, and each parent is kept: make another customer");
        return Err(Problem::invalid("/parent", detail));
    }
    Ok(())
}

fn fill_in(customer: &mut Customer) {
    if customer.name.is_empty() {
        customer.name.clone_from(&customer.key);
    }
    if customer.subjects.is_empty() {
        customer.subjects.push(customer.key.clone());
    }
}

fn check(customer: &Customer) -> Findings {
    let mut findings = Findings::default();
    findings.key("/key", &customer.key);
    findings.text("/name", &customer.name);
    if let Some(email) = &customer.email {
        findings.text("/email", email);
        if !email.contains('@') {
            findings.add("/email", "is not an e-mail address");
        }
    }
    if let Some(Err(error)) = customer.timezone.as_deref().map(Zone::parse) {
        findings.add("/timezone", error.to_string());
    }
    if customer.subjects.len() > CUSTOMER_SUBJECTS_MAX {
        findings.add(
            "/subjects",
            format!("has more than {CUSTOMER_SUBJECTS_MAX} entries"),
        );
    }
    let mut seen = BTreeSet::new();
    for (index, subject) in customer.subjects.iter().enumerate() {
        let at = format!("/subjects/{index}");
        if !(1..=NAME_BYTES_MAX).contains(&subject.len()) {
            findings.add(&at, format!("must be 1 to {NAME_BYTES_MAX} bytes"));
        }
        if !seen.insert(subject) {
            findings.add(at, "stands here twice");
        }
    }
    check_metadata(&customer.metadata, &mut findings);
    findings
}

fn check_metadata(metadata: &BTreeMap<String, String>, findings: &mut Findings) {
    if metadata.len() > METADATA_ENTRIES_MAX {
        findings.add(
            "/metadata",
            format!("has more than {METADATA_ENTRIES_MAX} entries"),
        );
    }
    for (key, value) in metadata {
        if !(1..=METADATA_KEY_CHARS_MAX).contains(&key.chars().count()) {
            findings.add(
                "/metadata",
                format!("keys have 1 to {METADATA_KEY_CHARS_MAX} characters"),
            );
        }
        if value.chars().count() > METADATA_VALUE_CHARS_MAX {
            let at = format!("/metadata/{}", key.replace('~', "~0").replace('/', "~1"));
            findings.add(at, format!("has more than {METADATA_VALUE_CHARS_MAX} characters"));
        }
    }
}

/// The parent must be there, must not lie below the customer, and the levels are bounded.
fn check_parent(state: &dyn ControlState, tenant: TenantId, customer: &Customer) -> Result<(), Problem> {
    let mut next = customer.parent.clone();
    let mut levels = 1;
    while let Some(key) = next.take() {
        if key == customer.key {
            return Err(Problem::invalid(
                "/parent",
                "lies below this customer: it cannot be above it too",
            ));
        }
        let Some(parent) = state
            .customer(tenant, &key)
            .filter(|parent| parent.erased_at.is_none())
        else {
            return Err(Problem::invalid(
                "/parent",
                format!("there is no customer \"{key}\""),
            ));
        };
        levels += 1;
        next.clone_from(&parent.parent);
    }
    if customer.parent.is_some() && levels + levels_below(state, tenant, &customer.key) > CUSTOMER_LEVELS_MAX
    {
        let detail = format!("would make more than {CUSTOMER_LEVELS_MAX} levels of customers");
        return Err(Problem::invalid("/parent", detail));
    }
    Ok(())
}

fn levels_below(state: &dyn ControlState, tenant: TenantId, key: &str) -> usize {
    children(state, tenant, key)
        .iter()
        .map(|child| 1 + levels_below(state, tenant, &child.key))
        .max()
        .unwrap_or(0)
}

/// The customers whose parent it is now.
fn children(state: &dyn ControlState, tenant: TenantId, key: &str) -> Vec<Arc<Customer>> {
    let mut children = state.children(tenant, key);
    children.retain(|child| child.parent.as_deref() == Some(key));
    children
}

fn check_subjects(state: &dyn ControlState, tenant: TenantId, customer: &Customer) -> Result<(), Problem> {
    for (index, subject) in customer.subjects.iter().enumerate() {
        let owner = state
            .customer_of_subject(tenant, subject)
            .filter(|owner| owner.key != customer.key);
        if let Some(owner) = owner {
            let detail = format!("subject \"{subject}\" belongs to customer \"{}\"", owner.key);
            let mut problem = Problem::invalid(format!("/subjects/{index}"), detail.clone());
            (problem.code, problem.detail) = (Code::AlreadyExists, detail);
            return Err(problem);
        }
    }
    Ok(())
}

pub(super) fn remove(
    state: &dyn ControlState,
    (tenant, now): (TenantId, Timestamp),
    key: &str,
) -> Result<Decision, Problem> {
    let customer = living_customer(state, tenant, key)?;
    if let Some(child) = children(state, tenant, key).first() {
        let detail = format!(
            "customer \"{key}\" is the parent of \"{}\": give that another first",
            child.key
        );
        return Err(Problem::new(Code::InUse, detail));
    }
    let subscriptions = state.subscriptions(tenant, key);
    if let Some(running) = subscriptions
        .iter()
        .find(|subscription| !subscription.has_ended(now))
    {
        let detail = format!(
            "customer \"{key}\" has subscription {}: cancel it first",
            running.id
        );
        return Err(Problem::new(Code::InUse, detail));
    }
    let object = format!("customer/{key}");
    // What it used counts for those that were above it, and what was used below it, for it: that stays.
    let counted_elsewhere = customer.was_below_another() || !state.children(tenant, key).is_empty();
    if subscriptions.is_empty() && !counted_elsewhere {
        let effects = vec![Effect::RemoveCustomer(key.to_owned())];
        let note = AuditNote::new("customer.delete", object);
        return Ok(Decision::changed(effects, note, 204, Value::Null));
    }
    let left = Customer {
        name: "erased".to_owned(),
        email: None,
        metadata: BTreeMap::new(),
        former_overrides: Vec::new(),
        former_grants: Vec::new(),
        erased_at: Some(now),
        ..Customer::clone(&customer)
    };
    let note = AuditNote::new("customer.erase", object);
    Ok(Decision::changed(
        vec![Effect::EraseCustomer(left)],
        note,
        204,
        Value::Null,
    ))
}
