//! Every operation of the OpenAPI document × no key, a wrong key, each scope alone, a foreign tenant's key.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use turnpike_tests::app::{App, Caller};

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");
const SCOPES: [&str; 5] = ["ingest", "check", "read", "billing", "admin"];
/// In the names and contents of what tenant A has; a foreign tenant must never be told it.
const SECRET: &str = "ONLY-FOR-A";

/// An operation of the document.
#[derive(Debug, Clone)]
struct Operation {
    method: Method,
    path: String,
    scopes: BTreeSet<String>,
    public: bool,
}

async fn operations(app: &App) -> Vec<Operation> {
    let (status, document) = app.caller("none").get("/openapi.json").await;
    assert_eq!(status, 200);
    assert_eq!(
        document["openapi"].as_str().map(|version| &version[..3]),
        Some("3.1")
    );
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let security = operation["security"].as_array().cloned().unwrap_or_default();
            let scopes = security
                .iter()
                .flat_map(|one| one["api_key"].as_array().cloned().unwrap_or_default());
            let scopes = scopes
                .map(|scope| scope.as_str().expect("a scope").to_owned())
                .collect();
            let method = method.to_uppercase().parse().expect("a method");
            all.push(Operation {
                method,
                path: path.clone(),
                scopes,
                public: security.is_empty(),
            });
        }
    }
    assert!(all.len() > 70, "{} operations", all.len());
    all
}

/// A path with its parameters filled in.
fn filled(path: &str, fill: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut rest = path;
    while let Some((before, behind)) = rest.split_once('{') {
        let (name, after) = behind.split_once('}').expect("a closed parameter");
        out.push_str(before);
        out.push_str(&fill(name));
        rest = after;
    }
    out + rest
}

fn is_problem(body: &Value, status: u16, code: &str) -> bool {
    body["code"] == code
        && body["status"] == status
        && body["request_id"].is_string()
        && body["type"] == format!("/docs/errors/{code}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_names_its_scope_or_is_public() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    for operation in operations(&app).await {
        let open = ["/healthz", "/readyz", "/metrics", "/openapi.json"].contains(&operation.path.as_str())
            || operation.path.starts_with("/docs");
        assert_eq!(operation.public, open, "{operation:?}");
        let known = operation
            .scopes
            .iter()
            .all(|scope| SCOPES.contains(&scope.as_str()));
        assert!(known && (open || !operation.scopes.is_empty()), "{operation:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_opens_without_a_valid_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let client = reqwest::Client::new();
    let mut walked = 0;
    for operation in operations(&app)
        .await
        .into_iter()
        .filter(|operation| !operation.public)
    {
        let path = filled(&operation.path, |_| "x".to_owned());
        for authorization in [
            None,
            Some("Bearer wrong-key-0123456789"),
            Some("Basic eDp5"),
            Some("Bearer "),
            Some("Bearer tp_a_b"),
        ] {
            let mut request = client.request(operation.method.clone(), app.url(&path));
            if let Some(value) = authorization {
                request = request.header("authorization", value);
            }
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.status(), 401, "{operation:?} {authorization:?}");
            assert!(answer.headers().contains_key("www-authenticate"));
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
            let id = answer.headers()["x-request-id"]
                .to_str()
                .expect("text")
                .to_owned();
            let body: Value = answer.json().await.expect("JSON");
            assert!(is_problem(&body, 401, "unauthorized"), "{body}");
            assert_eq!(body["request_id"], id);
            walked += 1;
        }
    }
    println!("{walked} calls without a valid key, none let in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_paths_and_spellings_do_not_lead_around_the_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    for target in [
        "/",
        "/v1",
        "/v2/events",
        "//v1/meters",
        "/v1//meters",
        "/healthz/../v1/meters",
        "/docs/../v1/meters",
        "/%76%31/meters",
        "/v1/meters/",
        "/V1/meters",
        "/v1/meters%2f",
        "/v1/meters;x",
        "/docs/errors/../../v1/meters",
        "/healthz%2f..%2fv1/meters",
        "/.//v1/meters",
        "/v1/%2e%2e/v1/meters",
        "http://other.example/v1/meters",
        "/v1/meters?x=/healthz",
        "/metrics/../v1/meters",
    ] {
        let status = raw_status(
            &app,
            &format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
        )
        .await;
        assert_eq!(status, 401, "{target}");
        // The same with tricks in headers.
        for header in [
            "x-original-url: /healthz",
            "x-rewrite-url: /healthz",
            "x-forwarded-for: 127.0.0.1",
            "x-http-method-override: GET",
        ] {
            let text = format!("GET {target} HTTP/1.1\r\nhost: x\r\n{header}\r\nconnection: close\r\n\r\n");
            assert_eq!(raw_status(&app, &text).await, 401, "{target} {header}");
        }
    }
    let key = turnpike_tests::app::ADMIN_KEY;
    let twice = format!(
        "GET /v1/meters HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(raw_status(&app, &twice).await, 401, "two keys are none");
}

/// Sends exactly these bytes; the status of the answer.
async fn raw_status(app: &App, text: &str) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(app.address())
        .await
        .expect("a connection");
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let line = String::from_utf8_lossy(&answer);
    line.split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("{text}: {line}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_opens_its_own_operations_and_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let mut keys = Vec::new();
    for scope in SCOPES {
        let made = app
            .admin()
            .created("/v1/keys", &json!({"name": scope, "scopes": [scope]}))
            .await;
        keys.push((scope, app.caller(made["key"].as_str().expect("a key"))));
    }
    let (mut opened, mut refused) = (0, 0);
    for operation in operations(&app)
        .await
        .into_iter()
        .filter(|operation| !operation.public)
    {
        for (scope, caller) in &keys {
            let path = filled(&operation.path, |_| "nothing-here".to_owned());
            let (status, body) = caller
                .send(operation.method.clone(), &path, None)
                .await
                .expect("an answer");
            if *scope == "admin" || operation.scopes.contains(*scope) {
                assert!(
                    status != 401 && status != 403 && status < 500,
                    "{operation:?} with {scope}: {status} {body}"
                );
                opened += 1;
            } else {
                assert_eq!(status, 403, "{operation:?} with {scope}: {body}");
                assert!(is_problem(&body, 403, "forbidden"), "{body}");
                refused += 1;
            }
        }
    }
    println!("{opened} calls opened, {refused} refused");
    assert!(refused > 150, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_keys_and_suspended_tenants_are_shut_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let admin = app.admin();
    let made = admin
        .created("/v1/keys", &json!({"name": "a", "scopes": ["read"]}))
        .await;
    let caller = app.caller(made["key"].as_str().expect("a key"));
    assert_eq!(caller.get("/v1/meters").await.0, 200);
    let path = format!("/v1/keys/{}", made["id"].as_str().expect("an id"));
    admin.send(Method::DELETE, &path, None).await.expect("an answer");
    assert_eq!(caller.get("/v1/meters").await.0, 401);
    let tenant = admin.created("/v1/tenants", &json!({"key": "other"})).await;
    let other = app.caller(tenant["api_key"].as_str().expect("a key"));
    assert_eq!(other.get("/v1/meters").await.0, 200);
    assert_eq!(
        other.get("/v1/tenants").await.0,
        403,
        "only the first tenant administers tenants"
    );
    admin.created("/v1/tenants/other/suspend", &json!({})).await;
    let (status, body) = other.get("/v1/meters").await;
    assert!(
        status == 403 && is_problem(&body, 403, "tenant_suspended"),
        "{body}"
    );
    assert_eq!(app.caller("none").get("/healthz").await.0, 200);
    // What happened is in the tenants' audit logs, and no key is.
    admin.created("/v1/tenants/other/resume", &json!({})).await;
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    let text = admin.get("/v1/audit?limit=100").await.1.to_string();
    let others = other.get("/v1/audit?limit=100").await.1.to_string();
    assert!(text.contains("security.revoked_key"), "{text}");
    assert!(others.contains("security.suspended"), "{others}");
    for key in [&made["key"], &tenant["api_key"]] {
        let key = key.as_str().expect("a key");
        assert!(!text.contains(key) && !others.contains(key));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_tenant_reaches_the_public_pages_alone_and_loses_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let admin = app.admin();
    let tenant = admin.created("/v1/tenants", &json!({"key": "other"})).await;
    let other = app.caller(tenant["api_key"].as_str().expect("a key"));
    furnish(&other).await;
    let before = view(&other).await;
    admin.created("/v1/tenants/other/suspend", &json!({})).await;
    let mut refused = 0;
    for operation in operations(&app).await {
        let path = filled(&operation.path, |_| "x".to_owned());
        let answer = other.send(operation.method.clone(), &path, None).await;
        let (status, body) = answer.expect("an answer");
        let shut_out = is_problem(&body, 403, "tenant_suspended");
        assert_eq!(shut_out, !operation.public, "{operation:?}: {status} {body}");
        refused += usize::from(shut_out);
    }
    assert!(refused > 70, "{refused}");
    let nowhere = other.get("/v1/nowhere").await.1;
    assert!(is_problem(&nowhere, 403, "tenant_suspended"), "{nowhere}");
    assert_eq!(app.caller("tp_a_b").get("/v1/meters").await.0, 401);
    assert_eq!(admin.get("/v1/meters").await.0, 200, "the others go on");
    admin.created("/v1/tenants/other/resume", &json!({})).await;
    assert_eq!(view(&other).await, before);
}

/// What tenant A has: one of each.
async fn furnish(a: &Caller) -> Vec<(&'static str, String)> {
    a.put(
        "/v1/meters/m",
        &json!({"event_type": SECRET, "aggregation": "sum", "value": "$.n"}),
    )
    .await;
    a.put(
        "/v1/features/f",
        &json!({"name": SECRET, "kind": "metered", "meter": "m"}),
    )
    .await;
    let limits = json!([{"limit": "1000", "period": "ever"}]);
    a.put(
        "/v1/plans/p",
        &json!({"name": SECRET, "currency": "USD", "entitlements": [{"feature": "f", "limits": limits}],
        "prices": [{"key": "base", "model": "flat", "amount": "1.00", "timing": "arrears"}]}),
    )
    .await;
    a.put("/v1/add-ons/o", &json!({"name": SECRET, "currency": "USD"}))
        .await;
    a.put("/v1/customers/c", &json!({"name": SECRET, "subjects": ["s"]}))
        .await;
    let subscription = a
        .created(
            "/v1/subscriptions",
            &json!({"customer": "c", "plan": "p", "start": "2026-01-01T00:00:00Z"}),
        )
        .await;
    let grant = a
        .created("/v1/customers/c/grants", &json!({"feature": "f", "amount": "5"}))
        .await;
    a.created(
        "/v1/customers/c/overrides",
        &json!({"feature": "f", "limits": limits}),
    )
    .await;
    a.created(
        "/v1/events",
        &json!({"id": "e", "source": "src", "type": SECRET, "subject": "s", "data": {"n": "7"}}),
    )
    .await;
    let reserved = json!({"id": "r", "customer": "c", "feature": "f", "amount": "2", "ttl_s": 600});
    a.created("/v1/quota/reservations", &reserved).await;
    let key = a
        .created("/v1/keys", &json!({"name": SECRET, "scopes": ["read"]}))
        .await;
    let text = |value: &Value| {
        value
            .as_str()
            .unwrap_or_else(|| panic!("an id: {value}"))
            .to_owned()
    };
    vec![
        ("/v1/meters/{key}", "m".to_owned()),
        ("/v1/features/{key}", "f".to_owned()),
        ("/v1/plans/{key}", "p".to_owned()),
        ("/v1/add-ons/{key}", "o".to_owned()),
        ("/v1/customers/{key}", "c".to_owned()),
        ("/v1/subscriptions/{id}", text(&subscription["id"])),
        ("grant", text(&grant["id"])),
        ("/v1/keys/{id}", text(&key["id"])),
        ("/v1/quota/reservations/{id}", "r".to_owned()),
    ]
}

/// What a foreign tenant would send to reach A's things.
fn parameter(path: &str, name: &str, ids: &[(&'static str, String)]) -> String {
    let of = |kind: &str| {
        ids.iter()
            .find(|(one, _)| *one == kind)
            .map(|(_, id)| id.clone())
            .expect("an id")
    };
    match name {
        "feature" => "f".to_owned(),
        "source" => "src".to_owned(),
        "slug" => "m".to_owned(),
        "id" if path.contains("/grants/") => of("grant"),
        "id" if path.starts_with("/v1/events/") => "e".to_owned(),
        "key" if path.starts_with("/v1/tenants") => "default".to_owned(),
        _ => ids
            .iter()
            .find(|(prefix, _)| path.starts_with(prefix))
            .map_or_else(|| "x".to_owned(), |(_, id)| id.clone()),
    }
}

fn body(path: &str) -> Value {
    match path {
        "/v1/quota/check" => json!({"customer": "c", "feature": "f", "amount": "1"}),
        "/v1/quota/consume" => json!({"id": "b1", "customer": "c", "feature": "f", "amount": "1"}),
        "/v1/quota/reservations" => {
            json!({"id": "b2", "customer": "c", "feature": "f", "amount": "1", "ttl_s": 60})
        }
        "/v1/quota/reservations/{id}/commit" => json!({"amount": "1"}),
        "/v1/quota/batch" => json!({"checks": [{"customer": "c", "feature": "f", "amount": "1"}]}),
        "/v1/events/{source}/{id}/amend" => json!({"data": {"n": "1000"}}),
        "/v1/subscriptions" => json!({"customer": "c", "plan": "p"}),
        "/v1/subscriptions/{id}/change" => json!({"plan": "p"}),
        "/v1/customers/{key}/grants" | "/v1/customers/{key}/grants/{id}" => {
            json!({"feature": "f", "amount": "1000"})
        }
        "/v1/customers/{key}/overrides" => json!({"feature": "f"}),
        "/v1/tenants/{key}" => json!({"name": "taken"}),
        "/v1/keys" => json!({"name": "b", "scopes": ["admin"], "tenant": "default"}),
        "/v1/meters/{key}" => json!({"event_type": "b", "aggregation": "count"}),
        "/v1/features/{key}" => json!({"kind": "boolean"}),
        "/v1/plans/{key}" | "/v1/add-ons/{key}" => json!({"currency": "EUR"}),
        "/v1/billing/runs" => json!({"period_end": "2026-06-01T00:00:00Z"}),
        _ => json!({}),
    }
}

/// Everything that A sees of its own, for comparing before and after.
async fn view(a: &Caller) -> Vec<(String, Value)> {
    let range = "from=2020-01-01T00:00:00Z&to=2030-01-01T00:00:00Z";
    let mut all = Vec::new();
    for path in [
        "/v1/catalog",
        "/v1/customers",
        "/v1/subscriptions",
        "/v1/customers/c/grants",
        "/v1/customers/c/overrides",
        "/v1/customers/c/entitlements",
        "/v1/invoices",
        "/v1/keys",
        &format!("/v1/meters/m/usage?{range}"),
    ] {
        let (status, mut body) = a.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        forget_times(&mut body);
        all.push((path.to_owned(), body));
    }
    all
}

/// Takes out what changes by itself: instants of the answer.
fn forget_times(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.remove("as_of");
            members.values_mut().for_each(forget_times);
        }
        Value::Array(all) => all.iter_mut().for_each(forget_times),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_tenant_reaches_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let a = app.admin();
    let ids = furnish(&a).await;
    let tenant = a.created("/v1/tenants", &json!({"key": "b"})).await;
    let b = app.caller(tenant["api_key"].as_str().expect("a key"));
    let before = (view(&a).await, a.get("/v1/tenants/default").await);
    let mut all: Vec<_> = operations(&app)
        .await
        .into_iter()
        .filter(|operation| !operation.public)
        .collect();
    // What reads and changes comes before what makes things of B's own under the same names.
    all.sort_by_key(|operation| (operation.method == Method::PUT, operation.path.clone()));
    for operation in &all {
        let path = filled(&operation.path, |name| parameter(&operation.path, name, &ids));
        let sent = (operation.method != Method::GET).then(|| body(&operation.path));
        let (status, answer) = b
            .send(operation.method.clone(), &path, sent.as_ref())
            .await
            .expect("an answer");
        assert!(status < 500, "{operation:?}: {status} {answer}");
        assert!(
            !answer.to_string().contains(SECRET),
            "{operation:?} tells B of A: {answer}"
        );
        let one_of_a = operation.path.contains('{') && operation.method != Method::PUT;
        assert!(
            !one_of_a || (400..500).contains(&status),
            "{operation:?} lets B reach A's: {status} {answer}"
        );
    }
    let after = (view(&a).await, a.get("/v1/tenants/default").await);
    assert_eq!(after, before, "B changed something of A");
    println!("{} operations with a foreign key, nothing reached", all.len());
}
