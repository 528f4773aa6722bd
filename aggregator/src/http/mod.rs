//! Usage over HTTP.

mod export;
mod openmeter;
mod params;
mod place;
mod python;
mod table;
mod usage;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Aggregator;

/// The routes of usage: queries, exports, and OpenMeter's query.
pub fn router(aggregator: Arc<Aggregator>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(usage::usage))
        .routes(routes!(export::export))
        .routes(routes!(openmeter::query))
        .with_state(aggregator)
}
