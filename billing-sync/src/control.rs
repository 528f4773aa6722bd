//! What the handlers of catalog, customers and subscriptions share.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use turnpike_domain::catalog::Customer;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::control::{AuditNote, ControlState, ControlStore, Decision, Effect, PageAfter};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::history::History;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{Clock, Randomness};
use turnpike_http::{Answered, Changing, Cursor, PageQuery, Reply};

/// What catalog, customers and subscriptions are made of.
#[derive(Clone)]
pub struct Control {
    /// Where changes are decided and kept.
    pub store: Arc<dyn ControlStore>,
    /// What is in force.
    pub directory: Arc<dyn Directory>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Identifiers.
    pub randomness: Arc<dyn Randomness>,
    /// How far new meters are.
    pub history: Arc<dyn History>,
}

impl Control {
    /// Decides the change that a call with `body` asks for.
    pub(crate) async fn change<B: Serialize>(
        &self,
        changing: &Changing,
        body: &B,
        decide: impl FnOnce(&dyn ControlState) -> Result<Decision, Problem> + Send + 'static,
    ) -> Reply<Answered> {
        let change = changing.change(self.clock.as_ref(), body);
        Ok(Answered(self.store.change(change, Box::new(decide)).await?))
    }

    /// A customer that was not erased.
    pub(crate) fn customer(&self, tenant: TenantId, key: &str) -> Result<Arc<Customer>, Problem> {
        living_customer(self.directory.as_ref(), tenant, key)
    }
}

/// A customer that was not erased.
pub(crate) fn living_customer<D: Directory + ?Sized>(
    directory: &D,
    tenant: TenantId,
    key: &str,
) -> Result<Arc<Customer>, Problem> {
    directory
        .customer(tenant, key)
        .filter(|customer| customer.erased_at.is_none())
        .ok_or_else(|| Problem::not_found("customer", key))
}

/// A decision with one effect or more, its audit note, and its answer.
pub(crate) fn decided(
    effects: Vec<Effect>,
    action: &'static str,
    object: String,
    status: u16,
    answer: Value,
) -> Decision {
    Decision {
        effects,
        audit: Some(AuditNote {
            action,
            object,
            detail: Value::Null,
        }),
        status,
        answer,
        kept_answer: None,
    }
}

/// What the audit log says beside the action.
pub(crate) fn with_detail(mut decision: Decision, detail: Value) -> Decision {
    if let Some(note) = &mut decision.audit {
        note.detail = detail;
    }
    decision
}

/// A value on its way into an answer.
pub(crate) fn answer_of<T: Serialize>(value: &T) -> Result<Value, Problem> {
    serde_json::to_value(value).map_err(|error| Problem::new(Code::Internal, format!("an answer: {error}")))
}

/// The key of a PUT: in the path, and optional in the body, where it must agree.
pub(crate) fn agree(path: &str, body: &mut String) -> Result<(), Problem> {
    if body.is_empty() {
        path.clone_into(body);
    }
    if body != path {
        return Err(Problem::invalid(
            "/key",
            format!("is \"{body}\", but the path says \"{path}\""),
        ));
    }
    Ok(())
}

/// Where a page begins, and one row more than it has, which tells whether there is another.
pub(crate) fn page_after(query: &PageQuery) -> Result<(PageAfter, usize), Problem> {
    let limit = query.rows()?;
    Ok((
        PageAfter {
            after: query.after().map(str::to_owned),
            rows: limit + 1,
        },
        limit,
    ))
}

/// A page of what is in memory in the order of its keys.
pub(crate) fn page_of<'a, T>(
    rows: impl Iterator<Item = (&'a String, T)>,
    query: &PageQuery,
) -> Result<turnpike_http::Page<T>, Problem> {
    let limit = query.rows()?;
    let after = query.after().unwrap_or("");
    let rows: Vec<_> = rows
        .filter(|(key, _)| key.as_str() > after)
        .take(limit + 1)
        .collect();
    let more = rows.len() > limit;
    let next_cursor = more
        .then(|| rows.get(limit - 1).map(|(key, _)| Cursor::new(*key)))
        .flatten();
    let data = rows.into_iter().take(limit).map(|(_, row)| row).collect();
    Ok(turnpike_http::Page { data, next_cursor })
}
