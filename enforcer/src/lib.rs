//! Quota and entitlement decisions.
#![expect(dead_code, reason = "the signatures come first, for the wiring")]

mod enforcer;

use std::sync::Arc;

pub use enforcer::{Enforcer, EnforcerParts};
use utoipa_axum::router::OpenApiRouter;

/// The routes of quotas: check, consume, reservations, batch, and a customer's entitlements.
pub fn router(enforcer: Arc<Enforcer>) -> OpenApiRouter {
    OpenApiRouter::new().with_state(enforcer)
}
