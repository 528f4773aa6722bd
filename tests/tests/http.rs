//! The listener and what all routes share, against rude clients.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use turnpike_tests::app::{ADMIN_KEY, App, AppOptions};

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");

async fn app(directory: &tempfile::TempDir, environment: &[(&str, &str)]) -> App {
    let options = AppOptions {
        binary: BINARY.into(),
        directory: directory.path().to_owned(),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    };
    App::start_with(options).await
}

/// Sends bytes and reads what comes until the server closes the connection, or for `patience`.
async fn raw(app: &App, bytes: &[u8], patience: Duration) -> Option<String> {
    let mut stream = TcpStream::connect(app.address()).await.expect("a connection");
    stream.write_all(bytes).await.expect("sent");
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(patience, stream.read_to_end(&mut answer)).await;
    closed
        .is_ok()
        .then(|| String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_and_bodies_are_given_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let limits = [
        ("TURNPIKE_HTTP_HEADER_READ_TIMEOUT_S", "1"),
        ("TURNPIKE_HTTP_BODY_IDLE_TIMEOUT_S", "1"),
    ];
    let app = app(&directory, &limits).await;
    let patience = Duration::from_secs(5);
    let head = raw(&app, b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ", patience).await;
    assert!(head.is_some(), "a head that does not end keeps its connection");
    let silent = raw(&app, b"", patience).await;
    assert!(silent.is_some(), "a silent client keeps its connection");
    for path in ["/v1/events", "/v1/catalog/apply"] {
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\ncontent-type: application/json\r\n\
             content-length: 1000\r\n\r\n{{\"id\""
        );
        let answer = raw(&app, text.as_bytes(), patience)
            .await
            .expect("the connection ends");
        let status: u16 = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status");
        assert!((400..500).contains(&status), "{path}: {answer}");
    }
    assert_eq!(app.admin().get("/healthz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_http_does_no_harm() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let big = format!(
        "GET /healthz HTTP/1.1\r\nhost: x\r\nx-big: {}\r\n\r\n",
        "y".repeat(100_000)
    );
    let many = format!(
        "GET /healthz HTTP/1.1\r\nhost: x\r\n{}\r\n",
        "a: b\r\n".repeat(500)
    );
    let smuggled = "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/meters HTTP/1.1\r\n\r\n";
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        big.as_bytes(),
        many.as_bytes(),
        smuggled.as_bytes(),
    ] {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let answer = raw(&app, bytes, Duration::from_secs(2)).await.unwrap_or_default();
        let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).map(|one| &one[..3]).collect();
        assert!(
            statuses.iter().all(|status| status.starts_with('4')),
            "{shown:?}: {answer}"
        );
    }
    assert_eq!(app.admin().get("/healthz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_ids_come_back_and_failures_are_problems() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let client = reqwest::Client::new();
    let call = |method: Method, path: &str| client.request(method, app.url(path)).bearer_auth(ADMIN_KEY);
    let answer = call(Method::GET, "/v1/nowhere")
        .header("x-request-id", "mine-1")
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-request-id"]),
        (404, &"mine-1".parse().expect("a value"))
    );
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!(
        (&body["code"], &body["request_id"], &body["retryable"]),
        (&json!("not_found"), &json!("mine-1"), &json!(false))
    );
    // An id that could break a log line is replaced.
    let answer = call(Method::GET, "/v1/meters")
        .header("x-request-id", "a b\"c")
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.headers()["x-request-id"].to_str().expect("text").len(), 36);
    let answer = call(Method::PATCH, "/v1/meters").send().await.expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["allow"]),
        (405, &"GET,HEAD".parse().expect("a value"))
    );
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!(body["code"], "method_not_allowed");
    let head = call(Method::HEAD, "/v1/meters").send().await.expect("an answer");
    assert_eq!(head.status(), 200);
    let options = call(Method::OPTIONS, "/v1/meters")
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        (options.status().as_u16(), &options.headers()["allow"]),
        (204, &"GET,HEAD".parse().expect("a value"))
    );
    assert!(
        !options.headers().contains_key("access-control-allow-origin"),
        "CORS is off unless configured"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_beyond_the_limits_are_told_to_wait() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[("TURNPIKE_LIMITS_FAILED_AUTH_PER_MINUTE", "5")]).await;
    let asked = json!({"name": "slow", "scopes": ["read"], "calls_per_second": 3});
    let made = app.admin().created("/v1/keys", &asked).await;
    let client = reqwest::Client::new();
    let key = made["key"].as_str().expect("a key");
    let (mut let_in, mut refused) = (0, 0);
    for _ in 0..12 {
        let answer = client
            .get(app.url("/v1/meters"))
            .bearer_auth(key)
            .send()
            .await
            .expect("an answer");
        let header = |name: &str| answer.headers()[name].to_str().expect("text").to_owned();
        assert_eq!(header("ratelimit-policy"), "\"key\";q=3;w=1");
        match answer.status().as_u16() {
            200 => let_in += 1,
            429 => {
                assert_eq!(
                    header("ratelimit"),
                    format!("\"key\";r=0;t={}", header("retry-after"))
                );
                refused += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert!(
        refused > 0 && (3..12).contains(&let_in),
        "{let_in} let in, {refused} refused"
    );
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(app.caller("no-such-key-0123456789").get("/v1/meters").await.0);
    }
    assert!(statuses[0] == 401 && statuses[9] == 429, "{statuses:?}");
    assert_eq!(
        app.admin().get("/v1/meters").await.0,
        200,
        "who has a key is not concerned"
    );
}

/// A connection that is kept open, and the head and body of its first answer.
async fn kept(app: &App) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(app.address()).await.expect("a connection");
    let sent = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(sent).await.expect("sent");
    let mut answer = vec![0; 4_096];
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut answer)).await;
    let read = read.expect("an answer in time").expect("an answer");
    (stream, String::from_utf8_lossy(&answer[..read]).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_has_a_bound_on_its_connections() {
    let directory = tempfile::tempdir().expect("a directory");
    // The app itself may keep one open.
    let limit = [("TURNPIKE_HTTP_CONNECTIONS_PER_ADDRESS_MAX", "3")];
    let app = app(&directory, &limit).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(kept(&app).await);
    }
    assert!(open[0].1.starts_with("HTTP/1.1 200"), "{}", open[0].1);
    let refused = &open[4].1;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    for said in [
        "retry-after: 1",
        "connection: close",
        "x-request-id: ",
        "\"code\":\"rate_limited\"",
        "\"request_id\":\"",
    ] {
        assert!(refused.contains(said), "{said} is missing: {refused}");
    }
    drop(open);
    let again = async {
        while !kept(&app).await.1.starts_with("HTTP/1.1 200") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let again = tokio::time::timeout(Duration::from_secs(10), again).await;
    again.expect("who has left is counted no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_behind_a_trusted_proxy_are_told_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = [
        ("TURNPIKE_HTTP_TRUSTED_PROXIES", "127.0.0.0/8"),
        ("TURNPIKE_HTTP_CONNECTIONS_PER_ADDRESS_MAX", "1"),
        ("TURNPIKE_LIMITS_FAILED_AUTH_PER_MINUTE", "2"),
    ];
    let app = app(&directory, &settings).await;
    let open = (kept(&app).await, kept(&app).await);
    assert!(
        open.1.1.starts_with("HTTP/1.1 200"),
        "a proxy has no bound: {}",
        open.1.1
    );
    let client = reqwest::Client::new();
    let mut statuses = Vec::new();
    for from in ["198.51.100.1", "198.51.100.1", "198.51.100.1", "198.51.100.2"] {
        let call = client
            .get(app.url("/v1/meters"))
            .bearer_auth("no-such-key-0123456789");
        let answer = call
            .header("x-forwarded-for", from)
            .send()
            .await
            .expect("an answer");
        statuses.push(answer.status().as_u16());
    }
    assert_eq!(statuses, [401, 401, 429, 401]);
    let noted = async {
        loop {
            let (_, audit) = app.admin().get("/v1/audit").await;
            let text = audit.to_string();
            if text.contains("\"client\":\"198.51.100.1\"") && text.contains("\"client\":\"198.51.100.2\"") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let noted = tokio::time::timeout(Duration::from_secs(20), noted).await;
    noted.expect("the audit log names both clients");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsers_are_let_in_where_configured() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(
        &directory,
        &[("TURNPIKE_HTTP_CORS_ORIGINS", "https://app.example.com")],
    )
    .await;
    let client = reqwest::Client::new();
    for (origin, let_in) in [
        ("https://app.example.com", true),
        ("https://evil.example.com", false),
    ] {
        let preflight = client
            .request(Method::OPTIONS, app.url("/v1/meters"))
            .header("origin", origin)
            .header("access-control-request-method", "GET")
            .send()
            .await
            .expect("an answer");
        let allowed = preflight
            .headers()
            .get("access-control-allow-origin")
            .is_some_and(|value| value == origin);
        assert_eq!(allowed, let_in, "{origin}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_there_and_can_have_their_own_listener() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let event = json!({"id": "1", "source": "s", "type": "t", "subject": "c"});
    app.admin().created("/v1/events", &event).await;
    let (status, page) = app.caller("none").get("/metrics").await;
    let page = page.as_str().expect("text").to_owned();
    assert_eq!(status, 200);
    for name in [
        "turnpike_http_requests_total{method=\"POST\",route=\"/v1/events\",status=\"200\"} 1",
        "turnpike_http_request_duration_seconds_bucket",
        "turnpike_log_bytes",
        "turnpike_log_fsync_seconds",
        "turnpike_views_lag_bytes",
        "turnpike_ingest_events_total{outcome=\"accepted\"} 1",
        "# HELP turnpike_log_bytes Bytes of all segments of the log.",
        "turnpike_log_group_bytes_bucket",
        "turnpike_invariant_violations_total{invariant=\"I6\"} 0",
    ] {
        assert!(page.contains(name), "{name} in {page}");
    }
    drop(app);
    let other = tempfile::tempdir().expect("a directory");
    let app = self::app(&other, &[("TURNPIKE_HTTP_METRICS_LISTEN", "127.0.0.1:0")]).await;
    assert_eq!(
        app.admin().get("/metrics").await.0,
        404,
        "it is on its own listener alone"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_are_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let nobody = app.caller("none");
    let (_, page) = nobody.get("/docs").await;
    let page = page.as_str().expect("HTML").to_owned();
    let (_, document) = nobody.get("/openapi.json").await;
    for path in document["paths"].as_object().expect("paths").keys() {
        assert!(
            page.contains(&format!("<code>{path}</code>")),
            "{path} is not on the page"
        );
    }
    for outside in ["http://", "src=", "<script", "@import", "<link"] {
        assert!(!page.contains(outside), "the page loads something: {outside}");
    }
    // Every reference of the document leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().expect("an end");
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id.to_owned()), "{id} stands for two operations");
            for (status, response) in operation["responses"].as_object().expect("answers") {
                let words = response["description"].as_str().unwrap_or("");
                assert!(!words.is_empty(), "{method} {path} {status} has no words");
                let failed = status.starts_with(['4', '5']) && path != "/readyz";
                let kinds: Vec<&String> = response["content"]
                    .as_object()
                    .into_iter()
                    .flat_map(|all| all.keys())
                    .collect();
                assert!(
                    !failed || kinds == ["application/problem+json"],
                    "{method} {path} {status}: {kinds:?}"
                );
            }
        }
    }
    assert_eq!(nobody.get("/docs/errors/invalid_json").await.0, 200);
    assert_eq!(nobody.get("/docs/errors/no_such_code").await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_what_is_under_way_finish() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = app(&directory, &[]).await;
    // A body whose second half comes after the signal.
    let mut stream = TcpStream::connect(app.address()).await.expect("a connection");
    let event = br#"{"id":"late","source":"s","type":"t","subject":"c"}"#;
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        event.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(&event[..20]).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ended = tokio::task::spawn_blocking(move || {
        let ended = app.terminate();
        (app, ended)
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    stream.write_all(&event[20..]).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"accepted\":1"),
        "{answer}"
    );
    let (mut app, (code, took)) = ended.await.expect("an end");
    assert!(
        code == Some(0) && took < Duration::from_secs(10),
        "{code:?} after {took:?}"
    );
    app.restart().await;
    let again: Value = serde_json::from_slice(event).expect("JSON");
    let answer = app.admin().created("/v1/events", &again).await;
    assert_eq!(answer["duplicates"], 1, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_of_an_event_or_decision_answers_as_first() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let client = reqwest::Client::new();
    let send = |path: &'static str, key: &'static str, body: Value| {
        let request = client.post(app.url(path)).bearer_auth(ADMIN_KEY);
        let request = request.header("idempotency-key", key).json(&body);
        async move {
            let answer = request.send().await.expect("an answer");
            let status = answer.status().as_u16();
            let again = answer.headers().contains_key("idempotent-replayed");
            (status, again, answer.json::<Value>().await.expect("JSON"))
        }
    };
    let event = |id: &str| json!({"id": id, "source": "s", "type": "t", "subject": "x"});
    let first = send("/v1/events", "k", event("1")).await;
    assert_eq!((first.0, first.1, &first.2["accepted"]), (200, false, &json!(1)));
    let again = send("/v1/events", "k", event("1")).await;
    assert_eq!((again.0, again.1, again.2), (200, true, first.2));
    let other = send("/v1/events", "k", event("2")).await;
    assert_eq!((other.0, &other.2["code"]), (409, &json!("idempotency_conflict")));
    let elsewhere = send("/v1/quota/consume", "k", json!({})).await;
    assert_eq!(
        (elsewhere.0, &elsewhere.2["code"]),
        (409, &json!("idempotency_conflict"))
    );
    // A refused call keeps nothing, so that the key is free for the right one.
    assert_eq!(send("/v1/events", "free", json!({"id": "3"})).await.0, 422);
    let right = send("/v1/events", "free", event("3")).await;
    assert_eq!((right.0, &right.2["accepted"]), (200, &json!(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_cannot_be_read_are_problems_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[("TURNPIKE_HTTP_HEADER_BYTES_MAX", "8192")]).await;
    let head = |bytes: usize| {
        let before = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-big: ";
        format!("{before}{}\r\n\r\n", "y".repeat(bytes - before.len() - 4))
    };
    for (bytes, status, code) in [
        ("GET\r\n\r\n".to_owned(), 400, "invalid_request"),
        (
            "GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(),
            400,
            "invalid_request",
        ),
        (
            "GET /healthz HTTP/1.1\r\nhost: x\r\nhost: y\r\nconnection: close\r\n\r\n".to_owned(),
            400,
            "invalid_request",
        ),
        (
            "GET /healthz HTTP/1.1\r\nhost: a b\r\nconnection: close\r\n\r\n".to_owned(),
            400,
            "invalid_request",
        ),
        (
            "GET /healthz HTTP/1.1\r\nhost: x\r\nx: a\r\n folded\r\n\r\n".to_owned(),
            400,
            "invalid_request",
        ),
        (
            "GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(),
            400,
            "invalid_request",
        ),
        (
            format!(
                "GET /healthz HTTP/1.1\r\nhost: x\r\n{}\r\n",
                "a: b\r\n".repeat(150)
            ),
            431,
            "head_too_large",
        ),
        (head(8_193), 431, "head_too_large"),
        (head(60_000), 431, "head_too_large"),
    ] {
        let shown = &bytes[..bytes.len().min(70)];
        let answer = raw(&app, bytes.as_bytes(), Duration::from_secs(5))
            .await
            .unwrap_or_default();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{shown:?}: {answer}"
        );
        assert!(head.contains("application/problem+json"), "{shown:?}: {answer}");
        let body: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(
            (&body["code"], &body["status"]),
            (&json!(code), &json!(status)),
            "{shown:?}"
        );
        assert!(
            body["request_id"].is_string() && body["retryable"] == false,
            "{body}"
        );
        assert_eq!(body["type"], format!("/docs/errors/{code}"));
    }
    for good in [head(8_192), "GET /healthz HTTP/1.0\r\n\r\n".to_owned()] {
        let answer = raw(&app, good.as_bytes(), Duration::from_secs(5))
            .await
            .unwrap_or_default();
        assert!(answer.contains(" 200 OK"), "{answer}");
    }
}

/// Path with its parameters filled in, and its operations.
fn operations(document: &Value) -> Vec<(String, Method, Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let filled: Vec<&str> = path
            .split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect();
        for (method, operation) in item.as_object().expect("operations") {
            let method = method.to_uppercase().parse().expect("a method");
            all.push((filled.join("/"), method, operation.clone()));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_refuses_what_it_does_not_take() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let (_, document) = app.caller("none").get("/openapi.json").await;
    let (mut lists, mut bodiless) = (0, 0);
    for (path, method, operation) in operations(&document) {
        if operation["security"].as_array().is_none_or(Vec::is_empty) {
            continue;
        }
        let call = async |query: &str, body: Option<&Value>| {
            let answer = app
                .admin()
                .send(method.clone(), &format!("{path}{query}"), body)
                .await;
            answer.expect("an answer")
        };
        let (status, body) = call("?bogus=1", None).await;
        assert_eq!(
            (status, &body["errors"][0]["pointer"]),
            (422, &json!("/bogus")),
            "{method} {path}: {body}"
        );
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        if parameters.iter().any(|one| one["name"] == "cursor") {
            lists += 1;
            for cursor in ["zzz", "0", "1.0.1", "AAAAAAAAAAAA"] {
                let (status, body) = call(&format!("?cursor={cursor}"), None).await;
                let known = status == 404 || (status == 422 && body["errors"][0]["pointer"] == "/cursor");
                assert!(known, "{method} {path} {cursor}: {status} {body}");
            }
            for limit in ["0", "1001", "-1", "x", "1.5"] {
                let (status, body) = call(&format!("?limit={limit}"), None).await;
                let known = status == 404 || (status == 422 && body["errors"][0]["pointer"] == "/limit");
                assert!(known, "{method} {path} {limit}: {status} {body}");
            }
        }
        if method != Method::GET && operation["requestBody"].is_null() {
            bodiless += 1;
            let (status, body) = call("", Some(&json!({"bogus": 1}))).await;
            assert_eq!(
                (status, &body["errors"][0]["pointer"]),
                (422, &json!("/bogus")),
                "{method} {path}: {body}"
            );
            let (status, body) = call("", Some(&json!({}))).await;
            assert_ne!(status, 422, "{method} {path}: {body}");
        }
    }
    println!("{lists} lists, {bodiless} operations without a body");
    assert!(lists > 10 && bodiless > 10, "{lists} {bodiless}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_in_binary_mode_is_the_same_event() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let client = reqwest::Client::new();
    let send = |id: &'static str, kind: &'static str, body: &'static str| {
        let request = client.post(app.url("/v1/events")).bearer_auth(ADMIN_KEY);
        let request = request.header("ce-specversion", "1.0").header("ce-id", id);
        let request = request
            .header("ce-source", "gate%20way")
            .header("ce-type", "t")
            .header("ce-subject", "acme");
        let request = request
            .header("ce-time", "2026-01-01T00:00:00Z")
            .header("content-type", kind)
            .body(body);
        async move {
            let answer = request.send().await.expect("an answer");
            (
                answer.status().as_u16(),
                answer.json::<Value>().await.expect("JSON"),
            )
        }
    };
    let (status, body) = send("1", "application/json", r#"{"tokens": 5}"#).await;
    assert_eq!((status, &body["accepted"]), (200, &json!(1)), "{body}");
    let structured = json!({"id": "1", "source": "gate way", "type": "t", "subject": "acme",
        "time": "2026-01-01T00:00:00Z", "data": {"tokens": 5}});
    let again = app.admin().created("/v1/events", &structured).await;
    assert_eq!(again["duplicates"], 1, "{again}");
    assert_eq!(send("1", "application/json", r#"{"tokens": 6}"#).await.0, 409);
    assert_eq!(send("2", "application/json", r#"{}, "type": "x""#).await.0, 400);
    assert_eq!(send("2", "application/json", "[1]").await.0, 422);
    assert_eq!(send("2", "text/plain", "5").await.0, 415);
    assert_eq!(send("2", "application/json", "").await.0, 200, "without data");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_beyond_the_bound_say_so_in_our_words() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let large = json!({"name": "x".repeat(5 * 1024 * 1024)});
    let answer = app
        .admin()
        .send(Method::PUT, "/v1/customers/big", Some(&large))
        .await;
    let (status, body) = answer.expect("an answer");
    assert_eq!((status, &body["code"]), (413, &json!("too_large")), "{body}");
    assert_eq!(body["detail"], "the body has more than 4194304 bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_at_a_time_runs_under_an_idempotency_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = app(&directory, &[]).await;
    let client = reqwest::Client::new();
    let send = |app: &App, key: &str, id: &str| {
        let event = json!({"id": id, "source": "s", "type": "t", "subject": "x"});
        let request = client.post(app.url("/api/v1/events")).bearer_auth(ADMIN_KEY);
        let request = request.header("idempotency-key", key).json(&event);
        async move {
            let answer = request.send().await.expect("an answer");
            let again = answer.headers().contains_key("idempotent-replayed");
            (answer.status().as_u16(), again)
        }
    };
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..16 {
        calls.spawn(send(&app, "race", "1"));
    }
    let answers = calls.join_all().await;
    assert_eq!(
        answers.iter().filter(|one| **one == (204, false)).count(),
        1,
        "{answers:?}"
    );
    assert!(
        answers.iter().all(|one| [204, 409].contains(&one.0)),
        "{answers:?}"
    );
    // Another body is a conflict, also behind a crash.
    app.restart().await;
    assert_eq!(send(&app, "race", "1").await, (204, true));
    assert_eq!(send(&app, "race", "2").await, (409, false));
    for (key, status) in [("k".repeat(255), 204), ("k".repeat(256), 400)] {
        assert_eq!(send(&app, &key, "3").await.0, status, "{} characters", key.len());
    }
}
