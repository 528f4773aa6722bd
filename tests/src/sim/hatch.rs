//! The handlers of the engine, called without a socket.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::routing::Router;
use serde_json::Value;
use tower::ServiceExt as _;
use turnpike_aggregator::Aggregator;
use turnpike_billing_sync::{BillingSync, Control, control_router};
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::port::control::{ControlStore as _, DueWork};
use turnpike_domain::time::Randomness;
use turnpike_enforcer::Enforcer;
use turnpike_http::{Caller, RequestId};
use turnpike_ingest::{IngestOptions, IngestParts, IngestState};
use turnpike_server::http::{Administration, AdvanceLocks, administration_router};
use turnpike_stores::machine::TenantClock;
use turnpike_stores::sql::SqlStore;

use crate::app::Answer;
use crate::door::Door;

/// The routers of a running engine, as one tenant sees them.
pub(super) struct Hatch {
    pub(super) router: Router,
    pub(super) tenant: TenantId,
}

impl Door for Hatch {
    async fn call(&self, method: &'static str, path: &str, body: Option<&Value>) -> Answer {
        let request = Request::builder().method(method).uri(path);
        let request = match body {
            Some(body) => request
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        let mut request = request.expect("a request");
        request.extensions_mut().insert(Caller {
            tenant: self.tenant,
            key_id: "sim".into(),
            scopes: Arc::new([Scope::Admin].into()),
            request_id: RequestId("sim".into()),
        });
        let answer = self.router.clone().oneshot(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.ok()?;
        // What a fault caused is no answer.
        (status < 500).then(|| (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }
}

/// Everything that the server mounts, but its own middleware.
pub(super) fn router(
    sql: &SqlStore,
    aggregator: &Arc<Aggregator>,
    enforcer: &Arc<Enforcer>,
    billing: &Arc<BillingSync>,
    clock: &Arc<TenantClock>,
    randomness: &Arc<dyn Randomness>,
) -> Router {
    let shared = Arc::new(sql.clone());
    let control = Arc::new(Control {
        store: shared.clone(),
        directory: shared.clone(),
        clock: clock.clone(),
        randomness: Arc::clone(randomness),
        history: aggregator.clone(),
        late_days: billing.late_days(),
    });
    let due: Vec<Arc<dyn DueWork>> = vec![enforcer.clone(), billing.clone()];
    let administration = Arc::new(Administration {
        store: shared.clone(),
        keys: shared.clone(),
        directory: shared.clone(),
        clock: clock.clone(),
        randomness: Arc::clone(randomness),
        due,
        advancing: AdvanceLocks::default(),
    });
    let ingest = IngestState::new(IngestParts {
        intake: aggregator.clone(),
        history: aggregator.clone(),
        directory: shared,
        clock: clock.clone(),
        randomness: Arc::clone(randomness),
        key: sql.name_key(),
        options: IngestOptions::default(),
    });
    let all = turnpike_ingest::router(ingest)
        .merge(turnpike_aggregator::router(Arc::clone(aggregator)))
        .merge(turnpike_enforcer::router(Arc::clone(enforcer)))
        .merge(turnpike_billing_sync::router(Arc::clone(billing)))
        .merge(control_router(control))
        .merge(administration_router(administration));
    all.split_for_parts().0
}
