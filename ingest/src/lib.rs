//! The gateway: events in over HTTP, validated and admitted to the log.

mod options;
mod state;

pub use options::IngestOptions;
pub use state::{IngestParts, IngestState};

use utoipa_axum::router::OpenApiRouter;

/// The routes of events: sending, correcting, looking, dead letters, and the drop-in paths of other clients.
pub fn router(state: IngestState) -> OpenApiRouter {
    OpenApiRouter::new().with_state(state)
}
