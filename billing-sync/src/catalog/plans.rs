use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use turnpike_domain::catalog::{Catalog, CatalogKind, CatalogPlan, Plan};
use turnpike_domain::port::control::ControlState;
use turnpike_domain::problem::Problem;
use turnpike_http::{Answered, Caller, Changing, JsonBody, Page, PageQuery, Params, ProblemBody, Reply};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::entry::{self, Entry, VersionQuery, Versioned};
use crate::control::Control;

pub(super) fn router() -> OpenApiRouter<Arc<Control>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, put, remove))
}

impl Versioned for Plan {
    fn at(catalog: &Catalog, key: &str, version: u32) -> Option<Self> {
        catalog.plan(key, version).map(|found| Self::clone(found))
    }
}

impl Entry for Plan {
    const KIND: CatalogKind = CatalogKind::Plan;
    const PUT: &'static str = "plan.put";
    const DELETE: &'static str = "plan.delete";

    fn all(catalog: &Catalog) -> impl Iterator<Item = (&String, Self)> {
        catalog
            .plans
            .iter()
            .filter_map(|(key, versions)| Some((key, Self::clone(versions.last()?))))
    }

    fn find(catalog: &Catalog, key: &str) -> Option<Self> {
        catalog.current_plan(key).map(|plan| Self::clone(plan))
    }

    fn key(&mut self) -> &mut String {
        &mut self.key
    }

    fn put_into(self, plan: &mut CatalogPlan, _: &dyn ControlState) -> Result<(), Problem> {
        plan.put_plan(self)
    }
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
    page: PageQuery,
) -> Reply<Json<Page<Plan>>> {
    entry::list(&control, &caller, &page)
}

/// Shows a plan.
#[utoipa::path(
    get, path = "/v1/plans/{key}", tag = "Catalog", operation_id = "get_plan", params(("key" = String, Path), VersionQuery),
    responses((status = 200, body = Plan), (status = 404, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn get(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(key): Path<String>,
    Params(query): Params<VersionQuery>,
) -> Reply<Json<Plan>> {
    entry::get_version(&control, &caller, &key, query)
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
    JsonBody(body): JsonBody<Plan>,
) -> Reply<Answered> {
    entry::put(&control, &changing, &key, body).await
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
    entry::remove::<Plan>(&control, &changing, key).await
}
