//! The routes on a store in memory, with a clock that tests move.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use turnpike_billing_sync::{BillingOptions, Control, control_router};
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::port::BoxFuture;
use turnpike_domain::port::history::{Backfill, DeadLetterPage, EventPage, EventQuery, History};
use turnpike_domain::problem::Problem;
use turnpike_domain::time::Timestamp;
use turnpike_http::{Caller, RequestId};
use turnpike_stores::fault::FailPoints;
use turnpike_stores::machine::{ManualClock, SeededRandomness, TenantClock};
use turnpike_stores::sql::{SqlPlace, SqlStore};

pub(crate) struct App {
    router: Router,
    pub(crate) store: SqlStore,
    pub(crate) clock: Arc<ManualClock>,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) replayed: bool,
}

impl Reply {
    /// Asserts the status and, of a failure, the code; gives the body.
    #[track_caller]
    pub(crate) fn is(self, status: u16, code: &str) -> Value {
        let found = self.body["code"].as_str().unwrap_or("");
        assert_eq!((self.status, found), (status, code), "{}", self.body);
        self.body
    }
}

/// A past in which every meter has read 30 of 40 bytes.
pub(crate) struct HalfRead;

impl History for HalfRead {
    fn events(&self, _: TenantId, _: EventQuery) -> BoxFuture<'_, Result<EventPage, Problem>> {
        Box::pin(async { Ok(EventPage::default()) })
    }

    fn dead_letters(
        &self,
        _: TenantId,
        _: usize,
        _: Option<String>,
    ) -> BoxFuture<'_, Result<DeadLetterPage, Problem>> {
        Box::pin(async { Ok(DeadLetterPage::default()) })
    }

    fn backfill(&self, _: TenantId, _: &str) -> Option<Backfill> {
        Some(Backfill {
            lacks_before: None,
            complete: false,
            total_bytes: 40,
            done_bytes: 30,
        })
    }
}

impl App {
    /// At 2026-01-15T10:00:30Z.
    pub(crate) async fn start() -> Self {
        Self::on(&SqlPlace::Memory, FailPoints::default()).await
    }

    pub(crate) async fn on(place: &SqlPlace, fail: FailPoints) -> Self {
        let clock = Arc::new(ManualClock::new(
            Timestamp::parse("2026-01-15T10:00:30Z").unwrap(),
        ));
        let randomness = Arc::new(SeededRandomness::new(1, clock.clone()));
        let clocks = Arc::new(TenantClock::new(clock.clone()));
        let store = SqlStore::open(place, clocks.clone(), randomness.clone(), Arc::new(fail))
            .await
            .unwrap();
        store.first_start(None, &|_| Ok(())).await.unwrap();
        let shared = Arc::new(store.clone());
        let control = Control {
            store: shared.clone(),
            directory: shared,
            clock: clocks,
            randomness,
            history: Arc::new(HalfRead),
            late_days: BillingOptions::default().late_days(),
        };
        let (router, _) = control_router(Arc::new(control)).split_for_parts();
        Self { router, store, clock }
    }

    pub(crate) async fn send(&self, scope: Scope, mut request: Request) -> Reply {
        let caller = Caller {
            tenant: TenantId::DEFAULT,
            key_id: "key1".into(),
            scopes: Arc::new([scope].into()),
            request_id: RequestId("request1".into()),
        };
        request.extensions_mut().insert(caller);
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let replayed = response.headers().contains_key("idempotent-replayed");
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap()
        };
        Reply {
            status,
            body,
            replayed,
        }
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Reply {
        self.call_once(method, path, body, None).await
    }

    pub(crate) async fn call_once(&self, method: &str, path: &str, body: Value, key: Option<&str>) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let body = if body.is_null() {
            Body::empty()
        } else {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Body::from(body.to_string())
        };
        self.send(Scope::Admin, request.body(body).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, Value::Null).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Reply {
        self.call("PUT", path, body).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.call("POST", path, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.call("DELETE", path, Value::Null).await
    }

    /// A meter, two features, a plan, an add-on and a customer.
    pub(crate) async fn with_catalog() -> Self {
        let app = Self::start().await;
        for (path, body) in [
            ("/v1/meters/tokens", tokens()),
            (
                "/v1/features/tokens",
                json!({"kind": "metered", "meter": "tokens"}),
            ),
            ("/v1/features/sso", json!({"kind": "boolean"})),
            ("/v1/plans/pro", pro()),
            ("/v1/add-ons/more", more()),
            (
                "/v1/customers/acme",
                json!({"name": "Acme", "timezone": "Europe/Istanbul"}),
            ),
        ] {
            app.put(path, body).await.is(201, "");
        }
        app
    }
}

pub(crate) fn tokens() -> Value {
    json!({"event_type": "llm.request", "aggregation": "sum", "value": "$.tokens", "group_by": {"model": "$.model"}})
}

pub(crate) fn pro() -> Value {
    json!({
        "currency": "USD",
        "prices": [
            {"key": "base", "model": "flat", "amount": "29.00"},
            {"key": "tokens", "meter": "tokens", "model": "per_unit", "unit_amount": "0.0004", "included": "1000"},
        ],
        "entitlements": [{"feature": "tokens", "limits": [{"limit": "100000", "period": "day"}]}, {"feature": "sso"}],
    })
}

pub(crate) fn more() -> Value {
    json!({"currency": "USD", "entitlements": [{"feature": "tokens", "limits": [{"limit": 5000, "period": "day"}]}]})
}
