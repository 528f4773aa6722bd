//! Catalog, subscriptions, rating and invoices.

mod preview;

use utoipa_axum::router::OpenApiRouter;

/// `POST /v1/price/preview` and `POST /v1/fees/preview`: pure, without state.
pub fn preview_router() -> OpenApiRouter {
    preview::router()
}
