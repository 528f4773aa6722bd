//! Every operation of the OpenAPI document × no key, a wrong key, each scope alone, a foreign tenant's key.

mod tenants;

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use turnpike_tests::app::App;

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
    let tenant_key = app.tenant(&json!({"key": "other"})).await;
    let other = app.caller(&tenant_key);
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
    for key in [made["key"].as_str().expect("a key"), &tenant_key] {
        assert!(!text.contains(key) && !others.contains(key));
    }
}
