//! Invoices and billing runs over HTTP.

mod export;
mod html;
mod invoices;
mod runs;
mod steps;
mod upcoming;
mod verify;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::engine::BillingSync;

pub(crate) fn router(billing: Arc<BillingSync>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(invoices::list_invoices))
        .routes(routes!(invoices::get_invoice))
        .routes(routes!(steps::finalize_invoice))
        .routes(routes!(steps::pay_invoice))
        .routes(routes!(steps::void_invoice))
        .routes(routes!(steps::give_up_invoice))
        .routes(routes!(verify::verify_invoices))
        .routes(routes!(verify::verify_invoice))
        .routes(routes!(upcoming::upcoming_invoice))
        .routes(routes!(export::export_invoices))
        .routes(routes!(runs::begin_billing_run, runs::list_billing_runs))
        .routes(routes!(runs::get_billing_run))
        .with_state(billing)
}
