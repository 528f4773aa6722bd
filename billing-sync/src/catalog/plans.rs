use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use turnpike_domain::catalog::{CatalogKind, Plan};
use turnpike_domain::identity::Scope;
use turnpike_domain::problem::Problem;
use turnpike_http::{Answered, Caller, Changing, JsonBody, Page, PageQuery, Params, ProblemBody, Reply};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{put_one, remove_one};
use crate::control::{Control, agree, page_of};

pub(super) fn router() -> OpenApiRouter<Arc<Control>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, put, remove))
}

/// Lists plans in the order of their keys, each at its current version.
#[utoipa::path(
    get, path = "/v1/plans", tag = "Catalog", operation_id = "list_plans", params(PageQuery),
    responses((status = 200, body = Page<Plan>), (status = 4XX, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Params(query): Params<PageQuery>,
) -> Reply<Json<Page<Plan>>> {
    caller.require(Scope::Read)?;
    let catalog = control.directory.catalog(caller.tenant);
    let rows = catalog
        .plans
        .iter()
        .filter_map(|(key, all)| Some((key, Plan::clone(all.last()?))));
    Ok(Json(page_of(rows, &query)?))
}

/// Shows a plan.
#[utoipa::path(
    get, path = "/v1/plans/{key}", tag = "Catalog", operation_id = "get_plan", params(("key" = String, Path)),
    responses((status = 200, body = Plan), (status = 404, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn get(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(key): Path<String>,
) -> Reply<Json<Plan>> {
    caller.require(Scope::Read)?;
    let catalog = control.directory.catalog(caller.tenant);
    let found = catalog.current_plan(&key).map(|plan| Plan::clone(plan));
    Ok(Json(found.ok_or_else(|| Problem::not_found("plan", &key))?))
}

/// Puts a plan. A change makes a new version, for new subscriptions; running ones stay on theirs. The same content keeps the version.
#[utoipa::path(
    put, path = "/v1/plans/{key}", tag = "Catalog", operation_id = "put_plan", params(("key" = String, Path)),
    request_body = Plan,
    responses(
        (status = 200, body = Plan), (status = 201, body = Plan),
        (status = 409, body = ProblemBody), (status = 422, body = ProblemBody),
    ),
    security(("api_key" = ["admin"]))
)]
async fn put(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(key): Path<String>,
    JsonBody(mut body): JsonBody<Plan>,
) -> Reply<Answered> {
    changing.require(Scope::Admin)?;
    agree(&key, &mut body.key)?;
    let at = (changing.tenant(), control.clock.now(changing.tenant()));
    let asked = body.clone();
    control
        .change(&changing, &asked, move |state| {
            put_one(
                state,
                at,
                "plan.put",
                |plan| plan.put_plan(body),
                |plan| plan.after.current_plan(&key).map(|plan| Plan::clone(plan)),
            )
        })
        .await
}

/// Takes a plan away. Refused while a subscription runs on it, or has yet to be billed for it.
#[utoipa::path(
    delete, path = "/v1/plans/{key}", tag = "Catalog", operation_id = "delete_plan",
    params(("key" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)),
    security(("api_key" = ["admin"]))
)]
async fn remove(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(key): Path<String>,
) -> Reply<Answered> {
    changing.require(Scope::Admin)?;
    let at = (changing.tenant(), control.clock.now(changing.tenant()));
    control
        .change(&changing, &(), move |state| {
            remove_one(state, at, "plan.delete", CatalogKind::Plan, &key)
        })
        .await
}
