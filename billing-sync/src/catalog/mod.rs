//! Meters, features, plans and add-ons over HTTP, one by one and as a whole catalog.

mod add_ons;
mod features;
mod meters;
mod plans;
mod whole;

pub use whole::{CatalogInForce, CatalogRequest};

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;
use turnpike_domain::catalog::{CatalogKind, CatalogPlan, change_catalog};
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::control::{ControlState, Decision};
use turnpike_domain::problem::Problem;
use turnpike_domain::time::Timestamp;
use utoipa_axum::router::OpenApiRouter;

use crate::control::{Control, answer_of, decided, with_detail};

/// The routes of the catalog.
pub(crate) fn router(control: Arc<Control>) -> OpenApiRouter {
    OpenApiRouter::new()
        .merge(meters::router())
        .merge(features::router())
        .merge(plans::router())
        .merge(add_ons::router())
        .merge(whole::router())
        .with_state(control)
}

/// Decides a PUT of one item. `shown` reads the answer from the catalog afterwards.
fn put_one<T: Serialize>(
    state: &dyn ControlState,
    (tenant, now): (TenantId, Timestamp),
    action: &'static str,
    change: impl FnOnce(&mut CatalogPlan) -> Result<(), Problem>,
    shown: impl FnOnce(&CatalogPlan) -> Option<T>,
) -> Result<Decision, Problem> {
    let current = state.catalog(tenant);
    let plan = change_catalog(&current, &state.catalog_use(tenant, now), change)?;
    let answer = answer_of(&shown(&plan))?;
    if let Some(item) = plan.diff.created.first() {
        let object = format!("{}/{}", item.kind.name(), item.key);
        return Ok(decided(plan.effects, action, object, 201, answer));
    }
    let Some(item) = plan.diff.changed.first() else {
        return Ok(Decision::unchanged(answer));
    };
    let object = format!("{}/{}", item.kind.name(), item.key);
    let fields: Vec<_> = item.changes.iter().map(|change| &change.pointer).collect();
    let detail = json!({ "version": item.version, "fields": fields });
    Ok(with_detail(
        decided(plan.effects, action, object, 200, answer),
        detail,
    ))
}

/// Decides a DELETE of one item.
fn remove_one(
    state: &dyn ControlState,
    (tenant, now): (TenantId, Timestamp),
    action: &'static str,
    kind: CatalogKind,
    key: &str,
) -> Result<Decision, Problem> {
    let current = state.catalog(tenant);
    let plan = change_catalog(&current, &state.catalog_use(tenant, now), |plan| {
        plan.remove(kind, key);
        Ok(())
    })?;
    if plan.effects.is_empty() {
        return Err(Problem::not_found(kind.name(), key));
    }
    let object = format!("{}/{key}", kind.name());
    Ok(decided(
        plan.effects,
        action,
        object,
        204,
        serde_json::Value::Null,
    ))
}
