use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use turnpike_domain::catalog::{Catalog, CatalogKind, CatalogPlan, Feature};
use turnpike_domain::port::control::ControlState;
use turnpike_domain::problem::Problem;
use turnpike_http::{Answered, Caller, Changing, JsonBody, Page, PageQuery, ProblemBody, Reply};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::entry::{self, Entry};
use crate::control::Control;

pub(super) fn router() -> OpenApiRouter<Arc<Control>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, put, remove))
}

impl Entry for Feature {
    const KIND: CatalogKind = CatalogKind::Feature;
    const PUT: &'static str = "feature.put";
    const DELETE: &'static str = "feature.delete";

    fn all(catalog: &Catalog) -> impl Iterator<Item = (&String, Self)> {
        catalog
            .features
            .iter()
            .map(|(key, feature)| (key, Self::clone(feature)))
    }

    fn find(catalog: &Catalog, key: &str) -> Option<Self> {
        catalog.features.get(key).map(|feature| Self::clone(feature))
    }

    fn key(&mut self) -> &mut String {
        &mut self.key
    }

    fn put_into(self, plan: &mut CatalogPlan, _: &dyn ControlState) -> Result<(), Problem> {
        plan.put_feature(self)
    }
}

/// Lists features in the order of their keys.
#[utoipa::path(
    get, path = "/v1/features", tag = "Catalog", operation_id = "list_features", params(PageQuery),
    responses((status = 200, body = Page<Feature>), (status = 4XX, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    page: PageQuery,
) -> Reply<Json<Page<Feature>>> {
    entry::list(&control, &caller, &page)
}

/// Shows a feature.
#[utoipa::path(
    get, path = "/v1/features/{key}", tag = "Catalog", operation_id = "get_feature", params(("key" = String, Path)),
    responses((status = 200, body = Feature), (status = 404, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn get(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(key): Path<String>,
) -> Reply<Json<Feature>> {
    entry::get(&control, &caller, &key)
}

/// Puts a feature. Its kind cannot change while something gives it.
#[utoipa::path(
    put, path = "/v1/features/{key}", tag = "Catalog", operation_id = "put_feature", params(("key" = String, Path)),
    request_body = Feature,
    responses(
        (status = 200, body = Feature), (status = 201, body = Feature),
        (status = 409, body = ProblemBody), (status = 422, body = ProblemBody),
    ),
    security(("api_key" = ["admin"]))
)]
async fn put(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(key): Path<String>,
    JsonBody(body): JsonBody<Feature>,
) -> Reply<Answered> {
    entry::put(&control, &changing, &key, body).await
}

/// Takes a feature away. Refused while a plan, add-on, override or grant gives it.
#[utoipa::path(
    delete, path = "/v1/features/{key}", tag = "Catalog", operation_id = "delete_feature",
    params(("key" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)),
    security(("api_key" = ["admin"]))
)]
async fn remove(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(key): Path<String>,
) -> Reply<Answered> {
    entry::remove::<Feature>(&control, &changing, key).await
}
