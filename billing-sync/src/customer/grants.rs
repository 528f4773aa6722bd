//! Amounts of a feature given to one customer on top.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use turnpike_domain::catalog::{Catalog, Customer, FeatureKind, Findings, Grant, LimitPeriod};
use turnpike_domain::identity::TenantId;
use turnpike_domain::limits::{CUSTOMER_GRANTS_MAX, GRANT_EFFECTIVE_MIN_US, HOURLY_GRANT_DAYS_MAX};
use turnpike_domain::port::control::{ControlState, Effect};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{Randomness, Timestamp};
use turnpike_http::{Answered, Caller, Changing, JsonBody, Page, PageQuery, ProblemBody, Reply};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::own::{self, Own};
use crate::control::Control;

pub(super) fn router() -> OpenApiRouter<Arc<Control>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, put, remove))
}

/// Lists a customer's grants in the order of their ids.
#[utoipa::path(
    get, path = "/v1/customers/{key}/grants", tag = "Customers", operation_id = "list_grants",
    params(("key" = String, Path), PageQuery),
    responses((status = 200, body = Page<Grant>), (status = 404, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(key): Path<String>,
    page: PageQuery,
) -> Reply<Json<Page<Grant>>> {
    own::list(&control, &caller, &key, &page)
}

/// Gives a customer an amount of a metered feature. Its id is made unless said.
#[utoipa::path(
    post, path = "/v1/customers/{key}/grants", tag = "Customers", operation_id = "create_grant",
    params(("key" = String, Path)), request_body = Grant,
    responses((status = 201, body = Grant), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)),
    security(("api_key" = ["billing"]))
)]
async fn create(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(key): Path<String>,
    JsonBody(body): JsonBody<Grant>,
) -> Reply<Answered> {
    own::create(&control, &changing, key, body).await
}

/// Shows a grant.
#[utoipa::path(
    get, path = "/v1/customers/{key}/grants/{id}", tag = "Customers", operation_id = "get_grant",
    params(("key" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = Grant), (status = 404, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn get(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path((key, id)): Path<(String, String)>,
) -> Reply<Json<Grant>> {
    own::get(&control, &caller, &key, &id)
}

/// Puts a grant.
#[utoipa::path(
    put, path = "/v1/customers/{key}/grants/{id}", tag = "Customers", operation_id = "put_grant",
    params(("key" = String, Path), ("id" = String, Path)), request_body = Grant,
    responses((status = 200, body = Grant), (status = 201, body = Grant), (status = 422, body = ProblemBody)),
    security(("api_key" = ["billing"]))
)]
async fn put(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(path): Path<(String, String)>,
    JsonBody(body): JsonBody<Grant>,
) -> Reply<Answered> {
    own::put(&control, &changing, path, body).await
}

/// Takes a grant back: what was used of it stays used, and only what is left of it is gone, from this minute on.
#[utoipa::path(
    delete, path = "/v1/customers/{key}/grants/{id}", tag = "Customers", operation_id = "delete_grant",
    params(("key" = String, Path), ("id" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemBody)), security(("api_key" = ["billing"]))
)]
async fn remove(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(path): Path<(String, String)>,
) -> Reply<Answered> {
    own::remove::<Grant>(&control, &changing, path).await
}

impl Own for Grant {
    const NAME: &'static str = "grant";
    const OBJECT: &'static str = "grant";
    const PUT: &'static str = "grant.put";
    const DELETE: &'static str = "grant.delete";
    const KEY: &'static str = "/id";

    fn all(directory: &dyn Directory, tenant: TenantId, customer: &str) -> Vec<Arc<Self>> {
        directory.grants(tenant, customer)
    }

    fn key(&self) -> &String {
        &self.id
    }

    fn key_mut(&mut self) -> &mut String {
        &mut self.id
    }

    fn customer_mut(&mut self) -> &mut String {
        &mut self.customer
    }

    fn name_anew(&mut self, randomness: &dyn Randomness) {
        if self.id.is_empty() {
            self.id = randomness.new_id();
        }
    }

    /// Bounds of grants are whole minutes.
    fn complete(&mut self, before: Option<&Self>, now: Timestamp) {
        let since = before.and_then(|before| before.effective_at).unwrap_or(now);
        self.effective_at = Some(self.effective_at.unwrap_or(since).floor_minute());
        self.expires_at = self.expires_at.map(Timestamp::floor_minute);
        self.deleted_at = None;
    }

    fn check(&self, state: &dyn ControlState, tenant: TenantId) -> Result<(), Problem> {
        check(&state.catalog(tenant), self).into_result()
    }

    fn check_room(
        state: &dyn ControlState,
        (tenant, now): (TenantId, Timestamp),
        customer: &str,
    ) -> Result<(), Problem> {
        let lasting = |grant: &&Arc<Self>| grant.expires_at.is_none_or(|end| end > now);
        if state.grants(tenant, customer).iter().filter(lasting).count() < CUSTOMER_GRANTS_MAX {
            return Ok(());
        }
        let detail = format!("customer \"{customer}\" has {CUSTOMER_GRANTS_MAX} grants that have not ended");
        Err(Problem::new(Code::Invalid, detail))
    }

    /// What was drawn on it stays drawn on it.
    fn kept_of_removed(&self, customer: &Customer, now: Timestamp) -> Option<Effect> {
        let mut customer = customer.clone();
        customer
            .keep_grant(self, now)
            .then_some(Effect::Customer(customer))
    }

    fn put(self) -> Effect {
        Effect::Grant(self)
    }

    fn remove(customer: String, id: String) -> Effect {
        Effect::RemoveGrant { customer, id }
    }
}

fn check(catalog: &Catalog, grant: &Grant) -> Findings {
    let mut findings = Findings::default();
    findings.key("/id", &grant.id);
    match catalog.features.get(&grant.feature) {
        None => findings.add("/feature", format!("there is no feature \"{}\"", grant.feature)),
        Some(feature) if feature.kind != FeatureKind::Metered => {
            findings.add("/feature", "is not metered: use an override");
        }
        Some(_) => {}
    }
    if grant.amount.is_negative() || grant.amount.is_zero() {
        findings.add("/amount", "must be above 0");
    }
    if grant.priority > 100 {
        findings.add("/priority", "must be 0 to 100");
    }
    if grant
        .expires_at
        .is_some_and(|end| grant.effective_at.is_some_and(|from| end <= from))
    {
        findings.add("/expires_at", "must lie at least a minute behind effective_at");
    }
    if matches!(
        grant.recurrence,
        Some(LimitPeriod::Second | LimitPeriod::Minute | LimitPeriod::Ever)
    ) {
        findings.add("/recurrence", "must be hour, day, week, month or billing");
    }
    check_stretches(grant, &mut findings);
    match grant.rollover_max {
        Some(_) if grant.recurrence.is_none() => findings.add("/rollover_max", "belongs to recurring grants"),
        Some(most) if most.is_negative() => findings.add("/rollover_max", "must not be negative"),
        _ => {}
    }
    findings
}

/// What is left of grants is followed through all windows since they began: a grant that would come to have too many is
/// refused here, for a decision could not be made later.
fn check_stretches(grant: &Grant, findings: &mut Findings) {
    let Some(from) = grant.effective_at else { return };
    if from < Timestamp::from_micros_clamped(GRANT_EFFECTIVE_MIN_US) {
        findings.add("/effective_at", "must not lie before 2000-01-01T00:00:00Z");
    }
    let longest = from.plus_micros(HOURLY_GRANT_DAYS_MAX * 86_400_000_000);
    if grant.recurrence == Some(LimitPeriod::Hour) && grant.expires_at.is_none_or(|end| end > longest) {
        let detail = format!(
            "is needed for a grant that recurs each hour, at most {HOURLY_GRANT_DAYS_MAX} days behind effective_at"
        );
        findings.add("/expires_at", detail);
    }
}
