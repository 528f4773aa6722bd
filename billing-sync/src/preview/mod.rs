//! What a price or a fee comes to, without anything being billed.

mod fee;
mod price;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// `POST /v1/price/preview` and `POST /v1/fees/preview`.
pub(crate) fn router() -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(price::preview_price))
        .routes(routes!(fee::preview_fees))
}
