//! Every error code, provoked over HTTP.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use turnpike_domain::problem::Code;
use turnpike_tests::app::{ADMIN_KEY, App, AppOptions, Caller};

use crate::{BINARY, problem_of, raw};

/// Codes that need a fault, a race or a past to be provoked: the file of the test that does, and what it looks for.
const ELSEWHERE: [(Code, &str, &str); 9] = [
    (
        Code::IdempotencyInProgress,
        "server/src/http/repeat.rs",
        "refused.code, Code::IdempotencyInProgress",
    ),
    (Code::TooOld, "tests/tests/crash.rs", "too_old"),
    (Code::Overloaded, "ingest/tests/gateway/bounds.rs", "overloaded"),
    (Code::StorageFull, "tests/tests/storage/full.rs", "storage_full"),
    (
        Code::StoragePoisoned,
        "aggregator/tests/intake/decisions.rs",
        "Code::StoragePoisoned",
    ),
    (
        Code::Unavailable,
        "server/tests/administration/tenants.rs",
        "unavailable",
    ),
    (
        Code::ShuttingDown,
        "aggregator/tests/stress.rs",
        "Code::ShuttingDown",
    ),
    (
        Code::Damaged,
        "billing-sync/tests/billing/unreadable.rs",
        "\"damaged\"",
    ),
    (Code::Internal, "server/src/http/finish.rs", "\"internal\""),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_error_code_is_documented_and_reached() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = AppOptions::small(BINARY, directory.path());
    options.set("TURNPIKE_HTTP_BODY_IDLE_TIMEOUT_S", "1");
    options.set("TURNPIKE_HTTP_HEADER_BYTES_MAX", "131072");
    let app = App::start_with(options).await;
    let mut reached = heads(&app).await;
    reached.extend(events(&app.admin()).await);
    reached.extend(control(&app).await);
    reached.extend(quotas(&app.admin()).await);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    for (code, file, looked_for) in ELSEWHERE {
        let text = std::fs::read_to_string(root.join(file)).expect("a test");
        assert!(
            text.contains(looked_for),
            "{file} no longer looks for {looked_for}"
        );
        assert!(reached.insert(code.slug().to_owned()), "{code:?} is reached here");
    }
    let all: BTreeSet<String> = Code::ALL.iter().map(|code| code.slug().to_owned()).collect();
    assert_eq!(reached, all);
    let (_, page) = app.caller("none").get("/docs/errors").await;
    for slug in all {
        assert!(
            page.as_str()
                .expect("HTML")
                .contains(&format!("/docs/errors/{slug}\"")),
            "{slug}"
        );
        assert_eq!(
            app.caller("none").get(&format!("/docs/errors/{slug}")).await.0,
            200,
            "{slug}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_beyond_its_bound_is_told_its_request_id() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = AppOptions::small(BINARY, directory.path());
    options.set("TURNPIKE_HTTP_CONNECTIONS_PER_ADDRESS_MAX", "2");
    let app = App::start_with(options).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(TcpStream::connect(app.address()).await.expect("a connection"));
    }
    let answer = raw(&app, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let (head, problem) = problem_of(&answer, 429);
    assert_eq!(code_of((429, problem.clone())), "rate_limited");
    let id = problem["request_id"].as_str().expect("an id");
    assert!(head.contains(&format!("x-request-id: {id}")), "{head}");
    assert!(head.contains("retry-after: 1"), "{head}");
}

/// The code of an answer, whose status must be the code's own.
fn code_of((status, body): (u16, Value)) -> String {
    let slug = body["code"]
        .as_str()
        .unwrap_or_else(|| panic!("no code: {status} {body}"));
    let code = Code::ALL
        .iter()
        .find(|code| code.slug() == slug)
        .expect("a code of the table");
    assert_eq!(
        (status, body["status"].as_u64()),
        (code.status(), Some(code.status().into())),
        "{body}"
    );
    // A code says whether waiting can help at all; a strict refusal also knows whether its limits ever begin anew.
    let told = body["retryable"].as_bool().expect("a boolean");
    assert!(
        told == code.retryable() || !told && *code == Code::QuotaRefused,
        "{body}"
    );
    slug.to_owned()
}

/// The code of a stream whose sender stops in the middle.
async fn cut_short(app: &App) -> String {
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\ncontent-type: application/x-ndjson\r\n\
         content-length: 99\r\n\r\n{{"
    );
    let mut stream = TcpStream::connect(app.address()).await.expect("a connection");
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.shutdown().await.expect("half closed");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, problem) = problem_of(&answer, 400);
    assert!(head.contains("\r\nconnection: close"), "{head}");
    let told = problem["detail"].as_str().expect("words");
    assert!(told.contains("Send the whole stream again"), "{told}");
    code_of((400, problem))
}

/// Codes of what is wrong with the head or the sending.
async fn heads(app: &App) -> BTreeSet<String> {
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(150));
    let slow = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{{"
    );
    let mut codes = BTreeSet::new();
    for bytes in ["GET\r\n\r\n", &long, &many, &slow] {
        let answer = raw(app, bytes.as_bytes()).await;
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status");
        codes.insert(code_of((status, problem_of(&answer, status).1)));
    }
    codes.insert(cut_short(app).await);
    let client = reqwest::Client::new();
    let plain = client
        .post(app.url("/v1/events"))
        .bearer_auth(ADMIN_KEY)
        .header("content-type", "text/plain");
    let plain = plain.body("x").send().await.expect("an answer");
    codes.insert(code_of((
        plain.status().as_u16(),
        plain.json().await.expect("a problem"),
    )));
    codes.insert(code_of(app.caller("none").get("/v1/meters").await));
    codes.insert(code_of(app.admin().get("/v1/nowhere").await));
    let patch = app.admin().send(Method::PATCH, "/v1/meters", None).await;
    codes.insert(code_of(patch.expect("an answer")));
    codes
}

/// Codes of events.
async fn events(admin: &Caller) -> BTreeSet<String> {
    let good = json!({"id": "e", "source": "s", "type": "t", "subject": "x", "data": {"n": 1}});
    let with = |member: &str, value: Value| {
        let mut event = good.clone();
        event[member] = value;
        event
    };
    let meter = json!({"event_type": "t", "aggregation": "sum", "value": "$.n"});
    admin.put("/v1/meters/read", &meter).await;
    admin.created("/v1/events", &good).await;
    let mut unreadable = with("id", json!("unreadable"));
    unreadable["data"]["n"] = json!("no number");
    admin.created("/v1/events", &unreadable).await;
    let deep = serde_json::from_str(&format!("{}1{}", "[".repeat(80), "]".repeat(80))).expect("JSON");
    let mut codes = BTreeSet::new();
    for event in [
        with("data", json!({"n": 2})),
        with("id", json!("")),
        with("source", json!("")),
        with("type", json!("")),
        with("subject", json!("")),
        with("time", json!("yesterday")),
        with("time", json!("2100-01-01T00:00:00Z")),
        with("data", json!([1])),
        with("data", json!({"deep": Value::clone(&deep)})),
        with("specversion", json!("0.3")),
        with("data", json!({"large": "x".repeat(2 * 1024 * 1024)})),
    ] {
        codes.insert(code_of(admin.post("/v1/events", &event).await));
    }
    admin.created("/v1/events/s/e/void", &json!({})).await;
    let amended = admin
        .post("/v1/events/s/e/amend", &json!({"data": {"n": 3}}))
        .await;
    codes.insert(code_of(amended));
    let (_, letters) = admin.get("/v1/events/dead-letters").await;
    let letters = letters["data"].as_array().expect("letters");
    codes.extend(
        letters
            .iter()
            .filter_map(|letter| letter["code"].as_str().map(str::to_owned)),
    );
    codes
}

/// Codes of catalog, customers, tenants and keys.
async fn control(app: &App) -> BTreeSet<String> {
    let admin = app.admin();
    let mut codes = BTreeSet::new();
    let mut note = |answer: Option<(u16, Value)>| codes.insert(code_of(answer.expect("an answer")));
    let put = async |path: &str, body: Value| admin.send(Method::PUT, path, Some(&body)).await;
    let post = async |path: &str, body: Value| admin.send(Method::POST, path, Some(&body)).await;
    note(
        put(
            "/v1/meters/read",
            json!({"event_type": "t", "aggregation": "count"}),
        )
        .await,
    );
    note(put("/v1/meters/other", json!({"event_type": 1})).await);
    admin
        .put("/v1/features/f", &json!({"kind": "metered", "meter": "read"}))
        .await;
    note(admin.send(Method::DELETE, "/v1/meters/read", None).await);
    note(post("/v1/catalog/apply", json!({"expected_version": 999_999})).await);
    note(post("/v1/fees/preview", json!({"gross": {"amount": "0.01", "currency": "USD"}, "fee": {"rate_percent": "0", "fixed": "0.30"}})).await);
    let price = json!({"currency": "USD", "price": {"model": "per_unit", "unit_amount": "99999999999999"}, "quantity": "99999999999999999999999999"});
    note(post("/v1/price/preview", price).await);
    let tenant = admin
        .created(
            "/v1/tenants",
            &json!({"key": "b", "name": "b", "calls_per_second": 1}),
        )
        .await;
    note(post("/v1/tenants", json!({"key": "b", "name": "b"})).await);
    let theirs = app.caller(tenant["api_key"].as_str().expect("a key"));
    for _ in 0..3 {
        let (status, body) = theirs.get("/v1/meters").await;
        if status != 200 {
            note(Some((status, body)));
        }
    }
    admin.created("/v1/tenants/b/suspend", &json!({})).await;
    note(Some(theirs.get("/v1/meters").await));
    let reader = admin
        .created("/v1/keys", &json!({"name": "r", "scopes": ["read"]}))
        .await;
    let reader = app.caller(reader["key"].as_str().expect("a key"));
    note(Some(reader.post("/v1/events", &json!({})).await));
    let client = reqwest::Client::new();
    for name in ["one", "two"] {
        let request = client.put(app.url("/v1/customers/c")).bearer_auth(ADMIN_KEY);
        let answer = request
            .header("idempotency-key", "once")
            .json(&json!({"name": name}))
            .send();
        let answer = answer.await.expect("an answer");
        if name == "two" {
            note(Some((
                answer.status().as_u16(),
                answer.json().await.expect("a problem"),
            )));
        }
    }
    let broken = client.post(app.url("/v1/catalog/diff")).bearer_auth(ADMIN_KEY);
    let broken = broken
        .header("content-type", "application/json")
        .body("{")
        .send()
        .await
        .expect("an answer");
    note(Some((
        broken.status().as_u16(),
        broken.json().await.expect("a problem"),
    )));
    codes
}

/// Codes of quotas and subscriptions.
async fn quotas(admin: &Caller) -> BTreeSet<String> {
    let limits = json!([{"limit": "10", "period": "ever"}]);
    let plan = json!({"currency": "USD", "entitlements": [{"feature": "f", "limits": limits}]});
    admin.put("/v1/plans/p", &plan).await;
    let subscription = json!({"customer": "c", "plan": "p", "start": "2026-01-01T00:00:00Z"});
    let subscription = admin.created("/v1/subscriptions", &subscription).await;
    let resume = format!(
        "/v1/subscriptions/{}/resume",
        subscription["id"].as_str().expect("an id")
    );
    let mut codes = BTreeSet::from([code_of(admin.post(&resume, &json!({})).await)]);
    let call = |id: &str| json!({"id": id, "customer": "c", "feature": "f", "amount": "1"});
    admin.created("/v1/quota/reservations", &call("r")).await;
    admin
        .created("/v1/quota/reservations/r/release", &json!({}))
        .await;
    codes.insert(code_of(
        admin.post("/v1/quota/reservations/r/commit", &json!({})).await,
    ));
    let much = json!({"customer": "c", "feature": "f", "amount": "11"});
    codes.insert(code_of(admin.post("/v1/quota/check?status=strict", &much).await));
    codes
}
