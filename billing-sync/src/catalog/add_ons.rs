use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use turnpike_domain::catalog::{AddOn, Catalog, CatalogKind, CatalogPlan};
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

impl Versioned for AddOn {
    fn at(catalog: &Catalog, key: &str, version: u32) -> Option<Self> {
        catalog.add_on(key, version).map(|found| Self::clone(found))
    }
}

impl Entry for AddOn {
    const KIND: CatalogKind = CatalogKind::AddOn;
    const PUT: &'static str = "add_on.put";
    const DELETE: &'static str = "add_on.delete";

    fn all(catalog: &Catalog) -> impl Iterator<Item = (&String, Self)> {
        catalog
            .add_ons
            .iter()
            .filter_map(|(key, versions)| Some((key, Self::clone(versions.last()?))))
    }

    fn find(catalog: &Catalog, key: &str) -> Option<Self> {
        catalog.current_add_on(key).map(|add_on| Self::clone(add_on))
    }

    fn key(&mut self) -> &mut String {
        &mut self.key
    }

    fn put_into(self, plan: &mut CatalogPlan, _: &dyn ControlState) -> Result<(), Problem> {
        plan.put_add_on(self)
    }
}

/// Lists add-ons in the order of their keys, each at its current version.
#[utoipa::path(
    get, path = "/v1/add-ons", tag = "Catalog", operation_id = "list_add_ons", params(PageQuery),
    responses((status = 200, body = Page<AddOn>), (status = 4XX, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    page: PageQuery,
) -> Reply<Json<Page<AddOn>>> {
    entry::list(&control, &caller, &page)
}

/// Shows an add-on.
#[utoipa::path(
    get, path = "/v1/add-ons/{key}", tag = "Catalog", operation_id = "get_add_on", params(("key" = String, Path), VersionQuery),
    responses((status = 200, body = AddOn), (status = 404, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn get(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(key): Path<String>,
    Params(query): Params<VersionQuery>,
) -> Reply<Json<AddOn>> {
    entry::get_version(&control, &caller, &key, query)
}

/// Puts an add-on. A change makes a new version, for new subscriptions; running ones stay on theirs. The same content keeps the version.
#[utoipa::path(
    put, path = "/v1/add-ons/{key}", tag = "Catalog", operation_id = "put_add_on", params(("key" = String, Path)),
    request_body = AddOn,
    responses(
        (status = 200, body = AddOn), (status = 201, body = AddOn),
        (status = 409, body = ProblemBody), (status = 422, body = ProblemBody),
    ),
    security(("api_key" = ["admin"]))
)]
async fn put(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(key): Path<String>,
    JsonBody(body): JsonBody<AddOn>,
) -> Reply<Answered> {
    entry::put(&control, &changing, &key, body).await
}

/// Takes an add-on away. Refused while a subscription has it, or has yet to be billed for it.
#[utoipa::path(
    delete, path = "/v1/add-ons/{key}", tag = "Catalog", operation_id = "delete_add_on",
    params(("key" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)),
    security(("api_key" = ["admin"]))
)]
async fn remove(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(key): Path<String>,
) -> Reply<Answered> {
    entry::remove::<AddOn>(&control, &changing, key).await
}
