use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use super::engine::BillingSync;

pub(crate) fn router(billing: Arc<BillingSync>) -> OpenApiRouter {
    OpenApiRouter::new().with_state(billing)
}
