//! A gateway whose other side is kept in memory: simple enough to be read as its own definition.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use serde_json::Value;
use tower::ServiceExt as _;
use turnpike_domain::catalog::{Catalog, Customer, Grant, Override, Subscription, Tenant};
use turnpike_domain::identity::{NameKey, Scope, TenantId};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::intake::Rejection;
use turnpike_domain::time::Timestamp;
use turnpike_http::{Caller, RequestId};
use turnpike_ingest::{IngestOptions, IngestParts, IngestState};
use turnpike_stores::machine::{ManualClock, SeededRandomness};

use crate::memory::MemoryIntake;

/// The time of every test.
pub(crate) const NOW: &str = "2026-03-01T12:00:00Z";

/// A directory with one customer, `acme`, whose subjects are `acme` and `acme-two`.
struct OneCustomer(Arc<Customer>);

impl Directory for OneCustomer {
    fn tenant(&self, _: TenantId) -> Option<Arc<Tenant>> {
        None
    }
    fn tenants(&self) -> Vec<Arc<Tenant>> {
        Vec::new()
    }
    fn catalog(&self, _: TenantId) -> Arc<Catalog> {
        Arc::default()
    }
    fn customer(&self, tenant: TenantId, key: &str) -> Option<Arc<Customer>> {
        (tenant == TenantId(1) && key == self.0.key).then(|| Arc::clone(&self.0))
    }
    fn customers_from(&self, tenant: TenantId, from: &str, number: usize) -> Vec<Arc<Customer>> {
        let is_behind = tenant == TenantId(1) && self.0.key.as_str() >= from && number > 0;
        is_behind.then(|| Arc::clone(&self.0)).into_iter().collect()
    }
    fn customer_of_subject(&self, tenant: TenantId, subject: &str) -> Option<Arc<Customer>> {
        let owns = self.0.subjects.iter().any(|one| one == subject);
        (tenant == TenantId(1) && owns).then(|| Arc::clone(&self.0))
    }
    fn children(&self, _: TenantId, _: &str) -> Vec<Arc<Customer>> {
        Vec::new()
    }
    fn subscriptions(&self, _: TenantId, _: &str) -> Vec<Arc<Subscription>> {
        Vec::new()
    }
    fn subscription(&self, _: TenantId, _: &str) -> Option<Arc<Subscription>> {
        None
    }
    fn overrides(&self, _: TenantId, _: &str) -> Vec<Arc<Override>> {
        Vec::new()
    }
    fn grants(&self, _: TenantId, _: &str) -> Vec<Arc<Grant>> {
        Vec::new()
    }
    fn grant_holders(&self, _: TenantId, _: &str) -> Vec<Arc<Customer>> {
        Vec::new()
    }
    fn epoch(&self) -> u64 {
        0
    }
}

/// A gateway under test.
pub(crate) struct Gateway {
    pub(crate) intake: Arc<MemoryIntake>,
    pub(crate) clock: Arc<ManualClock>,
    router: Router,
}

impl Gateway {
    pub(crate) fn new() -> Self {
        Self::with(IngestOptions::default(), MemoryIntake::default())
    }

    pub(crate) fn with(options: IngestOptions, intake: MemoryIntake) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::parse(NOW).unwrap()));
        let intake = Arc::new(intake);
        let customer: Customer =
            serde_json::from_str(r#"{"key": "acme", "subjects": ["acme", "acme-two"]}"#).unwrap();
        let state = IngestState::new(IngestParts {
            intake: intake.clone(),
            history: intake.clone(),
            directory: Arc::new(OneCustomer(Arc::new(customer))),
            clock: clock.clone(),
            randomness: Arc::new(SeededRandomness::new(1, clock.clone())),
            key: NameKey([7; 16]),
            options,
        });
        let (router, _) = turnpike_ingest::router(state).split_for_parts();
        Self {
            intake,
            clock,
            router,
        }
    }

    /// Calls as tenant 1 with every scope.
    pub(crate) async fn call(&self, request: Request<Body>) -> Answer {
        self.call_as(1, Scope::Admin, request).await
    }

    pub(crate) async fn call_as(&self, tenant: u32, scope: Scope, request: Request<Body>) -> Answer {
        let response = self.raw(tenant, scope, request).await;
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let answer = Answer {
            status: parts.status,
            headers: parts.headers,
            json: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            bytes,
        };
        answer.check();
        answer
    }

    /// The bare status: for paths that are not the gateway's.
    pub(crate) async fn status(&self, tenant: u32, scope: Scope, request: Request<Body>) -> u16 {
        self.raw(tenant, scope, request).await.status().as_u16()
    }

    async fn raw(&self, tenant: u32, scope: Scope, mut request: Request<Body>) -> Response {
        request.extensions_mut().insert(Caller {
            tenant: TenantId(tenant),
            key_id: "key".into(),
            scopes: Arc::new(BTreeSet::from([scope])),
            request_id: RequestId("request".into()),
        });
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, content_type: &str, body: impl Into<Body>) -> Answer {
        let request = Request::post(path).header("content-type", content_type);
        self.call(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn json(&self, body: impl Into<Body>) -> Answer {
        self.post("/v1/events", "application/json", body).await
    }

    pub(crate) async fn lines(&self, body: impl Into<Body>) -> Answer {
        self.post("/v1/events", "application/x-ndjson", body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) fn events(&self) -> usize {
        self.intake.log.lock().unwrap().events.len()
    }

    pub(crate) fn letters(&self) -> Vec<Rejection> {
        self.intake
            .log
            .lock()
            .unwrap()
            .letters
            .values()
            .cloned()
            .collect()
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Value,
    pub(crate) bytes: Bytes,
}

impl Answer {
    /// What every answer must satisfy: errors are problems, and none is a defect of the server.
    fn check(&self) {
        if self.status.is_success() {
            return;
        }
        assert_ne!(self.status, StatusCode::INTERNAL_SERVER_ERROR, "{self:?}");
        assert_eq!(
            self.headers["content-type"], "application/problem+json",
            "{self:?}"
        );
        assert_eq!(self.json["status"], self.status.as_u16(), "{self:?}");
        let busy = matches!(self.status.as_u16(), 429 | 503);
        assert_eq!(self.headers.contains_key("retry-after"), busy, "{self:?}");
    }

    pub(crate) fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or("")
    }

    pub(crate) fn pointer(&self) -> &str {
        self.json["errors"][0]["pointer"].as_str().unwrap_or("")
    }

    /// (accepted, duplicates, conflicts, rejected) of a 200.
    pub(crate) fn counts(&self) -> (u64, u64, u64, u64) {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        let count = |name: &str| self.json[name].as_u64().unwrap();
        (
            count("accepted"),
            count("duplicates"),
            count("conflicts"),
            count("rejected"),
        )
    }
}

/// A good event with this id.
pub(crate) fn event_with(id: &str) -> Value {
    serde_json::json!({
        "id": id, "source": "test", "type": "llm.request", "subject": "acme", "specversion": "1.0",
        "time": "2026-03-01T11:00:00Z", "data": {"tokens": 17, "model": "gpt-4"},
    })
}

/// Lines of good events with ids from `range`.
pub(crate) fn lines_of(range: std::ops::Range<usize>) -> String {
    range
        .map(|id| event_with(&id.to_string()).to_string() + "\n")
        .collect()
}
