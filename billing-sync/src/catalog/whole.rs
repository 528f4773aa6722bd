//! A whole catalog at once.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use turnpike_domain::catalog::{Catalog, CatalogDiff, CatalogDocument, apply_document};
use turnpike_domain::identity::{MeterId, Scope};
use turnpike_domain::port::control::{AuditNote, ControlState, Decision, answer_of};
use turnpike_domain::problem::{Code, Problem};
use turnpike_http::{Answered, Caller, Changing, JsonBody, ProblemBody, Reply};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::control::{CatalogAt, Control};

pub(super) fn router() -> OpenApiRouter<Arc<Control>> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(diff))
        .routes(routes!(apply))
}

/// The catalog in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CatalogInForce {
    /// Counts up with every change.
    pub version: u64,
    /// All meters.
    pub meters: Vec<turnpike_domain::meter::MeterDefinition>,
    /// All features.
    pub features: Vec<turnpike_domain::catalog::Feature>,
    /// All plans.
    pub plans: Vec<turnpike_domain::catalog::Plan>,
    /// All add-ons.
    pub add_ons: Vec<turnpike_domain::catalog::AddOn>,
}

/// A whole catalog to be compared or applied. What it does not name is taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CatalogRequest {
    /// The version of the catalog that the difference was shown for: when another is in force, nothing is applied.
    #[serde(default, deserialize_with = "version")]
    #[schema(maximum = 9_223_372_036_854_775_807_u64)]
    pub expected_version: Option<u64>,
    /// As `GET /v1/catalog` shows it, so that its answer can be sent back whole; it is not looked at.
    #[serde(default, deserialize_with = "version")]
    #[schema(maximum = 9_223_372_036_854_775_807_u64)]
    pub version: Option<u64>,
    /// All meters.
    #[serde(default)]
    pub meters: Vec<turnpike_domain::meter::MeterDefinition>,
    /// All features.
    #[serde(default)]
    pub features: Vec<turnpike_domain::catalog::Feature>,
    /// All plans.
    #[serde(default)]
    pub plans: Vec<turnpike_domain::catalog::Plan>,
    /// All add-ons.
    #[serde(default)]
    pub add_ons: Vec<turnpike_domain::catalog::AddOn>,
}

/// A version of the catalog, within what the `int64` of the description holds.
fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let sent = Option::<i64>::deserialize(deserializer)?;
    let version = sent.map(u64::try_from).transpose();
    version.map_err(|_| D::Error::custom("a version is at least 0"))
}

impl CatalogRequest {
    fn document(self) -> CatalogDocument {
        CatalogDocument {
            meters: self.meters,
            features: self.features,
            plans: self.plans,
            add_ons: self.add_ons,
        }
    }

    fn check_version(&self, current: &Catalog) -> Result<(), Problem> {
        match self.expected_version {
            Some(expected) if expected != current.version => Err(Problem::new(
                Code::CatalogChanged,
                format!(
                    "the catalog is at version {}, not {expected}: look at the difference again",
                    current.version
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// Shows the whole catalog, as it can be sent to `/v1/catalog/diff` and `/v1/catalog/apply`.
#[utoipa::path(
    get, path = "/v1/catalog", tag = "Catalog", operation_id = "get_catalog",
    responses((status = 200, body = CatalogInForce)), security(("api_key" = ["read"]))
)]
async fn show(State(control): State<Arc<Control>>, caller: Caller) -> Reply<Json<CatalogInForce>> {
    caller.require(Scope::Read)?;
    let catalog = control.directory.catalog(caller.tenant);
    let document = CatalogDocument::of(&catalog);
    Ok(Json(CatalogInForce {
        version: catalog.version,
        meters: document.meters,
        features: document.features,
        plans: document.plans,
        add_ons: document.add_ons,
    }))
}

/// Tells what an application would do; changes nothing.
#[utoipa::path(
    post, path = "/v1/catalog/diff", tag = "Catalog", operation_id = "diff_catalog", request_body = CatalogRequest,
    responses((status = 200, body = CatalogDiff), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)),
    security(("api_key" = ["admin"]))
)]
async fn diff(
    State(control): State<Arc<Control>>,
    caller: Caller,
    JsonBody(body): JsonBody<CatalogRequest>,
) -> Reply<Json<CatalogDiff>> {
    caller.require(Scope::Admin)?;
    let at = control.catalog_at(caller.tenant);
    let current = control.directory.catalog(at.tenant);
    body.check_version(&current)?;
    let used = at.shown(control.store.as_ref());
    let plan = apply_document(&current, body.document(), &used, || MeterId(0))?;
    Ok(Json(plan.diff))
}

/// Makes the catalog what the body declares, all of it or nothing, and answers with what was done.
#[utoipa::path(
    post, path = "/v1/catalog/apply", tag = "Catalog", operation_id = "apply_catalog", request_body = CatalogRequest,
    responses((status = 200, body = CatalogDiff), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)),
    security(("api_key" = ["admin"]))
)]
async fn apply(
    State(control): State<Arc<Control>>,
    changing: Changing,
    JsonBody(body): JsonBody<CatalogRequest>,
) -> Reply<Answered> {
    changing.require(Scope::Admin)?;
    let at = control.catalog_at(changing.tenant());
    let asked = body.clone();
    control
        .change(&changing, &asked, move |state| decide_apply(state, at, body))
        .await
}

fn decide_apply(state: &dyn ControlState, at: CatalogAt, body: CatalogRequest) -> Result<Decision, Problem> {
    let current = state.catalog(at.tenant);
    body.check_version(&current)?;
    let used = at.used(state);
    let mut plan = apply_document(&current, body.document(), &used, || state.next_meter_id())?;
    if plan.effects.is_empty() {
        return Ok(Decision::unchanged(answer_of(&plan.diff)?));
    }
    plan.diff.version = current.version + 1;
    let answer = answer_of(&plan.diff)?;
    let detail = json!({
        "version": plan.diff.version,
        "created": plan.diff.created,
        "changed": plan.diff.changed.iter().map(|item| json!({"kind": item.kind, "key": item.key})).collect::<Vec<_>>(),
        "removed": plan.diff.removed,
    });
    let note = AuditNote::new("catalog.apply", "catalog").with_detail(detail);
    Ok(Decision::changed(plan.effects, note, 200, answer))
}
