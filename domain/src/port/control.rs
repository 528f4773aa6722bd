//! The control store: catalog, customers, subscriptions, tenants and keys. Changes are decided one behind the other
//! against the state that is in force, and their effect, audit entry and idempotency record commit together.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::BoxFuture;
use super::directory::Directory;
use crate::catalog::{
    AddOn, ApiKey, CatalogUse, Customer, Feature, Grant, Override, Plan, Subscription, Tenant,
};
use crate::identity::{MeterId, NameKey, TenantId};
use crate::invoice::RunFailure;
use crate::limits::BILLING_RUN_NOTES_MAX;
use crate::meter::Meter;
use crate::problem::{Code, Problem};
use crate::time::{TimeRange, Timestamp};

/// Who changes something, and in which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The tenant that it concerns.
    pub tenant: TenantId,
    /// The id of the API key that asked, or the name of the part of the engine that acts by itself.
    pub actor: Arc<str>,
    /// The request's id.
    pub request_id: Arc<str>,
    /// When, by the tenant's clock.
    pub at: Timestamp,
    /// When, by the machine's clock, by which what is recorded of it is kept: a test tenant's own may stand years away.
    pub recorded_at: Timestamp,
    /// How a repeat is told.
    pub idempotency: Option<Idempotent>,
}

/// The idempotency key of a call, and a hash of what was asked for with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotent {
    /// The caller's key.
    pub key: String,
    /// Hash of method, path and body.
    pub request_hash: [u8; 32],
}

/// One effect of a change. Everything but tenants and keys belongs to the tenant of the [`Change`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A tenant is made or replaced.
    Tenant(Tenant),
    /// A key is made or replaced.
    ApiKey(ApiKey),
    /// A meter is made.
    Meter(Meter),
    /// A meter is taken away; what it counted is dropped.
    RemoveMeter(String),
    /// A feature is made or replaced.
    Feature(Feature),
    /// A feature is taken away.
    RemoveFeature(String),
    /// A new version of a plan; it is no longer retired.
    Plan(Plan),
    /// A plan is retired: its versions stay for what refers to them.
    RetirePlan(String),
    /// A new version of an add-on; it is no longer retired.
    AddOn(AddOn),
    /// An add-on is retired: its versions stay for what refers to them.
    RetireAddOn(String),
    /// A customer is made or replaced, its subjects included.
    Customer(Customer),
    /// A customer is taken away with its overrides and grants. Only for one without subscriptions.
    RemoveCustomer(String),
    /// A customer is replaced by what is left of it, its overrides and grants end, and answers kept for idempotency
    /// that show it are dropped.
    EraseCustomer(Customer),
    /// A subscription is made or replaced.
    Subscription(Subscription),
    /// An override is made or replaced (one per customer and feature).
    Override(Override),
    /// An override is taken away.
    RemoveOverride {
        /// The customer.
        customer: String,
        /// The feature.
        feature: String,
    },
    /// A grant is made or replaced.
    Grant(Grant),
    /// A grant is taken away.
    RemoveGrant {
        /// The customer.
        customer: String,
        /// The grant.
        id: String,
    },
}

/// What a change comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Its effects, in order; they commit together.
    pub effects: Vec<Effect>,
    /// What was done, such as `plan.put`; none when nothing was.
    pub audit: Vec<AuditNote>,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The answer's body; `Null` for none.
    pub answer: Value,
    /// What is kept for a repeat instead of `answer`, where that contains a secret.
    pub kept_answer: Option<Value>,
}

impl Decision {
    /// A change with `effects`, which the audit log tells as `note`.
    pub fn changed(effects: Vec<Effect>, note: AuditNote, status: u16, answer: Value) -> Self {
        Self {
            effects,
            audit: vec![note],
            status,
            answer,
            kept_answer: None,
        }
    }

    /// Nothing to do: the answer is what already stands.
    pub fn unchanged(answer: Value) -> Self {
        Self {
            effects: Vec::new(),
            audit: Vec::new(),
            status: 200,
            answer,
            kept_answer: None,
        }
    }
}

/// What the audit log says of a change. Holds keys and names of fields, never personal data or secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditNote {
    /// What was done, such as `plan.put`.
    pub action: &'static str,
    /// To what, such as `plan/pro`.
    pub object: String,
    /// More, as JSON; `Null` for none.
    pub detail: Value,
}

impl AuditNote {
    /// A note without detail.
    pub fn new(action: &'static str, object: impl Into<String>) -> Self {
        Self {
            action,
            object: object.into(),
            detail: Value::Null,
        }
    }

    /// The same note with `detail`.
    pub fn with_detail(self, detail: Value) -> Self {
        Self { detail, ..self }
    }
}

/// A value as the body of an answer.
///
/// # Errors
/// [`Code::Internal`] for what JSON cannot express, such as a map whose keys are no texts.
pub fn answer_of<T: Serialize>(value: &T) -> Result<Value, Problem> {
    serde_json::to_value(value).map_err(|error| Problem::new(Code::Internal, format!("an answer: {error}")))
}

/// An answer to a changing call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; `Null` for none.
    pub body: Value,
    /// Whether the call is a repeat, and this what it was answered first.
    pub repeated: bool,
}

/// What is known of a call with an idempotency key whose effect is not in the control store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// The key is this call's: it runs now. A call that had the key and never ended, because the process did, gives it
    /// to its repeat.
    Taken,
    /// The call is a repeat; this is what it was answered first.
    Answered(Answer),
}

/// What is in force while a change is decided, and numbers that were never given before.
pub trait ControlState: Directory {
    /// A meter's number. Each call gives another.
    fn next_meter_id(&self) -> MeterId;

    /// A tenant's number. Each call gives another.
    fn next_tenant_id(&self) -> TenantId;

    /// What refers to a tenant's catalog at `now`, when late usage of closed periods is billed or listed for `late_days`
    /// behind their end.
    fn catalog_use(&self, tenant: TenantId, now: Timestamp, late_days: u32) -> CatalogUse;

    /// The tenant with this key.
    fn tenant_by_key(&self, key: &str) -> Option<Arc<Tenant>>;

    /// A key by id, of any tenant.
    fn api_key(&self, id: &str) -> Option<Arc<ApiKey>>;
}

/// Decides a change: quick, without I/O. An error leaves everything as it is and is not kept for repeats.
pub type Decide = Box<dyn FnOnce(&dyn ControlState) -> Result<Decision, Problem> + Send>;

/// Where a page begins and how many rows it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageAfter {
    /// The key of the last row before the page.
    pub after: Option<String>,
    /// Rows at the most.
    pub rows: usize,
}

/// Which subscriptions are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscriptionFilter {
    /// Of one customer.
    pub customer: Option<String>,
}

/// Which entries of the audit log are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// By one actor.
    pub actor: Option<String>,
    /// With this action, or those that begin with it and a dot (`plan` → `plan.put`).
    pub action: Option<String>,
    /// To one object.
    pub object: Option<String>,
    /// In this time.
    pub range: Option<TimeRange>,
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditEntry {
    /// Its number, ascending.
    pub id: u64,
    /// When, by the machine's clock, also for a test tenant.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The API key that asked, or the part of the engine that acted by itself.
    pub actor: String,
    /// The request.
    pub request_id: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub object: String,
    /// More; null where there is none.
    #[schema(value_type = Option<Object>)]
    pub detail: Value,
}

/// Something that those who watch for misuse want to know: a wrong key, a missing scope.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecurityEvent {
    /// The tenant; that of administration where none is known.
    pub tenant: TenantId,
    /// What happened, such as `security.wrong_key`.
    pub action: &'static str,
    /// The key's id where it is known, else `-`.
    pub actor: String,
    /// What was asked for, such as `PUT /v1/meters/{key}`: a route, never a path or a key.
    pub object: String,
    /// The address that the call came from, where it is known.
    pub client: Option<IpAddr>,
}

/// The control store.
pub trait ControlStore: Send + Sync {
    /// Decides and keeps a change. A repeat (same idempotency key, same hash) answers as it did first; another hash is
    /// [`Code::IdempotencyConflict`]. When it answers, the change is durable, in the [`Directory`], and
    /// listeners were told.
    fn change(&self, change: Change, decide: Decide) -> BoxFuture<'_, Result<Answer, Problem>>;

    /// What refers to a tenant's catalog at `now`, for showing what a change would do. The change itself asks
    /// [`ControlState::catalog_use`].
    fn catalog_use(&self, tenant: TenantId, now: Timestamp, late_days: u32) -> CatalogUse;

    /// Takes an idempotency key for a call whose effect is elsewhere (events, quota decisions), before it runs, so that
    /// another request under the key is a conflict even when the process ends in the middle. The caller sees to it that
    /// one call at a time runs under a key.
    fn claim(
        &self,
        tenant: TenantId,
        call: Idempotent,
        at: Timestamp,
    ) -> BoxFuture<'_, Result<Claim, Problem>>;

    /// What a claimed call was answered; `None` while it has no answer, or where nothing was claimed. Another request under its
    /// key is a conflict, as with [`ControlStore::claim`].
    fn kept_answer(
        &self,
        tenant: TenantId,
        call: Idempotent,
    ) -> BoxFuture<'_, Result<Option<Answer>, Problem>>;

    /// Keeps what a claimed call was answered (status and body); `None` gives the key back, for a call without effect.
    fn settle(
        &self,
        tenant: TenantId,
        key: String,
        answer: Option<(u16, Value)>,
    ) -> BoxFuture<'_, Result<(), Problem>>;

    /// Drops claims and their answers that were made before `horizon`; returns their number. Those of changes stay.
    fn prune_claims(&self, horizon: Timestamp) -> BoxFuture<'_, Result<u64, Problem>>;

    /// Customers in the order of their keys, erased ones left out.
    fn list_customers(
        &self,
        tenant: TenantId,
        page: PageAfter,
    ) -> BoxFuture<'_, Result<Vec<Arc<Customer>>, Problem>>;

    /// Subscriptions in the order of their ids, which is that of their making.
    fn list_subscriptions(
        &self,
        tenant: TenantId,
        filter: SubscriptionFilter,
        page: PageAfter,
    ) -> BoxFuture<'_, Result<Vec<Arc<Subscription>>, Problem>>;

    /// Entries of the audit log, newest first, before the entry `page.after`.
    fn audit(
        &self,
        tenant: TenantId,
        filter: AuditFilter,
        page: PageAfter,
    ) -> BoxFuture<'_, Result<Vec<AuditEntry>, Problem>>;

    /// Takes note of a security event; quick. Equal ones are counted together, and all are written by
    /// [`ControlStore::flush_security`].
    fn note_security(&self, event: SecurityEvent);

    /// Writes the security events noted since.
    fn flush_security(&self) -> BoxFuture<'_, Result<(), Problem>>;

    /// Drops entries of the audit log before `horizon`; returns their number.
    fn prune_audit(&self, horizon: Timestamp) -> BoxFuture<'_, Result<u64, Problem>>;

    /// The installation's secret for names of events, made at its first start.
    fn name_key(&self) -> NameKey;
}

/// Why a presented key is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRefusal {
    /// There is no such key.
    Unknown,
    /// It has ended.
    Expired,
    /// It was revoked.
    Revoked,
}

/// API keys, from memory.
pub trait ApiKeys: Send + Sync {
    /// The key that `presented` is, if it is valid by the machine's clock. Takes the same time for a wrong secret as
    /// for a right one.
    fn authenticate(&self, presented: &str) -> Result<Arc<ApiKey>, KeyRefusal>;

    /// A tenant's keys, oldest first, the revoked ones included.
    fn keys(&self, tenant: TenantId) -> Vec<Arc<ApiKey>>;

    /// A key by id.
    fn key(&self, tenant: TenantId, id: &str) -> Option<Arc<ApiKey>>;
}

/// Work that fell due and could not be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Undone {
    /// How much: subscriptions that could not be billed.
    pub failed: u64,
    /// The first of them, and of those whose closed periods can no longer be corrected.
    pub failures: Vec<RunFailure>,
}

impl Undone {
    /// Notes a subscription that could not be billed.
    pub fn note(&mut self, subscription: &str, problem: &Problem) {
        self.failed += 1;
        self.tell(subscription, problem);
    }

    /// Tells of a subscription that was billed, but for what can no longer be done.
    pub fn tell(&mut self, subscription: &str, problem: &Problem) {
        if self.failures.len() < BILLING_RUN_NOTES_MAX {
            self.failures.push(RunFailure {
                subscription: subscription.to_owned(),
                code: problem.code.slug().to_owned(),
                detail: problem.detail.clone(),
            });
        }
    }
}

/// Work that falls due as time passes. A test tenant's clock runs it step by step when it is moved forward; otherwise
/// its owner runs it by the machine's clock.
pub trait DueWork: Send + Sync {
    /// The next instant after `after` at which something of the tenant falls due.
    fn next_due(
        &self,
        tenant: TenantId,
        after: Timestamp,
    ) -> BoxFuture<'_, Result<Option<Timestamp>, Problem>>;

    /// Does what is due at `now`, which the tenant's clock shows. Answers what could not be done and is tried again when
    /// work runs next; an error where nothing can be.
    fn run_due(&self, tenant: TenantId, now: Timestamp) -> BoxFuture<'_, Result<Undone, Problem>>;
}
