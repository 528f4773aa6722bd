use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use turnpike_domain::catalog::{AddOn, CatalogKind};
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

/// Lists add-ons in the order of their keys, each at its current version.
#[utoipa::path(
    get, path = "/v1/add-ons", tag = "Catalog", operation_id = "list_add_ons", params(PageQuery),
    responses((status = 200, body = Page<AddOn>), (status = 4XX, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Params(query): Params<PageQuery>,
) -> Reply<Json<Page<AddOn>>> {
    caller.require(Scope::Read)?;
    let catalog = control.directory.catalog(caller.tenant);
    let rows = catalog
        .add_ons
        .iter()
        .filter_map(|(key, all)| Some((key, AddOn::clone(all.last()?))));
    Ok(Json(page_of(rows, &query)?))
}

/// Shows an add-on.
#[utoipa::path(
    get, path = "/v1/add-ons/{key}", tag = "Catalog", operation_id = "get_add_on", params(("key" = String, Path)),
    responses((status = 200, body = AddOn), (status = 404, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn get(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(key): Path<String>,
) -> Reply<Json<AddOn>> {
    caller.require(Scope::Read)?;
    let catalog = control.directory.catalog(caller.tenant);
    let found = catalog.current_add_on(&key).map(|add_on| AddOn::clone(add_on));
    Ok(Json(found.ok_or_else(|| Problem::not_found("add-on", &key))?))
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
    JsonBody(mut body): JsonBody<AddOn>,
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
                "add_on.put",
                |plan| plan.put_add_on(body),
                |plan| plan.after.current_add_on(&key).map(|add_on| AddOn::clone(add_on)),
            )
        })
        .await
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
    changing.require(Scope::Admin)?;
    let at = (changing.tenant(), control.clock.now(changing.tenant()));
    control
        .change(&changing, &(), move |state| {
            remove_one(state, at, "add_on.delete", CatalogKind::AddOn, &key)
        })
        .await
}
