//! A world for the quota engine: a directory, one partition owner and its sums, in memory. It answers late, in any order,
//! and fails as told: before a record is kept, or after.
#![allow(
    clippy::allow_attributes,
    dead_code,
    reason = "each test binary uses a part of it"
)]
#![allow(unreachable_pub, reason = "shared by test binaries")]

pub mod directory;
pub mod intake;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use turnpike_domain::catalog::{Customer, Override};
use turnpike_domain::identity::{NameKey, Scope, TenantId};
use turnpike_domain::port::directory::{Directory as _, DirectoryChange, DirectoryListener as _};
use turnpike_domain::time::{Clock, Timestamp};
use turnpike_enforcer::{Enforcer, EnforcerParts};
use turnpike_http::{Caller, RequestId};

pub use directory::FakeDirectory;
pub use intake::{FakeLog, Faults};

pub const TENANT: TenantId = TenantId(7);
pub const KEY: NameKey = NameKey([3; 16]);

/// A clock that tests move.
pub struct TestClock {
    us: AtomicI64,
    monotonic: AtomicU64,
}

impl TestClock {
    pub fn set(&self, text: &str) {
        self.us.store(at(text).micros(), Ordering::SeqCst);
    }

    pub fn pass_s(&self, seconds: i64) {
        self.us.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
        self.monotonic
            .fetch_add(seconds as u64 * 1_000_000, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self, _: TenantId) -> Timestamp {
        self.machine_now()
    }

    fn machine_now(&self) -> Timestamp {
        Timestamp::from_micros_clamped(self.us.load(Ordering::SeqCst))
    }

    fn monotonic_us(&self) -> u64 {
        self.monotonic.load(Ordering::SeqCst)
    }
}

pub fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

/// An engine in its world.
pub struct World {
    pub directory: Arc<FakeDirectory>,
    pub log: Arc<FakeLog>,
    pub clock: Arc<TestClock>,
    pub enforcer: Arc<Enforcer>,
}

impl World {
    /// A world at noon of 10 January 2026, with the meters `tokens` (sum of `$.n`) and `calls` (count).
    pub async fn new() -> Self {
        Self::with_faults(Faults::default()).await
    }

    pub async fn with_faults(faults: Faults) -> Self {
        let clock = Arc::new(TestClock {
            us: AtomicI64::new(at("2026-01-10T12:00:00Z").micros()),
            monotonic: AtomicU64::new(0),
        });
        let directory = Arc::new(FakeDirectory::default());
        let log = FakeLog::new(directory.clone(), faults);
        let world = Self::start(directory, log, clock).await;
        world.put_meter("tokens", "sum", Some("$.n"));
        world.put_meter("calls", "count", None);
        world
    }

    async fn start(directory: Arc<FakeDirectory>, log: Arc<FakeLog>, clock: Arc<TestClock>) -> Self {
        let enforcer = Enforcer::new(EnforcerParts {
            directory: directory.clone(),
            clock: clock.clone(),
            key: KEY,
        });
        log.listen(enforcer.clone());
        enforcer.connect(log.clone(), log.clone()).await.unwrap();
        Self {
            directory,
            log,
            clock,
            enforcer,
        }
    }

    /// The same world with a new engine, as after a crash: what was in memory is gone.
    pub async fn restart(self) -> Self {
        Self::start(self.directory, self.log, self.clock).await
    }

    pub fn put_meter(&self, key: &str, aggregation: &str, value: Option<&str>) {
        self.directory.put_meter(key, aggregation, value);
        self.told(DirectoryChange::Catalog(TENANT));
    }

    pub fn told(&self, change: DirectoryChange) {
        self.enforcer.changed(&change);
    }

    pub fn put_feature(&self, key: &str, feature: Value) {
        self.directory.put_feature(key, feature);
        self.told(DirectoryChange::Catalog(TENANT));
    }

    /// A plan at its next version, with these entitlements.
    pub fn put_plan(&self, key: &str, entitlements: Value) {
        self.directory.put_plan(key, entitlements);
        self.told(DirectoryChange::Catalog(TENANT));
    }

    pub fn put_add_on(&self, key: &str, entitlements: Value) {
        self.directory.put_add_on(key, entitlements);
        self.told(DirectoryChange::Catalog(TENANT));
    }

    pub fn put_customer(&self, key: &str, customer: Value) {
        self.directory.put_customer(key, customer);
        self.told(DirectoryChange::Customer(TENANT, key.to_owned()));
    }

    /// Gives the customer another parent, as the control store does.
    pub fn move_customer(&self, key: &str, parent: Option<&str>) {
        let before = self.directory.customer(TENANT, key).unwrap();
        let mut after = Customer::clone(&before);
        after.parent = parent.map(str::to_owned);
        after.follow(&before, self.clock.machine_now());
        self.directory.set_customer(after);
        self.told(DirectoryChange::Customer(TENANT, key.to_owned()));
    }

    /// A subscription from 1 January 2026 on, monthly.
    pub fn subscribe(&self, customer: &str, plan: &str, add_ons: &[&str]) {
        self.directory.subscribe(customer, plan, add_ons);
        self.told(DirectoryChange::Customer(TENANT, customer.to_owned()));
    }

    /// Gives the customer an override of a feature in place of the one that it has, as the control store does.
    pub fn put_override(&self, customer: &str, mut body: Value) {
        body["customer"] = customer.into();
        let next: Override = serde_json::from_value(body).unwrap();
        let feature = next.entitlement.feature.clone();
        self.change_override(customer, &feature, Some(next));
    }

    pub fn remove_override(&self, customer: &str, feature: &str) {
        self.change_override(customer, feature, None);
    }

    fn change_override(&self, customer: &str, feature: &str, mut next: Option<Override>) {
        let now = self.clock.machine_now();
        let standing = self.directory.overrides(TENANT, customer).into_iter();
        let before = standing
            .into_iter()
            .find(|over| over.entitlement.feature == feature);
        if let Some(next) = &mut next {
            next.follow(before.as_deref(), now);
        }
        if let Some(before) = &before {
            let mut whose = Customer::clone(&self.directory.customer(TENANT, customer).unwrap());
            whose.keep_override(before, now);
            self.directory.set_customer(whose);
        }
        self.directory.set_override(customer, feature, next);
        self.told(DirectoryChange::Customer(TENANT, customer.to_owned()));
    }

    pub fn put_grant(&self, customer: &str, body: Value) {
        self.directory.put_grant(customer, body);
        self.told(DirectoryChange::Customer(TENANT, customer.to_owned()));
    }

    pub fn remove_grant(&self, customer: &str, id: &str) {
        self.directory
            .remove_grant(customer, id, self.clock.machine_now());
        self.told(DirectoryChange::Customer(TENANT, customer.to_owned()));
    }

    /// A metered feature `tokens` over the meter of that name, a plan `pro` with `limits` on it, and the customer `acme`.
    pub fn metered(&self, limits: Value) {
        self.put_feature("tokens", json!({"kind": "metered", "meter": "tokens"}));
        self.put_plan("pro", json!([{"feature": "tokens", "limits": limits}]));
        self.put_customer("acme", json!({}));
        self.subscribe("acme", "pro", &[]);
    }

    /// A call of the router with all scopes.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value, HeaderMap) {
        let (router, _) = turnpike_enforcer::router(self.enforcer.clone()).split_for_parts();
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let mut request = request.body(body).unwrap();
        request.extensions_mut().insert(Caller {
            tenant: TENANT,
            key_id: "key".into(),
            scopes: Arc::new([Scope::Check].into()),
            request_id: RequestId("request".into()),
        });
        let response = router.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 24).await.unwrap();
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        (parts.status, json, parts.headers)
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let (status, json, _) = self.call("POST", path, Some(body)).await;
        (status, json)
    }

    /// A check that must be answered.
    pub async fn check(&self, customer: &str, feature: &str, amount: &str) -> Value {
        let body = json!({"customer": customer, "feature": feature, "amount": amount});
        let (status, answer) = self.post("/v1/quota/check", body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// A consume that must be answered.
    pub async fn consume(&self, id: &str, customer: &str, amount: &str) -> Value {
        let body = json!({"id": id, "customer": customer, "feature": "tokens", "amount": amount});
        let (status, answer) = self.post("/v1/quota/consume", body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub async fn reserve(&self, id: &str, customer: &str, amount: &str, ttl_s: u32) -> Value {
        let body =
            json!({"id": id, "customer": customer, "feature": "tokens", "amount": amount, "ttl_s": ttl_s});
        let (status, answer) = self.post("/v1/quota/reservations", body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub async fn commit(&self, id: &str, body: Value) -> (StatusCode, Value) {
        self.post(&format!("/v1/quota/reservations/{id}/commit"), body)
            .await
    }

    pub async fn release(&self, id: &str) -> (StatusCode, Value) {
        let (status, json, _) = self
            .call("POST", &format!("/v1/quota/reservations/{id}/release"), None)
            .await;
        (status, json)
    }

    /// used, reserved, remaining of `acme`'s tokens.
    pub async fn figures(&self, customer: &str) -> [String; 3] {
        let answer = self.check(customer, "tokens", "0").await;
        ["used", "reserved", "remaining"].map(|name| answer[name].as_str().unwrap_or("-").to_owned())
    }
}
