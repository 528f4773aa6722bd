//! The routes on a control store in memory, with a clock that is set by hand and work that falls due at each midnight.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use parking_lot::Mutex;
use serde_json::Value;
use tower::ServiceExt as _;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::BoxFuture;
use turnpike_domain::port::control::{ApiKeys as _, DueWork, Undone};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{Clock as _, Timestamp};
use turnpike_http::{Caller, RequestId};
use turnpike_server::http::{Administration, AdvanceLocks, administration_router};
use turnpike_stores::fault::FailPoints;
use turnpike_stores::machine::{ManualClock, SeededRandomness, TenantClock};
use turnpike_stores::sql::{FirstKey, SqlPlace, SqlStore};

pub(crate) const DAY_US: i64 = 86_400_000_000;

/// Falls due at each midnight; fails once at `fails_at`.
#[derive(Default)]
pub(crate) struct Midnights {
    pub(crate) clock: Mutex<Option<Arc<TenantClock>>>,
    pub(crate) ran: Mutex<Vec<(Timestamp, Timestamp)>>,
    pub(crate) fails_at: Mutex<Option<Timestamp>>,
    /// Until then something cannot be done.
    pub(crate) stuck_until: Mutex<Option<Timestamp>>,
}

impl DueWork for Midnights {
    fn next_due(&self, _: TenantId, after: Timestamp) -> BoxFuture<'_, Result<Option<Timestamp>, Problem>> {
        let next = (after.micros() / DAY_US + 1) * DAY_US;
        Box::pin(async move { Ok(Some(Timestamp::from_micros_clamped(next))) })
    }

    fn run_due(&self, tenant: TenantId, now: Timestamp) -> BoxFuture<'_, Result<Undone, Problem>> {
        Box::pin(async move {
            if self.fails_at.lock().take_if(|at| *at == now).is_some() {
                return Err(Problem::new(Code::Unavailable, "on purpose"));
            }
            let shown = self.clock.lock().as_ref().unwrap().now(tenant);
            self.ran.lock().push((now, shown));
            let mut undone = Undone::default();
            if self.stuck_until.lock().is_some_and(|until| now < until) {
                undone.note("sub_1", &Problem::new(Code::NotFound, "no such meter"));
            }
            Ok(undone)
        })
    }
}

pub(crate) struct App {
    router: Router,
    pub(crate) store: SqlStore,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) due: Arc<Midnights>,
    pub(crate) admin: String,
}

impl App {
    pub(crate) async fn start() -> Self {
        let clock = Arc::new(ManualClock::new(at("2026-01-15T10:00:30Z")));
        let randomness = Arc::new(SeededRandomness::new(1, clock.clone()));
        let clocks = Arc::new(TenantClock::new(clock.clone()));
        let fail = Arc::new(FailPoints::default());
        let store = SqlStore::open(&SqlPlace::Memory, clocks.clone(), randomness.clone(), fail)
            .await
            .unwrap();
        let FirstKey::Made(admin) = store.first_start(None, &|_| Ok(())).await.unwrap() else {
            panic!("no key was made")
        };
        let due = Arc::new(Midnights::default());
        *due.clock.lock() = Some(clocks.clone());
        let shared = Arc::new(store.clone());
        let administration = Administration {
            store: shared.clone(),
            keys: shared.clone(),
            directory: shared,
            clock: clocks,
            randomness,
            due: vec![due.clone()],
            advancing: AdvanceLocks::default(),
        };
        let (router, _) = administration_router(Arc::new(administration)).split_for_parts();
        Self {
            router,
            store,
            clock,
            due,
            admin: admin.text,
        }
    }

    pub(crate) async fn bytes(
        &self,
        key: &str,
        request: (&str, &str, Value),
        once: Option<&str>,
    ) -> (u16, Vec<u8>) {
        let (method, path, body) = request;
        let found = self.store.authenticate(key).unwrap();
        let mut request = Request::builder().method(method).uri(path);
        if let Some(once) = once {
            request = request.header("idempotency-key", once);
        }
        if !body.is_null() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        let mut request = request.body(body).unwrap();
        request.extensions_mut().insert(Caller {
            tenant: found.tenant,
            key_id: found.id.as_str().into(),
            scopes: Arc::new(found.scopes.clone()),
            request_id: RequestId("request1".into()),
        });
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        (
            status,
            axum::body::to_bytes(response.into_body(), usize::MAX)
                .await
                .unwrap()
                .to_vec(),
        )
    }

    /// The body of the answer, whose status and, for a failure, code must be these.
    pub(crate) async fn call(&self, key: &str, request: (&str, &str, Value), expected: (u16, &str)) -> Value {
        let (status, bytes) = self.bytes(key, request, None).await;
        let body: Value = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap()
        };
        assert_eq!((status, body["code"].as_str().unwrap_or("")), expected, "{body}");
        body
    }

    pub(crate) async fn tenant(&self, body: Value) -> String {
        let made = self
            .call(&self.admin, ("POST", "/v1/tenants", body), (201, ""))
            .await;
        made["api_key"].as_str().unwrap().to_owned()
    }
}

pub(crate) fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

pub(crate) const OK: (u16, &str) = (200, "");
