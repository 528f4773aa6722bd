use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use turnpike_domain::identity::Scope;
use turnpike_domain::invoice::BillingRun;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::Timestamp;
use turnpike_http::{Answered, Caller, Changing, JsonBody, Page, PageQuery, ProblemBody, Reply};

use crate::invoice::engine::BillingSync;

/// What is to be billed.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BillingRunRequest {
    /// All unbilled periods that ended by then; any instant. One that lies in the future bills what has ended by now.
    #[schema(value_type = String, format = DateTime)]
    period_end: Timestamp,
}

/// Begins to bill all periods that ended by `period_end` and are not billed yet. Runs of a tenant go one behind the
/// other; one that still waits for the same `period_end` is answered again.
#[utoipa::path(
    post, path = "/v1/billing/runs", tag = "Billing", operation_id = "begin_billing_run",
    request_body = BillingRunRequest,
    responses(
        (status = 202, description = "The run, to be followed at its id", body = BillingRun),
        (status = 422, description = "The request is invalid", body = ProblemBody),
        (status = 503, description = "Too many runs wait", body = ProblemBody),
    ),
    security(("api_key" = ["billing"])),
)]
pub(super) async fn begin_billing_run(
    changing: Changing,
    State(billing): State<Arc<BillingSync>>,
    JsonBody(request): JsonBody<BillingRunRequest>,
) -> Reply<Answered> {
    changing.require(Scope::Billing)?;
    let change = changing.change(billing.parts.clock.as_ref(), &request);
    Ok(Answered(billing.begin_run(change, request.period_end).await?))
}

/// Billing runs, newest first.
#[utoipa::path(
    get, path = "/v1/billing/runs", tag = "Billing", operation_id = "list_billing_runs",
    params(PageQuery),
    responses((status = 200, description = "A page of runs", body = Page<BillingRun>)),
    security(("api_key" = ["billing"])),
)]
pub(super) async fn list_billing_runs(
    caller: Caller,
    State(billing): State<Arc<BillingSync>>,
    page: PageQuery,
) -> Reply<Json<Page<BillingRun>>> {
    caller.require(Scope::Billing)?;
    let runs = billing
        .parts
        .store
        .runs(caller.tenant, page.with_one_more())
        .await?;
    Ok(Json(page.cut(runs, |run| run.id.clone())))
}

/// A billing run: how far it is, and what could not be billed.
#[utoipa::path(
    get, path = "/v1/billing/runs/{id}", tag = "Billing", operation_id = "get_billing_run",
    params(("id" = String, Path, description = "The run's id")),
    responses(
        (status = 200, description = "The run", body = BillingRun),
        (status = 404, description = "There is no such run", body = ProblemBody),
    ),
    security(("api_key" = ["billing"])),
)]
pub(super) async fn get_billing_run(
    caller: Caller,
    State(billing): State<Arc<BillingSync>>,
    Path(id): Path<String>,
) -> Reply<Json<BillingRun>> {
    caller.require(Scope::Billing)?;
    let run = billing.parts.store.run(caller.tenant, id.clone()).await?;
    Ok(Json(run.ok_or_else(|| Problem::not_found("billing run", &id))?))
}
