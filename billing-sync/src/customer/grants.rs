//! Amounts of a feature given to one customer on top.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::Value;
use turnpike_domain::catalog::{FeatureKind, Findings, Grant, LimitPeriod};
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::limits::CUSTOMER_GRANTS_MAX;
use turnpike_domain::port::control::{ControlState, Decision, Effect};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::Timestamp;
use turnpike_http::{Answered, Caller, Changing, JsonBody, Page, PageQuery, Params, ProblemBody, Reply};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::control::{Control, answer_of, decided, living_customer, page_of};

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
    Params(query): Params<PageQuery>,
) -> Reply<Json<Page<Grant>>> {
    caller.require(Scope::Read)?;
    control.customer(caller.tenant, &key)?;
    let all = control.directory.grants(caller.tenant, &key);
    let rows = all.iter().map(|grant| (&grant.id, Grant::clone(grant)));
    Ok(Json(page_of(rows, &query)?))
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
    JsonBody(mut body): JsonBody<Grant>,
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    let at = control.at(&changing);
    let asked = body.clone();
    if body.id.is_empty() {
        body.id = control.randomness.new_id();
    }
    control
        .change(&changing, &asked, move |state| {
            if find(state, at.0, &key, &body.id)?.is_some() {
                let detail = format!("customer \"{key}\" has a grant \"{}\"", body.id);
                return Err(Problem::new(Code::AlreadyExists, detail));
            }
            decide_put(state, at, &key, body)
        })
        .await
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
    caller.require(Scope::Read)?;
    control.customer(caller.tenant, &key)?;
    let all = control.directory.grants(caller.tenant, &key);
    let found = all
        .iter()
        .find(|grant| grant.id == id)
        .ok_or_else(|| Problem::not_found("grant", &id))?;
    Ok(Json(Grant::clone(found)))
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
    Path((key, id)): Path<(String, String)>,
    JsonBody(mut body): JsonBody<Grant>,
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    if body.id.is_empty() {
        body.id.clone_from(&id);
    }
    if body.id != id {
        return Err(Problem::invalid("/id", format!("must be \"{id}\", as in the path")).into());
    }
    let at = control.at(&changing);
    let asked = body.clone();
    control
        .change(&changing, &asked, move |state| decide_put(state, at, &key, body))
        .await
}

/// Takes a grant back: what was used of it stays used.
#[utoipa::path(
    delete, path = "/v1/customers/{key}/grants/{id}", tag = "Customers", operation_id = "delete_grant",
    params(("key" = String, Path), ("id" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemBody)), security(("api_key" = ["billing"]))
)]
async fn remove(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path((customer, id)): Path<(String, String)>,
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    let tenant = changing.tenant();
    control
        .change(&changing, &(), move |state| {
            if find(state, tenant, &customer, &id)?.is_none() {
                return Err(Problem::not_found("grant", &id));
            }
            let object = format!("customer/{customer}/grant/{id}");
            let effects = vec![Effect::RemoveGrant { customer, id }];
            Ok(decided(effects, "grant.delete", object, 204, Value::Null))
        })
        .await
}

fn find(
    state: &dyn ControlState,
    tenant: TenantId,
    customer: &str,
    id: &str,
) -> Result<Option<Arc<Grant>>, Problem> {
    living_customer(state, tenant, customer)?;
    Ok(state
        .grants(tenant, customer)
        .into_iter()
        .find(|grant| grant.id == id))
}

fn decide_put(
    state: &dyn ControlState,
    (tenant, now): (TenantId, Timestamp),
    customer: &str,
    mut grant: Grant,
) -> Result<Decision, Problem> {
    if !grant.customer.is_empty() && grant.customer != customer {
        return Err(Problem::invalid(
            "/customer",
            format!("must be \"{customer}\", as in the path"),
        ));
    }
    customer.clone_into(&mut grant.customer);
    let before = find(state, tenant, customer, &grant.id)?;
    let since = before
        .as_ref()
        .and_then(|before| before.effective_at)
        .unwrap_or(now);
    grant.effective_at = Some(grant.effective_at.unwrap_or(since).floor_minute());
    grant.expires_at = grant.expires_at.map(Timestamp::floor_minute);
    check(state, tenant, &grant).into_result()?;
    let answer = answer_of(&grant)?;
    let status = match &before {
        Some(before) if **before == grant => return Ok(Decision::unchanged(answer)),
        Some(_) => 200,
        None => 201,
    };
    if before.is_none() {
        let lasting = |other: &&Arc<Grant>| other.expires_at.is_none_or(|end| end > now);
        if state.grants(tenant, customer).iter().filter(lasting).count() >= CUSTOMER_GRANTS_MAX {
            let detail =
                format!("customer \"{customer}\" has {CUSTOMER_GRANTS_MAX} grants that have not ended");
            return Err(Problem::new(Code::Invalid, detail));
        }
    }
    let object = format!("customer/{customer}/grant/{}", grant.id);
    Ok(decided(
        vec![Effect::Grant(grant)],
        "grant.put",
        object,
        status,
        answer,
    ))
}

fn check(state: &dyn ControlState, tenant: TenantId, grant: &Grant) -> Findings {
    let mut findings = Findings::default();
    findings.key("/id", &grant.id);
    match state.catalog(tenant).features.get(&grant.feature) {
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
    match grant.rollover_max {
        Some(_) if grant.recurrence.is_none() => findings.add("/rollover_max", "belongs to recurring grants"),
        Some(most) if most.is_negative() => findings.add("/rollover_max", "must not be negative"),
        _ => {}
    }
    findings
}
