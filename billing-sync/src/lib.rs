//! Catalog, subscriptions, rating and invoices.

mod catalog;
mod control;
mod customer;
mod invoice;
mod preview;
mod subscription;

use std::sync::Arc;

pub use catalog::{CatalogInForce, CatalogRequest};
pub use control::Control;
pub use invoice::{BillingOptions, BillingParts, BillingSync, Verification, Verifier};
pub use subscription::{CancelRequest, ChangeRequest, NewSubscription, ScheduledChange, SubscriptionView};
use utoipa_axum::router::OpenApiRouter;

/// The routes of invoices, billing runs and previews.
pub fn router(billing: Arc<BillingSync>) -> OpenApiRouter {
    preview::router().merge(invoice::router(billing))
}

/// `POST /v1/price/preview` and `POST /v1/fees/preview`: pure, without state.
pub fn preview_router() -> OpenApiRouter {
    preview::router()
}

/// The routes of catalog, customers and subscriptions.
pub fn control_router(control: Arc<Control>) -> OpenApiRouter {
    OpenApiRouter::new()
        .merge(catalog::router(control.clone()))
        .merge(customer::router(control.clone()))
        .merge(subscription::router(control))
}
