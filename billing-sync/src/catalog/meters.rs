use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use turnpike_domain::catalog::{Catalog, CatalogKind, CatalogPlan};
use turnpike_domain::identity::Scope;
use turnpike_domain::meter::MeterDefinition;
use turnpike_domain::port::control::ControlState;
use turnpike_domain::port::history::Backfill;
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

impl Entry for MeterDefinition {
    const KIND: CatalogKind = CatalogKind::Meter;
    const PUT: &'static str = "meter.put";
    const DELETE: &'static str = "meter.delete";

    fn all(catalog: &Catalog) -> impl Iterator<Item = (&String, Self)> {
        catalog.meters.iter().map(|(key, meter)| (key, Self::of(meter)))
    }

    fn find(catalog: &Catalog, key: &str) -> Option<Self> {
        catalog.meters.get(key).map(|meter| Self::of(meter))
    }

    fn key(&mut self) -> &mut String {
        &mut self.key
    }

    fn put_into(self, plan: &mut CatalogPlan, state: &dyn ControlState) -> Result<(), Problem> {
        plan.put_meter(self, || state.next_meter_id())
    }
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
    page: PageQuery,
) -> Reply<Json<Page<MeterDefinition>>> {
    entry::list(&control, &caller, &page)
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
    JsonBody(body): JsonBody<MeterDefinition>,
) -> Reply<Answered> {
    entry::put(&control, &changing, &key, body).await
}

/// Takes a meter away. Refused while a feature or price refers to it, and while late usage of closed periods that it was
/// billed by is billed or listed: the detail says until when. A meter made later under the same key fills itself anew.
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
    entry::remove::<MeterDefinition>(&control, &changing, key).await
}
