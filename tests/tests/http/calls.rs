//! What all calls share: request ids, failures, limits, bodies, metrics.

use reqwest::Method;
use serde_json::{Value, json};
use turnpike_tests::app::ADMIN_KEY;

use super::app;

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
    // Without a question about another call it is one like any other, of which the gate wants to know whose it is.
    for (key, path, status) in [
        (ADMIN_KEY, "/v1/meters", 204),
        ("none", "/v1/meters", 401),
        ("none", "/v1/nothing", 401),
    ] {
        let itself = client.request(Method::OPTIONS, app.url(path)).bearer_auth(key);
        let answer = itself.send().await.expect("an answer");
        let told = answer.headers().contains_key("x-request-id");
        assert_eq!((answer.status().as_u16(), told), (status, true), "{path}");
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
    let app = super::app(&other, &[("TURNPIKE_HTTP_METRICS_LISTEN", "127.0.0.1:0")]).await;
    assert_eq!(
        app.admin().get("/metrics").await.0,
        404,
        "it is on its own listener alone"
    );
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
