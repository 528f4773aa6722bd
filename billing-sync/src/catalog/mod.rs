//! Meters, features, plans and add-ons over HTTP, one by one and as a whole catalog.

mod add_ons;
mod entry;
mod features;
mod meters;
mod plans;
mod whole;

pub use whole::{CatalogInForce, CatalogRequest};

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::control::Control;

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
