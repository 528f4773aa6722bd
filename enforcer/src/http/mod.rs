//! The HTTP side: thin handlers, the shape of answers, and rate-limit headers.

mod answer;
mod entitlements;
mod headers;
mod listing;
mod quota;
mod reservations;
mod written;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Enforcer;

/// The routes of quotas: check, consume, reservations and their list, batch, and a customer's entitlements.
pub fn router(enforcer: Arc<Enforcer>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(quota::check))
        .routes(routes!(quota::consume))
        .routes(routes!(quota::batch))
        .routes(routes!(listing::list_reservations, reservations::reserve))
        .routes(routes!(reservations::commit))
        .routes(routes!(reservations::release))
        .routes(routes!(entitlements::entitlements))
        .with_state(enforcer)
}
