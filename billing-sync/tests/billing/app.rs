//! The routes of catalog and billing over an SQLite file, with usage and a clock that tests hold.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use turnpike_billing_sync::{BillingOptions, BillingParts, BillingSync, Control, control_router, router};
use turnpike_domain::catalog::Tenant;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::port::control::{Change, ControlStore as _, Decision, DueWork as _, Effect};
use turnpike_domain::time::{Clock as _, Timestamp};
use turnpike_http::{Caller, RequestId};
use turnpike_stores::fault::FailPoints;
use turnpike_stores::machine::{MachineRandomness, ManualClock, TenantClock};
use turnpike_stores::sql::{SqlPlace, SqlStore};

use crate::usage::FakeUsage;

pub(crate) const LAB: TenantId = TenantId(2);

pub(crate) struct App {
    router: Router,
    pub(crate) billing: Arc<BillingSync>,
    pub(crate) store: SqlStore,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) clocks: Arc<TenantClock>,
    pub(crate) usage: Arc<FakeUsage>,
    pub(crate) tenant: TenantId,
    pub(crate) directory: Arc<tempfile::TempDir>,
}

impl App {
    /// At 2026-01-01T00:00:00Z, nothing looked for by the clock.
    pub(crate) async fn start() -> Self {
        let clock = ManualClock::new(Timestamp::parse("2026-01-01T00:00:00Z").unwrap());
        let directory = Arc::new(tempfile::tempdir().unwrap());
        Self::on(
            directory,
            Arc::new(clock),
            Arc::default(),
            (FailPoints::default(), 0),
        )
        .await
    }

    async fn on(
        directory: Arc<tempfile::TempDir>,
        clock: Arc<ManualClock>,
        usage: Arc<FakeUsage>,
        (fail, check_interval_s): (FailPoints, u64),
    ) -> Self {
        let randomness = Arc::new(MachineRandomness);
        let clocks = Arc::new(TenantClock::new(clock.clone()));
        let place = SqlPlace::File(directory.path().join("control.db"));
        let store = SqlStore::open(&place, clocks.clone(), randomness.clone(), Arc::new(fail))
            .await
            .unwrap();
        store.first_start(None, &|_| Ok(())).await.unwrap();
        let shared = Arc::new(store.clone());
        let control = Control {
            store: shared.clone(),
            directory: shared.clone(),
            clock: clocks.clone(),
            randomness: randomness.clone(),
            history: usage.clone(),
            late_days: BillingOptions::default().late_days(),
        };
        let billing = BillingSync::start(BillingParts {
            directory: shared.clone(),
            control: shared.clone(),
            store: shared,
            usage: usage.clone(),
            clock: clocks.clone(),
            randomness,
            options: BillingOptions {
                check_interval_s,
                ..BillingOptions::default()
            },
        });
        let (router, _) = control_router(Arc::new(control))
            .merge(router(billing.clone()))
            .split_for_parts();
        Self {
            router,
            billing,
            store,
            clock,
            clocks,
            usage,
            tenant: TenantId::DEFAULT,
            directory,
        }
    }

    /// The same data in a new engine, as after a crash.
    pub(crate) async fn restarted(self, fail: &str) -> Self {
        let fail = if fail.is_empty() {
            FailPoints::default()
        } else {
            FailPoints::parse(fail).unwrap()
        };
        self.anew((fail, 0)).await
    }

    /// A new engine that looks for what is due by itself.
    pub(crate) async fn looking_every(self, seconds: u64) -> Self {
        self.anew((FailPoints::default(), seconds)).await
    }

    async fn anew(self, how: (FailPoints, u64)) -> Self {
        self.billing.stop().await;
        // A change on its way would go on beside the new engine, as it cannot beside a new process.
        self.store.close().await.unwrap();
        let (directory, clock, usage, tenant) = (
            self.directory.clone(),
            self.clock.clone(),
            self.usage.clone(),
            self.tenant,
        );
        drop(self);
        let anew = Self::on(directory, clock, usage, how).await;
        Self { tenant, ..anew }
    }

    /// The tenant `LAB` with its own clock, for all calls from now on.
    pub(crate) async fn for_test_tenant(mut self, now: &str) -> Self {
        let tenant = Tenant {
            id: LAB,
            key: "lab".into(),
            name: "Lab <b>".into(),
            test: true,
            clock: Some(Timestamp::parse(now).unwrap()),
            suspended: false,
            timezone: "UTC".into(),
            calls_per_second: None,
        };
        self.put_tenant(tenant).await;
        self.tenant = LAB;
        self
    }

    async fn put_tenant(&self, tenant: Tenant) {
        let change = Change {
            tenant: LAB,
            actor: "test".into(),
            request_id: "".into(),
            at: self.clock.machine_now(),
            recorded_at: self.clock.machine_now(),
            idempotency: None,
        };
        let decide = move |_: &dyn turnpike_domain::port::control::ControlState| {
            Ok(Decision {
                effects: vec![Effect::Tenant(tenant)],
                ..Decision::unchanged(Value::Null)
            })
        };
        self.store.change(change, Box::new(decide)).await.unwrap();
    }

    pub(crate) async fn send(&self, scope: Scope, mut request: Request) -> (u16, String) {
        let caller = Caller {
            tenant: self.tenant,
            key_id: "key1".into(),
            scopes: Arc::new([scope].into()),
            request_id: RequestId("request1".into()),
        };
        request.extensions_mut().insert(caller);
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.call_once(method, path, body, None).await
    }

    pub(crate) async fn call_once(
        &self,
        method: &str,
        path: &str,
        body: Value,
        key: Option<&str>,
    ) -> (u16, Value) {
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
        let (status, text) = self.send(Scope::Admin, request.body(body).unwrap()).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, Value::Null).await;
        assert_eq!(status, 200, "{path} {body}");
        body
    }

    pub(crate) async fn put(&self, path: &str, body: Value) {
        let (status, answer) = self.call("PUT", path, body).await;
        assert!(status == 200 || status == 201, "{path} {answer}");
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call("POST", path, body).await;
        assert!((200..300).contains(&status), "{path} {answer}");
        answer
    }

    /// The meter `tokens`, a plan of these prices, and the customer `acme`.
    pub(crate) async fn catalog(&self, plan: Value, zone: &str) {
        let meter = json!({"event_type": "llm", "aggregation": "sum", "value": "$.tokens", "group_by": {"region": "$.region"}});
        self.put("/v1/meters/tokens", meter).await;
        self.put("/v1/plans/pro", plan).await;
        self.put(
            "/v1/customers/acme",
            json!({"name": "Acme & <Sons>", "timezone": zone}),
        )
        .await;
    }

    pub(crate) async fn subscribe(&self, more: Value) -> Value {
        let mut body = json!({"customer": "acme", "plan": "pro"});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        self.post("/v1/subscriptions", body).await
    }

    pub(crate) fn at(&self, now: &str) {
        let now = Timestamp::parse(now).unwrap();
        self.clock.set(now);
        if self.tenant == LAB {
            self.clocks.set(LAB, now);
        }
    }

    /// The clock comes to `now`, and bills what is due.
    pub(crate) async fn look(&self, now: &str) {
        self.at(now);
        let now = Timestamp::parse(now).unwrap();
        let undone = self.billing.run_due(self.tenant, now).await.unwrap();
        assert_eq!(undone.failed, 0, "{undone:?}");
    }

    /// Runs billing and waits for its end.
    pub(crate) async fn run(&self, period_end: &str) -> Value {
        let run = self
            .post("/v1/billing/runs", json!({ "period_end": period_end }))
            .await;
        self.follow(run["id"].as_str().unwrap()).await
    }

    pub(crate) async fn follow(&self, id: &str) -> Value {
        for _ in 0..1_000 {
            let run = self.get(&format!("/v1/billing/runs/{id}")).await;
            if run["status"] == "done" || run["status"] == "failed" {
                return run;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the run did not end");
    }

    /// All invoices, oldest period first.
    pub(crate) async fn invoices(&self) -> Vec<Value> {
        let page = self.get("/v1/invoices?limit=1000").await;
        let mut all = page["data"].as_array().unwrap().clone();
        all.sort_by_key(|invoice| {
            (
                invoice["period"]["end"].to_string(),
                invoice["number"].to_string(),
            )
        });
        all
    }

    pub(crate) async fn verify(&self, invoice: &Value) -> Value {
        let id = invoice["id"].as_str().unwrap();
        self.post(&format!("/v1/invoices/{id}/verify"), json!({})).await
    }

    /// Runs `sql` on the database as somebody who means harm would: without the triggers and keys that guard it.
    pub(crate) async fn tamper(&self, sql: &str) {
        let mut connection = self.database().await;
        for trigger in [
            "invoices_stay",
            "invoices_stay_made",
            "invoices_stay_named",
            "invoices_remain",
            "invoice_lines_stay",
            "invoice_lines_remain",
            "invoice_lines_end",
            "invoice_history_stays",
            "invoice_history_remains",
            "invoices_follow_history",
        ] {
            let drop = format!("DROP TRIGGER IF EXISTS {trigger}");
            sqlx::query(sqlx::AssertSqlSafe(drop))
                .execute(&mut connection)
                .await
                .unwrap();
        }
        let changed = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap();
        assert!(changed.rows_affected() > 0, "{sql}");
    }

    /// The columns of a table.
    pub(crate) async fn columns(&self, table: &str) -> Vec<String> {
        let sql = format!("SELECT name FROM pragma_table_info('{table}')");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut self.database().await)
            .await
            .unwrap()
    }

    /// The database behind the engine's back.
    pub(crate) async fn database(&self) -> sqlx::sqlite::SqliteConnection {
        use sqlx::ConnectOptions as _;
        sqlx::sqlite::SqliteConnectOptions::new()
            .filename(self.directory.path().join("control.db"))
            .foreign_keys(false)
            .connect()
            .await
            .unwrap()
    }
}

/// Amounts of the lines of a kind.
pub(crate) fn amounts(invoice: &Value, kind: &str) -> Vec<String> {
    let lines = invoice["lines"].as_array().unwrap().iter();
    let wanted = lines.filter(|line| line["kind"] == kind);
    wanted
        .map(|line| line["amount"].as_str().unwrap().to_owned())
        .collect()
}

/// Minor units of a decimal with two places.
pub(crate) fn minor(text: &Value) -> i64 {
    text.as_str().unwrap().replace('.', "").parse().unwrap()
}
