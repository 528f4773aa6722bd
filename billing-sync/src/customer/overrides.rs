//! What one customer is entitled to instead of what its plan gives.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::Value;
use turnpike_domain::catalog::{Findings, Override};
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::port::control::{ControlState, Decision, Effect};
use turnpike_domain::problem::{Code, Problem};
use turnpike_http::{Answered, Caller, Changing, JsonBody, Page, PageQuery, Params, ProblemBody, Reply};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::control::{Control, answer_of, decided, living_customer, page_of};

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
    Params(query): Params<PageQuery>,
) -> Reply<Json<Page<Override>>> {
    caller.require(Scope::Read)?;
    control.customer(caller.tenant, &key)?;
    let all = control.directory.overrides(caller.tenant, &key);
    let rows = all
        .iter()
        .map(|entry| (&entry.entitlement.feature, Override::clone(entry)));
    Ok(Json(page_of(rows, &query)?))
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
    changing.require(Scope::Billing)?;
    let (tenant, asked) = (changing.tenant(), body.clone());
    control
        .change(&changing, &asked, move |state| {
            let feature = &body.entitlement.feature;
            if find(state, tenant, &key, feature)?.is_some() {
                let detail =
                    format!("customer \"{key}\" has an override of feature \"{feature}\": put it instead");
                return Err(Problem::new(Code::AlreadyExists, detail));
            }
            decide_put(state, tenant, &key, body)
        })
        .await
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
    caller.require(Scope::Read)?;
    control.customer(caller.tenant, &key)?;
    let all = control.directory.overrides(caller.tenant, &key);
    let found = all.iter().find(|entry| entry.entitlement.feature == feature);
    let found = found.ok_or_else(|| Problem::not_found("override of feature", &feature))?;
    Ok(Json(Override::clone(found)))
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
    Path((key, feature)): Path<(String, String)>,
    JsonBody(mut body): JsonBody<Override>,
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    if body.entitlement.feature.is_empty() {
        body.entitlement.feature.clone_from(&feature);
    }
    if body.entitlement.feature != feature {
        return Err(Problem::invalid("/feature", format!("must be \"{feature}\", as in the path")).into());
    }
    let (tenant, asked) = (changing.tenant(), body.clone());
    control
        .change(&changing, &asked, move |state| {
            decide_put(state, tenant, &key, body)
        })
        .await
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
    Path((customer, feature)): Path<(String, String)>,
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    let tenant = changing.tenant();
    control
        .change(&changing, &(), move |state| {
            if find(state, tenant, &customer, &feature)?.is_none() {
                return Err(Problem::not_found("override of feature", &feature));
            }
            let object = format!("customer/{customer}/override/{feature}");
            let effects = vec![Effect::RemoveOverride { customer, feature }];
            Ok(decided(effects, "override.delete", object, 204, Value::Null))
        })
        .await
}

fn find(
    state: &dyn ControlState,
    tenant: TenantId,
    customer: &str,
    feature: &str,
) -> Result<Option<Arc<Override>>, Problem> {
    living_customer(state, tenant, customer)?;
    Ok(state
        .overrides(tenant, customer)
        .into_iter()
        .find(|entry| entry.entitlement.feature == feature))
}

fn decide_put(
    state: &dyn ControlState,
    tenant: TenantId,
    customer: &str,
    mut entry: Override,
) -> Result<Decision, Problem> {
    if !entry.customer.is_empty() && entry.customer != customer {
        return Err(Problem::invalid(
            "/customer",
            format!("must be \"{customer}\", as in the path"),
        ));
    }
    customer.clone_into(&mut entry.customer);
    let before = find(state, tenant, customer, &entry.entitlement.feature)?;
    check(state, tenant, &entry).into_result()?;
    let answer = answer_of(&entry)?;
    let status = match before {
        Some(before) if *before == entry => return Ok(Decision::unchanged(answer)),
        Some(_) => 200,
        None => 201,
    };
    let object = format!("customer/{customer}/override/{}", entry.entitlement.feature);
    Ok(decided(
        vec![Effect::Override(entry)],
        "override.put",
        object,
        status,
        answer,
    ))
}

fn check(state: &dyn ControlState, tenant: TenantId, entry: &Override) -> Findings {
    let catalog = state.catalog(tenant);
    if !entry.revoked {
        return entry.entitlement.check(&catalog);
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
