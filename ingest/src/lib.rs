//! The gateway: events in over HTTP, validated and admitted to the log.

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

mod admission;
mod decode;
mod http;
mod options;
mod state;

pub use http::{EventError, IngestAnswer};
pub use options::IngestOptions;
pub use state::{IngestParts, IngestState};

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of events: sending, correcting, looking, dead letters, and the drop-in paths of other clients.
pub fn router(state: IngestState) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(http::events::send, http::listing::list))
        .routes(routes!(http::corrections::void))
        .routes(routes!(http::corrections::amend))
        .routes(routes!(http::dead_letters::list))
        .routes(routes!(http::dead_letters::replay))
        .routes(routes!(http::openmeter::send))
        .with_state(state)
}
