use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use turnpike_domain::catalog::CatalogKind;
use turnpike_domain::identity::Scope;
use turnpike_domain::meter::MeterDefinition;
use turnpike_domain::port::history::Backfill;
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

/// Lists meters in the order of their keys.
#[utoipa::path(
    get, path = "/v1/meters", tag = "Catalog", operation_id = "list_meters", params(PageQuery),
    responses((status = 200, body = Page<MeterDefinition>), (status = 4XX, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Params(query): Params<PageQuery>,
) -> Reply<Json<Page<MeterDefinition>>> {
    caller.require(Scope::Read)?;
    let catalog = control.directory.catalog(caller.tenant);
    let rows = catalog
        .meters
        .iter()
        .map(|(key, meter)| (key, MeterDefinition::of(meter)));
    Ok(Json(page_of(rows, &query)?))
}

/// A meter, and how far it has filled itself from the events before its making.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct MeterState {
    #[serde(flatten)]
    meter: MeterDefinition,
    /// Until it is complete, usage is too small, and quotas and billing on this meter answer 503.
    backfill: Backfill,
}

/// Shows a meter.
#[utoipa::path(
    get, path = "/v1/meters/{key}", tag = "Catalog", operation_id = "get_meter", params(("key" = String, Path)),
    responses((status = 200, body = MeterState), (status = 404, body = ProblemBody)),
    security(("api_key" = ["read"]))
)]
async fn get(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(key): Path<String>,
) -> Reply<Json<MeterState>> {
    caller.require(Scope::Read)?;
    let catalog = control.directory.catalog(caller.tenant);
    let meter = catalog.meters.get(&key).map(|meter| MeterDefinition::of(meter));
    let backfill = control.history.backfill(caller.tenant, &key);
    let state = meter
        .zip(backfill)
        .map(|(meter, backfill)| MeterState { meter, backfill });
    Ok(Json(state.ok_or_else(|| Problem::not_found("meter", &key))?))
}

/// Puts a meter. A new one fills itself from the past. A definition never changes: the same again is 200, another 409.
#[utoipa::path(
    put, path = "/v1/meters/{key}", tag = "Catalog", operation_id = "put_meter", params(("key" = String, Path)),
    request_body = MeterDefinition,
    responses(
        (status = 200, body = MeterDefinition), (status = 201, body = MeterDefinition),
        (status = 409, body = ProblemBody), (status = 422, body = ProblemBody),
    ),
    security(("api_key" = ["admin"]))
)]
async fn put(
    State(control): State<Arc<Control>>,
    changing: Changing,
    Path(key): Path<String>,
    JsonBody(mut body): JsonBody<MeterDefinition>,
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
                "meter.put",
                |plan| plan.put_meter(body, || state.next_meter_id()),
                |plan| {
                    plan.after
                        .meters
                        .get(&key)
                        .map(|meter| MeterDefinition::of(meter))
                },
            )
        })
        .await
}

/// Takes a meter away. Refused while a feature or price refers to it. A meter made later under the same key fills itself anew.
#[utoipa::path(
    delete, path = "/v1/meters/{key}", tag = "Catalog", operation_id = "delete_meter",
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
            remove_one(state, at, "meter.delete", CatalogKind::Meter, &key)
        })
        .await
}
