//! What one customer is entitled to instead of what its plan gives.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use turnpike_domain::catalog::{Catalog, Customer, Findings, Override};
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::control::{ControlState, Effect};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::Timestamp;
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

/// Lists a customer's overrides in the order of their features.
#[utoipa::path(
    get, path = "/v1/customers/{key}/overrides", tag = "Customers", operation_id = "list_overrides",
    params(("key" = String, Path), PageQuery),
    responses((status = 200, body = Page<Override>), (status = 404, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(key): Path<String>,
    page: PageQuery,
) -> Reply<Json<Page<Override>>> {
    own::list(&control, &caller, &key, &page)
}

/// Makes an override; there is one per feature.
#[utoipa::path(
    post, path = "/v1/customers/{key}/overrides", tag = "Customers", operation_id = "create_override",
    params(("key" = String, Path)), request_body = Override,
    responses((status = 201, body = Override), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)),
    security(("api_key" = ["billing"]))
)]
async fn create(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(key): Path<String>,
    JsonBody(body): JsonBody<Override>,
) -> Reply<Answered> {
    own::create(&control, &changing, key, body).await
}

/// Shows an override.
#[utoipa::path(
    get, path = "/v1/customers/{key}/overrides/{feature}", tag = "Customers", operation_id = "get_override",
    params(("key" = String, Path), ("feature" = String, Path)),
    responses((status = 200, body = Override), (status = 404, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn get(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path((key, feature)): Path<(String, String)>,
) -> Reply<Json<Override>> {
    own::get(&control, &caller, &key, &feature)
}

/// Puts an override.
#[utoipa::path(
    put, path = "/v1/customers/{key}/overrides/{feature}", tag = "Customers", operation_id = "put_override",
    params(("key" = String, Path), ("feature" = String, Path)), request_body = Override,
    responses((status = 200, body = Override), (status = 201, body = Override), (status = 422, body = ProblemBody)),
    security(("api_key" = ["billing"]))
)]
async fn put(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(path): Path<(String, String)>,
    JsonBody(body): JsonBody<Override>,
) -> Reply<Answered> {
    own::put(&control, &changing, path, body).await
}

/// Takes an override away: plan and add-ons decide again.
#[utoipa::path(
    delete, path = "/v1/customers/{key}/overrides/{feature}", tag = "Customers", operation_id = "delete_override",
    params(("key" = String, Path), ("feature" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemBody)), security(("api_key" = ["billing"]))
)]
async fn remove(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(path): Path<(String, String)>,
) -> Reply<Answered> {
    own::remove::<Override>(&control, &changing, path).await
}

impl Own for Override {
    const NAME: &'static str = "override of feature";
    const OBJECT: &'static str = "override";
    const PUT: &'static str = "override.put";
    const DELETE: &'static str = "override.delete";
    const KEY: &'static str = "/feature";

    fn all(directory: &dyn Directory, tenant: TenantId, customer: &str) -> Vec<Arc<Self>> {
        directory.overrides(tenant, customer)
    }

    fn key(&self) -> &String {
        &self.entitlement.feature
    }

    fn key_mut(&mut self) -> &mut String {
        &mut self.entitlement.feature
    }

    fn customer_mut(&mut self) -> &mut String {
        &mut self.customer
    }

    fn complete(&mut self, before: Option<&Self>, now: Timestamp) {
        self.follow(before, now);
    }

    /// What usage drew on grants while it stood stays as it was.
    fn kept(&self, customer: &Customer, now: Timestamp) -> Option<Effect> {
        let mut customer = customer.clone();
        customer
            .keep_override(self, now)
            .then_some(Effect::Customer(customer))
    }

    fn check(&self, state: &dyn ControlState, tenant: TenantId) -> Result<(), Problem> {
        check(&state.catalog(tenant), self).into_result()
    }

    fn put(self) -> Effect {
        Effect::Override(self)
    }

    fn remove(customer: String, feature: String) -> Effect {
        Effect::RemoveOverride { customer, feature }
    }
}

fn check(catalog: &Catalog, entry: &Override) -> Findings {
    if !entry.revoked {
        return entry.entitlement.check(catalog);
    }
    let mut findings = Findings::default();
    let entitlement = &entry.entitlement;
    if !catalog.features.contains_key(&entitlement.feature) {
        findings.add(
            "/feature",
            format!("there is no feature \"{}\"", entitlement.feature),
        );
    }
    if !entitlement.limits.is_empty() || entitlement.value.is_some() {
        findings.add("/revoked", "takes the feature away: leave limits and value out");
    }
    findings
}
