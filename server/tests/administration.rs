//! Tenants, test clocks, keys and the audit log over their routes, on the control store.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "helpers of tests, and stories told in one piece"
)]

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::BoxFuture;
use turnpike_domain::port::control::{ApiKeys as _, ControlStore as _, DueWork, SecurityEvent, Undone};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{Clock as _, Timestamp};
use turnpike_http::{Caller, RequestId};
use turnpike_server::http::{Administration, AdvanceLocks, administration_router};
use turnpike_stores::fault::FailPoints;
use turnpike_stores::machine::{ManualClock, SeededRandomness, TenantClock};
use turnpike_stores::sql::{FirstKey, SqlPlace, SqlStore};

const DAY_US: i64 = 86_400_000_000;

/// Falls due at each midnight; fails once at `fails_at`.
#[derive(Default)]
struct Midnights {
    clock: Mutex<Option<Arc<TenantClock>>>,
    ran: Mutex<Vec<(Timestamp, Timestamp)>>,
    fails_at: Mutex<Option<Timestamp>>,
    /// Until then something cannot be done.
    stuck_until: Mutex<Option<Timestamp>>,
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

struct App {
    router: Router,
    store: SqlStore,
    clock: Arc<ManualClock>,
    due: Arc<Midnights>,
    admin: String,
}

impl App {
    async fn start() -> Self {
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

    async fn bytes(&self, key: &str, request: (&str, &str, Value), once: Option<&str>) -> (u16, Vec<u8>) {
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
    async fn call(&self, key: &str, request: (&str, &str, Value), expected: (u16, &str)) -> Value {
        let (status, bytes) = self.bytes(key, request, None).await;
        let body: Value = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap()
        };
        assert_eq!((status, body["code"].as_str().unwrap_or("")), expected, "{body}");
        body
    }

    async fn tenant(&self, body: Value) -> String {
        let made = self
            .call(&self.admin, ("POST", "/v1/tenants", body), (201, ""))
            .await;
        made["api_key"].as_str().unwrap().to_owned()
    }
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

const OK: (u16, &str) = (200, "");

#[tokio::test]
async fn tenants_are_administered_by_the_default_one_only() {
    let app = App::start().await;
    let other = app
        .tenant(json!({"key": "b", "timezone": "Europe/Berlin", "calls_per_second": 5}))
        .await;
    let forbidden = (403, "forbidden");
    for request in [
        ("GET", "/v1/tenants", Value::Null),
        ("GET", "/v1/tenants/b", Value::Null),
        ("POST", "/v1/tenants", json!({"key": "c"})),
        ("PUT", "/v1/tenants/b", json!({})),
        ("POST", "/v1/tenants/default/suspend", Value::Null),
        (
            "POST",
            "/v1/keys",
            json!({"scopes": ["read"], "tenant": "default"}),
        ),
        ("GET", "/v1/keys?tenant=default", Value::Null),
    ] {
        app.call(&other, request, forbidden).await;
    }
    let admin = app.admin.as_str();
    app.call(
        admin,
        ("POST", "/v1/tenants", json!({"key": "b"})),
        (409, "already_exists"),
    )
    .await;
    for wrong in [
        json!({"key": "a b"}),
        json!({"key": "c", "timezone": "Mars"}),
        json!({"key": "c", "clock": "2026-01-01T00:00:00Z"}),
        json!({"key": "c", "calls_per_second": 0}),
        json!({"key": "c", "odd": 1}),
    ] {
        app.call(admin, ("POST", "/v1/tenants", wrong), (422, "invalid"))
            .await;
    }
    let list = app
        .call(admin, ("GET", "/v1/tenants?limit=1", Value::Null), OK)
        .await;
    assert_eq!(
        (&list["data"][0]["key"], list["next_cursor"].is_string()),
        (&json!("b"), true)
    );
    assert_eq!(list["data"][0].get("api_key"), None);
    let behind = format!("/v1/tenants?cursor={}", list["next_cursor"].as_str().unwrap());
    let rest = app.call(admin, ("GET", &behind, Value::Null), OK).await;
    assert_eq!(
        (&rest["data"][0]["key"], &rest["next_cursor"]),
        (&json!("default"), &Value::Null)
    );
    app.call(
        admin,
        ("GET", "/v1/tenants/none", Value::Null),
        (404, "not_found"),
    )
    .await;
}

#[tokio::test]
async fn a_tenant_is_limited_and_suspended_but_never_the_default_one() {
    let app = App::start().await;
    app.tenant(json!({"key": "b"})).await;
    let admin = app.admin.as_str();
    let limited = app
        .call(
            admin,
            ("PUT", "/v1/tenants/b", json!({"calls_per_second": 7})),
            OK,
        )
        .await;
    assert_eq!(
        (&limited["calls_per_second"], &limited["name"]),
        (&json!(7), &json!("b"))
    );
    let sent_back = app
        .call(admin, ("PUT", "/v1/tenants/b", limited.clone()), OK)
        .await;
    assert_eq!(sent_back, limited, "an answer can be sent as it is");
    for (field, value) in [
        ("test", json!(true)),
        ("suspended", json!(true)),
        ("clock", json!("2026-01-01T00:00:00Z")),
    ] {
        let mut other = limited.clone();
        other[field] = value;
        let refused = app
            .call(admin, ("PUT", "/v1/tenants/b", other), (422, "invalid"))
            .await;
        assert_eq!(refused["errors"][0]["pointer"], format!("/{field}"));
    }
    let suspended = app
        .call(admin, ("POST", "/v1/tenants/b/suspend", Value::Null), OK)
        .await;
    assert_eq!(
        (&suspended["suspended"], &suspended["calls_per_second"]),
        (&json!(true), &json!(7))
    );
    let resumed = app
        .call(admin, ("POST", "/v1/tenants/b/resume", Value::Null), OK)
        .await;
    assert_eq!(resumed["suspended"], false);
    let refused = (409, "illegal_transition");
    app.call(
        admin,
        ("POST", "/v1/tenants/default/suspend", Value::Null),
        refused,
    )
    .await;
    app.call(
        admin,
        ("POST", "/v1/tenants/none/suspend", Value::Null),
        (404, "not_found"),
    )
    .await;
    app.call(
        admin,
        ("PUT", "/v1/tenants/b", json!({"key": "c"})),
        (422, "invalid"),
    )
    .await;
}

#[tokio::test]
async fn keys_are_shown_once_rotated_and_revoked() {
    let app = App::start().await;
    let admin = app.admin.as_str();
    let body = json!({"name": "ci", "scopes": ["read"], "calls_per_second": 3});
    let (status, first) = app
        .bytes(admin, ("POST", "/v1/keys", body.clone()), Some("once"))
        .await;
    let made: Value = serde_json::from_slice(&first).unwrap();
    let (id, text) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert_eq!((status, text.starts_with(&format!("tp_{id}_"))), (201, true));
    let (status, again) = app.bytes(admin, ("POST", "/v1/keys", body), Some("once")).await;
    let again: Value = serde_json::from_slice(&again).unwrap();
    assert_eq!(
        (status, &again["id"], again.get("key")),
        (201, &made["id"], None),
        "the text is not kept"
    );
    let one = format!("/v1/keys/{id}");
    assert_eq!(app.call(admin, ("GET", &one, Value::Null), OK).await, again);
    app.call(text, ("GET", &one, Value::Null), (403, "forbidden"))
        .await;

    let rotate = format!("{one}/rotate");
    app.call(
        admin,
        ("POST", &rotate, json!({"grace_s": 99_999_999})),
        (422, "invalid"),
    )
    .await;
    let new = app
        .call(admin, ("POST", &rotate, json!({"grace_s": 60})), (201, ""))
        .await;
    assert_eq!(
        (&new["replaces"], &new["scopes"], &new["calls_per_second"]),
        (&json!(id), &json!(["read"]), &json!(3))
    );
    assert!(
        app.store.authenticate(text).is_ok(),
        "the old one goes on for its time of grace"
    );
    assert_eq!(
        app.call(admin, ("GET", &one, Value::Null), OK).await["replaced_by"],
        new["id"]
    );
    let again = app
        .call(
            admin,
            ("POST", &rotate, json!({"grace_s": 60})),
            (409, "illegal_transition"),
        )
        .await;
    let next = new["id"].as_str().unwrap();
    assert!(again["detail"].as_str().unwrap().contains(next), "{again}");
    assert_eq!(
        new["expires"],
        Value::Null,
        "the new one does not end with the old one"
    );
    app.clock.pass(60_000_000);
    assert!(app.store.authenticate(text).is_err());
    assert!(app.store.authenticate(new["key"].as_str().unwrap()).is_ok());
    app.call(admin, ("POST", &rotate, Value::Null), (409, "illegal_transition"))
        .await;

    let new_path = format!("/v1/keys/{}", new["id"].as_str().unwrap());
    app.call(admin, ("DELETE", &new_path, Value::Null), (204, ""))
        .await;
    assert!(app.store.authenticate(new["key"].as_str().unwrap()).is_err());
    app.call(
        admin,
        ("DELETE", &new_path, Value::Null),
        (409, "illegal_transition"),
    )
    .await;
    app.call(
        admin,
        ("DELETE", "/v1/keys/none", Value::Null),
        (404, "not_found"),
    )
    .await;
}

#[tokio::test]
async fn nobody_can_lock_a_tenant_out_or_reach_another_ones_keys() {
    let app = App::start().await;
    let other = app.tenant(json!({"key": "b"})).await;
    let other_id = app.store.authenticate(&other).unwrap().id.clone();
    let own = format!("/v1/keys/{other_id}");
    app.call(&other, ("DELETE", &own, Value::Null), (409, "in_use"))
        .await;
    app.call(&app.admin, ("GET", &own, Value::Null), (404, "not_found"))
        .await;
    app.call(&app.admin, ("DELETE", &own, Value::Null), (404, "not_found"))
        .await;
    let ending = json!({"scopes": ["admin"], "expires": "2027-01-01T00:00:00Z"});
    app.call(&other, ("POST", "/v1/keys", ending), (201, "")).await;
    app.call(&other, ("DELETE", &own, Value::Null), (409, "in_use"))
        .await;
    let second = json!({"scopes": ["admin"], "tenant": "b"});
    app.call(&app.admin, ("POST", "/v1/keys", second), (201, ""))
        .await;
    app.call(&other, ("DELETE", &own, Value::Null), (204, "")).await;
    let list = app
        .call(&app.admin, ("GET", "/v1/keys?tenant=b&limit=2", Value::Null), OK)
        .await;
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    let next = format!(
        "/v1/keys?tenant=b&cursor={}",
        list["next_cursor"].as_str().unwrap()
    );
    let rest = app.call(&app.admin, ("GET", &next, Value::Null), OK).await;
    assert_eq!(
        (rest["data"].as_array().unwrap().len(), &rest["next_cursor"]),
        (1, &Value::Null)
    );
    for wrong in [
        json!({"scopes": []}),
        json!({"scopes": ["all"]}),
        json!({"scopes": ["read"], "expires": "2020-01-01T00:00:00Z"}),
    ] {
        app.call(&app.admin, ("POST", "/v1/keys", wrong), (422, "invalid"))
            .await;
    }
    app.call(
        &app.admin,
        ("GET", "/v1/keys?cursor=none", Value::Null),
        (422, "invalid"),
    )
    .await;
}

#[tokio::test]
async fn a_test_clock_moves_forward_and_does_what_is_due_at_its_instant() {
    let app = App::start().await;
    let lab = app
        .tenant(json!({"key": "lab", "test": true, "clock": "2026-01-30T12:00:00Z"}))
        .await;
    let now = async || app.call(&lab, ("GET", "/v1/test-clock", Value::Null), OK).await["now"].clone();
    assert_eq!(now().await, "2026-01-30T12:00:00Z");
    app.clock.pass(3_600_000_000);
    assert_eq!(now().await, "2026-01-30T12:00:00Z", "it stands still");
    let to = |to: &str| ("POST", "/v1/test-clock/advance", json!({ "to": to }));
    app.call(&lab, to("2026-01-30T11:59:59Z"), (422, "invalid")).await;
    app.call(&lab, to("2056-01-30T11:59:59Z"), (422, "invalid")).await;
    app.call(&lab, to("2026-02-02T06:00:00Z"), OK).await;
    let expected = [
        "2026-01-30T12:00:00Z",
        "2026-01-31T00:00:00Z",
        "2026-02-01T00:00:00Z",
        "2026-02-02T00:00:00Z",
        "2026-02-02T06:00:00Z",
    ];
    let ran: Vec<_> = app.due.ran.lock().drain(..).collect();
    assert_eq!(
        ran,
        expected.map(|text| (at(text), at(text))),
        "the clock shows the instant of what is done"
    );
    assert_eq!(now().await, "2026-02-02T06:00:00Z");

    *app.due.fails_at.lock() = Some(at("2026-02-04T00:00:00Z"));
    app.call(&lab, to("2026-02-06T00:00:00Z"), (503, "unavailable"))
        .await;
    assert_eq!(
        now().await,
        "2026-02-04T00:00:00Z",
        "it stands where the work failed"
    );
    app.call(&lab, to("2026-02-06T00:00:00Z"), OK).await;
    let ran = app
        .due
        .ran
        .lock()
        .iter()
        .map(|(at, _)| at.to_string())
        .collect::<Vec<_>>();
    assert!(
        ran.contains(&"2026-02-04T00:00:00Z".to_owned()),
        "what failed is done after all: {ran:?}"
    );

    *app.due.stuck_until.lock() = Some(at("2026-02-08T00:00:00Z"));
    let stuck = app.call(&lab, to("2026-02-07T12:00:00Z"), OK).await;
    let failure = json!({"subscription": "sub_1", "code": "not_found", "detail": "no such meter"});
    let expected = json!({"now": "2026-02-07T12:00:00Z", "failed": 1, "failures": [failure]});
    assert_eq!(stuck, expected, "the answer says what could not be done");
    let done = app.call(&lab, to("2026-02-08T12:00:00Z"), OK).await;
    assert_eq!((&done["failed"], &done["failures"]), (&json!(0), &json!([])));

    let missing = (404, "not_found");
    app.call(&app.admin, ("GET", "/v1/test-clock", Value::Null), missing)
        .await;
    app.call(&app.admin, to("2027-01-01T00:00:00Z"), missing).await;
}

#[tokio::test]
async fn the_audit_log_tells_changes_and_misuse_and_is_exported_whole() {
    let app = App::start().await;
    let admin = app.admin.as_str();
    let other = app.tenant(json!({"key": "b"})).await;
    let made = app
        .call(
            admin,
            ("POST", "/v1/keys", json!({"scopes": ["read"]})),
            (201, ""),
        )
        .await;
    app.store.note_security(SecurityEvent {
        tenant: TenantId::DEFAULT,
        action: "security.wrong_key",
        actor: "-".to_owned(),
        object: "GET /v1/plans".to_owned(),
        client: Some([192, 0, 2, 1].into()),
    });
    app.store.flush_security().await.unwrap();
    let all = app.call(admin, ("GET", "/v1/audit", Value::Null), OK).await;
    let actions: Vec<_> = all["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        [
            "security.wrong_key",
            "key.create",
            "tenant.create",
            "tenant.create"
        ]
    );
    let text = all.to_string();
    assert!(
        !text.contains(made["key"].as_str().unwrap()) && !text.contains(&other),
        "a secret is in the log"
    );
    let page = app
        .call(admin, ("GET", "/v1/audit?action=tenant&limit=1", Value::Null), OK)
        .await;
    assert_eq!(page["data"][0]["object"], "tenant/b");
    let next = format!(
        "/v1/audit?action=tenant&limit=1&cursor={}",
        page["next_cursor"].as_str().unwrap()
    );
    let page = app.call(admin, ("GET", &next, Value::Null), OK).await;
    assert_eq!(
        (&page["data"][0]["object"], &page["next_cursor"]),
        (&json!("tenant/default"), &Value::Null)
    );
    assert_eq!(
        app.call(&other, ("GET", "/v1/audit", Value::Null), OK).await["data"],
        json!([])
    );
    for wrong in [
        "/v1/audit?cursor=x",
        "/v1/audit?from=soon",
        "/v1/export/audit?format=xml",
    ] {
        app.call(admin, ("GET", wrong, Value::Null), (422, "invalid"))
            .await;
    }
    let (status, csv) = app
        .bytes(admin, ("GET", "/v1/export/audit", Value::Null), None)
        .await;
    let csv = String::from_utf8(csv).unwrap();
    assert_eq!((status, csv.lines().count()), (200, 5));
    assert!(
        csv.starts_with("id,at,actor,request_id,action,object,detail\n"),
        "{csv}"
    );
    let (_, lines) = app
        .bytes(
            admin,
            ("GET", "/v1/export/audit?format=ndjson&action=key", Value::Null),
            None,
        )
        .await;
    let line: Value = serde_json::from_slice(&lines).unwrap();
    assert_eq!(line["object"], format!("key/{}", made["id"].as_str().unwrap()));
}
