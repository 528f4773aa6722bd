//! Calls that are repeated under an idempotency key.

use serde_json::{Value, json};
use turnpike_tests::app::{ADMIN_KEY, App};

use super::app;

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
    // Once it has ended, all that come at once are told how.
    for _ in 0..10 {
        let repeats: tokio::task::JoinSet<_> = (0..16).map(|_| send(&app, "race", "1")).collect();
        assert_eq!(repeats.join_all().await, [(204, true); 16]);
    }
    // Another body is a conflict, also behind a crash.
    app.restart().await;
    assert_eq!(send(&app, "race", "1").await, (204, true));
    assert_eq!(send(&app, "race", "2").await, (409, false));
    for (key, status) in [("k".repeat(255), 204), ("k".repeat(256), 400)] {
        assert_eq!(send(&app, &key, "3").await.0, status, "{} characters", key.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_without_an_id_count_once_under_a_key_whatever_was_answered() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let meter = json!({"event_type": "om", "aggregation": "count"});
    app.admin().put("/v1/meters/om", &meter).await;
    let taken = json!([{"id": "taken", "source": "s", "type": "om", "subject": "a", "data": {"v": 1}}]);
    assert_eq!(app.admin().post("/v1/events", &taken).await.0, 200);
    // A conflict is answered anew each time; the other event, which has no id, was taken the first time.
    let batch = json!([
        {"id": "taken", "source": "s", "type": "om", "subject": "a", "data": {"v": 2}},
        {"type": "om", "subject": "b"},
    ]);
    for _ in 0..3 {
        let request = reqwest::Client::new().post(app.url("/api/v1/events"));
        let request = request
            .bearer_auth(ADMIN_KEY)
            .header("idempotency-key", "k1")
            .json(&batch);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 409);
    }
    let counted = app.admin().total("om", "subject=b").await;
    assert_eq!(counted.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_event_in_the_headers_is_another_call() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let send = |id: &'static str| {
        let request = reqwest::Client::new()
            .post(app.url("/v1/events"))
            .bearer_auth(ADMIN_KEY);
        let said = [
            ("id", id),
            ("source", "s"),
            ("type", "t"),
            ("subject", "x"),
            ("specversion", "1.0"),
        ];
        let request = said.into_iter().fold(request, |request, (name, value)| {
            request.header(format!("ce-{name}"), value)
        });
        let request = request
            .header("idempotency-key", "k")
            .header("content-type", "application/json");
        async move {
            request
                .body(r#"{"v": 7}"#)
                .send()
                .await
                .expect("an answer")
                .status()
                .as_u16()
        }
    };
    assert_eq!(
        [send("1").await, send("1").await, send("2").await],
        [200, 200, 409]
    );
}

/// The headers of an answer that belong to it.
fn told(answer: &reqwest::Response) -> Vec<(String, String)> {
    let names = ["content-type", "ratelimit-policy", "ratelimit"];
    let value = |name: &str| Some(answer.headers().get(name)?.to_str().expect("text").to_owned());
    names
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), value(name)?)))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_has_the_headers_of_the_first_answer() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = app(&directory, &[]).await;
    let admin = app.admin();
    let meter = json!({"event_type": "call", "aggregation": "sum", "value": "$.n"});
    admin.put("/v1/meters/calls", &meter).await;
    admin
        .put(
            "/v1/features/calls",
            &json!({"kind": "metered", "meter": "calls"}),
        )
        .await;
    admin.put("/v1/customers/acme", &json!({})).await;
    let grant = json!({"feature": "calls", "amount": "10"});
    admin.created("/v1/customers/acme/grants", &grant).await;
    let send = |app: &App, path: &str, key: &str, body: &Value| {
        let request = reqwest::Client::new().post(app.url(path)).bearer_auth(ADMIN_KEY);
        let request = request.header("idempotency-key", key).json(body);
        async move { request.send().await.expect("an answer") }
    };
    let consume = |id: &str| json!({"id": id, "customer": "acme", "feature": "calls", "amount": "3"});
    let calls = [
        ("/v1/quota/consume", consume("1")),
        ("/v1/quota/reservations", consume("2")),
    ];
    let mut first = Vec::new();
    for (path, body) in &calls {
        let answer = send(&app, path, path, body).await;
        let headers = told(&answer);
        assert!(
            headers.iter().any(|(name, _)| name == "ratelimit"),
            "{path} {headers:?}"
        );
        first.push((headers, answer.status(), answer.text().await.expect("a body")));
    }
    // Something else is used meanwhile, and the process ends.
    assert_eq!(app.admin().post("/v1/quota/consume", &consume("3")).await.0, 200);
    app.restart().await;
    for ((path, body), first) in calls.iter().zip(first) {
        let answer = send(&app, path, path, body).await;
        assert_eq!(answer.headers()["idempotent-replayed"], "true", "{path}");
        let again = (
            told(&answer),
            answer.status(),
            answer.text().await.expect("a body"),
        );
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        assert_eq!(
            (again.0, again.1, json(&again.2)),
            (first.0, first.1, json(&first.2)),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_has_the_bytes_of_the_first_answer() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let data = concat!(
        r#"{"v":0.12345678901234567890123,"w":12345678901234567890123456,"#,
        r#""x":1e2,"e":1e400,"dup":1,"dup":2}"#
    );
    let event = format!(r#"{{"id":"1","source":"s","type":"t","subject":"x","data":{data}}}"#);
    let calls = [
        ("/v1/events", event),
        ("/v1/events/s/1/amend", format!(r#"{{"data":{data}}}"#)),
        ("/v1/events/s/1/void", "{}".to_owned()),
        ("/api/v1/events", r#"{"type":"t","subject":"x"}"#.to_owned()),
    ];
    for (path, body) in calls {
        let send = async || {
            let request = reqwest::Client::new().post(app.url(path)).bearer_auth(ADMIN_KEY);
            let request = request
                .header("idempotency-key", path)
                .header("content-type", "application/json");
            let answer = request.body(body.clone()).send().await.expect("an answer");
            assert!(answer.status().is_success(), "{path}: {}", answer.status());
            let mut headers = answer.headers().clone();
            for each in ["date", "x-request-id"] {
                headers.remove(each);
            }
            let again = headers.remove("idempotent-replayed").is_some();
            (again, headers, answer.text().await.expect("a text"))
        };
        let first = send().await;
        let again = send().await;
        assert_eq!((first.0, again.0), (false, true), "{path}");
        assert_eq!((again.1, &again.2), (first.1, &first.2), "{path}");
        if path.ends_with("amend") {
            assert!(first.2.contains(data), "{path}: {}", first.2);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_under_a_key_may_be_as_many_as_without_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let event = |id: usize| {
        let filling = "x".repeat(1_000);
        json!({"id": id.to_string(), "source": "s", "type": "t", "subject": "x", "data": {"f": filling}})
            .to_string()
    };
    let many: Vec<_> = (0..5_000).map(event).collect();
    let bodies = [
        ("application/json", format!("[{}]", many.join(","))),
        ("application/x-ndjson", many.join("\n")),
    ];
    let send = async |media: &'static str, body: String| {
        let request = reqwest::Client::new()
            .post(app.url("/v1/events"))
            .bearer_auth(ADMIN_KEY);
        let request = request
            .header("idempotency-key", media)
            .header("content-type", media);
        let answer = request.body(body).send().await.expect("an answer");
        let again = answer.headers().contains_key("idempotent-replayed");
        let status = answer.status().as_u16();
        (status, again, answer.json::<Value>().await.expect("JSON"))
    };
    for ((media, body), outcome) in bodies.into_iter().zip(["accepted", "duplicates"]) {
        for again in [false, true] {
            let answer = send(media, body.clone()).await;
            assert_eq!((answer.0, answer.1), (200, again), "{media} {}", answer.2);
            assert_eq!(answer.2[outcome], 5_000, "{media}");
        }
        let other = send(media, body + " ").await;
        assert_eq!((other.0, &other.2["code"]), (409, &json!("idempotency_conflict")));
    }
    let beyond = send("text/plain", " ".repeat(64 * 1024 * 1024 + 1)).await;
    assert_eq!((beyond.0, &beyond.2["code"]), (413, &json!("too_large")));
}
