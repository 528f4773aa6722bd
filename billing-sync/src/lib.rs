//! Catalog, subscriptions, rating and invoices.

// A cast that could change a number is written otherwise, or says why it cannot.
#![cfg_attr(
    not(test),
    warn(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )
)]

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
