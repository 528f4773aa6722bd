use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use turnpike_domain::catalog::{CatalogKind, Feature};
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

/// Lists features in the order of their keys.
#[utoipa::path(
    get, path = "/v1/features", tag = "Catalog", operation_id = "list_features", params(PageQuery),
    responses((status = 200, body = Page<Feature>), (status = 4XX, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Params(query): Params<PageQuery>,
) -> Reply<Json<Page<Feature>>> {
    caller.require(Scope::Read)?;
    let catalog = control.directory.catalog(caller.tenant);
    let rows = catalog
        .features
        .iter()
        .map(|(key, feature)| (key, Feature::clone(feature)));
    Ok(Json(page_of(rows, &query)?))
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
    caller.require(Scope::Read)?;
    let catalog = control.directory.catalog(caller.tenant);
    let found = catalog.features.get(&key).map(|feature| Feature::clone(feature));
    Ok(Json(found.ok_or_else(|| Problem::not_found("feature", &key))?))
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
    JsonBody(mut body): JsonBody<Feature>,
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
                "feature.put",
                |plan| plan.put_feature(body),
                |plan| {
                    plan.after
                        .features
                        .get(&key)
                        .map(|feature| Feature::clone(feature))
                },
            )
        })
        .await
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
    changing.require(Scope::Admin)?;
    let at = (changing.tenant(), control.clock.now(changing.tenant()));
    control
        .change(&changing, &(), move |state| {
            remove_one(state, at, "feature.delete", CatalogKind::Feature, &key)
        })
        .await
}
