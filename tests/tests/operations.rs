//! What an operator relies on: logs without secrets, and spans where they are asked for.

use std::time::Duration;

use axum::routing::{Router, post};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use turnpike_tests::app::{ADMIN_KEY, App, AppOptions};

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");
/// In the data of every event, and nowhere else.
const DATA: &str = "only-in-the-data-of-events";
/// In every key that is not one.
const WRONG_KEY: &str = "a-key-that-nobody-was-given-0123456789";

/// Everything that has to do with keys and with data, well and badly; the keys that were made.
async fn secrets(app: &App) -> Vec<String> {
    let admin = app.admin();
    let made = admin
        .created("/v1/keys", &json!({"name": "app", "scopes": ["ingest", "check"]}))
        .await;
    let id = made["id"].as_str().expect("an id");
    let rotated = admin
        .created(&format!("/v1/keys/{id}/rotate"), &json!({"grace_s": 60}))
        .await;
    let tenant = app.tenant(&json!({"key": "other"})).await;
    let text = |value: &Value| value["key"].as_str().expect("a key").to_owned();
    let keys = vec![text(&made), text(&rotated), tenant, ADMIN_KEY.to_owned()];
    let meter = json!({"event_type": "t", "aggregation": "sum", "value": "$.n"});
    admin.put("/v1/meters/m", &meter).await;
    let good =
        json!({"id": "1", "source": "s", "type": "t", "subject": "c", "data": {"n": 1, "secret": DATA}});
    let unreadable = json!({"id": "2", "source": "s", "type": "t", "subject": "c", "data": {"n": DATA}});
    let refused = json!({"id": "3", "source": "s", "type": "t", "data": {"n": DATA}});
    let callers = keys.iter().map(String::as_str).chain([WRONG_KEY]);
    for key in callers {
        let caller = app.caller(key);
        for event in [&good, &unreadable, &refused] {
            let (status, _) = caller.post("/v1/events", event).await;
            assert!(status < 500);
        }
        let broken = format!(r#"{{"id":"4","data":{{"n":"{DATA}"#);
        caller.send_lines(broken.into_bytes()).await.expect("an answer");
        let amend = json!({"data": {"n": 2, "secret": DATA}});
        caller.post("/v1/events/s/1/amend", &amend).await;
        for path in [
            "/v1/meters/m/usage",
            "/v1/keys",
            "/v1/events",
            "/v1/events/dead-letters",
        ] {
            caller.get(path).await;
        }
    }
    admin.created("/v1/events/dead-letters/replay", &json!({})).await;
    let path = format!("/v1/keys/{id}");
    admin.send(Method::DELETE, &path, None).await.expect("an answer");
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_has_a_key_or_the_data_of_an_event() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = AppOptions::small(BINARY, directory.path());
    options.set("TURNPIKE_TELEMETRY_LOG_FILTER", "trace");
    let mut app = App::start_with(options).await;
    let keys = secrets(&app).await;
    app.restart().await;
    assert_eq!(app.terminate().0, Some(0));
    let log = app.log();
    let calls = log.lines().filter(|line| line.contains(r#""level":"DEBUG""#));
    let calls = calls.count();
    assert!(
        calls > 40,
        "vacuous: {calls} calls were logged (is TURNPIKE_TEST_SHOW set?)"
    );
    let wrong = WRONG_KEY.to_owned();
    for secret in keys.iter().chain([&wrong, &DATA.to_owned()]) {
        let line = log.lines().find(|line| line.contains(secret.as_str()));
        assert_eq!(line, None, "{secret} is in the log");
    }
    println!(
        "{} lines have none of {} secrets",
        log.lines().count(),
        keys.len() + 2
    );
}

/// A receiver of spans: its address, and the bodies that it is sent.
async fn receiver() -> (String, UnboundedReceiver<Value>) {
    let (sender, bodies) = unbounded_channel();
    let receive = move |body: String| async move {
        let _ = sender.send(serde_json::from_str(&body).expect("JSON"));
    };
    let router = Router::new().route("/v1/traces", post(receive));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}/v1/traces"), bodies)
}

/// All spans of a body.
fn spans(body: &Value) -> Vec<Value> {
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let scopes = all(&body["resourceSpans"]);
    let scopes = scopes.iter().flat_map(|resource| all(&resource["scopeSpans"]));
    scopes.flat_map(|scope| all(&scope["spans"])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_are_sent_where_that_is_configured() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let (endpoint, mut bodies) = receiver().await;
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = AppOptions::new(BINARY, directory.path());
    options.set("TURNPIKE_TELEMETRY_OTLP_ENDPOINT", &endpoint);
    let app = App::start_with(options).await;
    let request = reqwest::Client::new()
        .get(app.url("/v1/meters/nothing"))
        .bearer_auth(ADMIN_KEY)
        .header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"));
    assert_eq!(request.send().await.expect("an answer").status(), 404);
    let found = async {
        loop {
            let body = bodies.recv().await.expect("a body");
            assert!(!body.to_string().contains(ADMIN_KEY), "{body}");
            if let Some(span) = spans(&body).into_iter().find(|span| span["traceId"] == TRACE) {
                return span;
            }
        }
    };
    let span = tokio::time::timeout(Duration::from_secs(20), found).await;
    let span = span.expect("the span of the call within 20 s");
    assert_eq!(span["parentSpanId"], "b7ad6b7169203331", "{span}");
    let attributes = span["attributes"].to_string();
    for said in ["404", "GET", "/v1/meters/{key}"] {
        assert!(attributes.contains(said), "{said} is missing: {span}");
    }
    let nanos = |name: &str| span[name].as_str().and_then(|text| text.parse::<u64>().ok());
    assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano"), "{span}");
    assert!(nanos("startTimeUnixNano").is_some(), "{span}");
}
