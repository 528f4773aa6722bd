//! Retries: against a server that answers as it is told and keeps what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use serde_json::{Value, json};
use turnpike_client::{Ask, Client, Error, Event};

/// What a server answers, call by call, and what it was asked.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Told>>>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

type Told = (StatusCode, Option<&'static str>, Value);

async fn answer(State(script): State<Script>, uri: Uri, body: String) -> (StatusCode, HeaderMap, String) {
    let body = serde_json::from_str(&body).unwrap_or(Value::Null);
    script.asked.lock().unwrap().push((uri.path().to_owned(), body));
    let told = script.answers.lock().unwrap().pop_front();
    let Some((status, retry_after, body)) = told else {
        // Never: the client's own bound has to end it.
        return std::future::pending().await;
    };
    let mut headers = HeaderMap::new();
    if let Some(seconds) = retry_after {
        headers.insert(header::RETRY_AFTER, seconds.parse().unwrap());
    }
    (status, headers, body.to_string())
}

impl Script {
    /// A server that gives these answers, and a client of it.
    async fn serve(answers: impl IntoIterator<Item = Told>) -> (Self, Client) {
        let script = Self::default();
        script.answers.lock().unwrap().extend(answers);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(script.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let client = Client::new(&format!("http://{address}"), "k").unwrap();
        (script, client.with_timeout(Duration::from_mins(1)))
    }

    fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }
}

fn problem(status: StatusCode, code: &str, retry_after: Option<&'static str>) -> Told {
    let body = json!({"code": code, "detail": "as told", "retryable": true, "status": status.as_u16()});
    (status, retry_after, body)
}

fn granted() -> Told {
    let body = json!({
        "allowed": true, "customer": "c", "feature": "f", "limit": null, "used": "1", "reserved": "0", "remaining": null,
        "overage": "0", "resets_at": null, "reason": "a_new_reason", "as_of": "2026-01-01T00:00:00Z", "max_overshoot": "0",
        "limits": [], "a_new_member": 1
    });
    (StatusCode::OK, None, body)
}

fn ask() -> Ask {
    Ask::new("c", "f")
}

#[tokio::test]
async fn a_call_is_tried_again_under_the_same_id() {
    let away = problem(StatusCode::SERVICE_UNAVAILABLE, "overloaded", Some("0"));
    let busy = problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited", Some("0"));
    let proxy = (StatusCode::BAD_GATEWAY, None, json!("no problem document"));
    let (script, client) = Script::serve([away, busy, proxy, granted()]).await;
    let decision = client.consume(&ask()).await.unwrap();
    // What a later server adds does not break a client.
    assert!(decision.allowed && decision.reason.as_str() == "other");
    let asked = script.asked();
    assert_eq!(asked.len(), 4);
    assert!(asked[0].1["id"].as_str().is_some_and(|id| id.len() > 16));
    assert!(asked.iter().all(|call| call == &asked[0]), "{asked:?}");
}

#[tokio::test]
async fn what_asks_for_a_longer_pause_than_there_is_ends_at_once() {
    let away = problem(StatusCode::SERVICE_UNAVAILABLE, "storage_full", Some("61"));
    let (script, client) = Script::serve([away, granted()]).await;
    let error = client.check(&ask()).await.unwrap_err();
    assert_eq!((error.code(), error.is_away()), (Some("storage_full"), true));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(61)));
    assert_eq!(script.asked().len(), 1);
}

#[tokio::test]
async fn a_pause_is_waited_for() {
    let away = problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", Some("1"));
    let (script, client) = Script::serve([away, granted()]).await;
    let begin = std::time::Instant::now();
    assert!(client.check(&ask()).await.is_ok());
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(script.asked().len(), 2);
}

#[tokio::test]
async fn tries_are_bounded() {
    let busy = || problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited", Some("0"));
    let (script, client) = Script::serve([busy(), busy(), busy()]).await;
    let error = client.with_tries(2).check(&ask()).await.unwrap_err();
    assert_eq!((error.code(), error.is_away()), (Some("rate_limited"), true));
    assert_eq!(script.asked().len(), 2);
}

#[tokio::test]
async fn what_a_retry_cannot_help_is_not_tried_again() {
    for status in [400, 401, 403, 404, 409, 413, 422, 500] {
        let status = StatusCode::from_u16(status).unwrap();
        let (script, client) = Script::serve([problem(status, "any", None), granted()]).await;
        let error = client.send(&[Event::new("1", "s", "t", "c")]).await.unwrap_err();
        assert_eq!(error.code(), Some("any"), "{status}");
        assert_eq!(error.is_away(), status == 500, "{status}");
        assert_eq!(script.asked().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_refusal_by_a_quota_is_not_tried_again() {
    let (_, _, mut body) = granted();
    for (name, value) in [
        ("allowed", json!(false)),
        ("code", json!("quota_refused")),
        ("detail", json!("refused")),
    ] {
        body[name] = value;
    }
    for (retryable, expected) in [(true, Some(Duration::from_secs(9))), (false, None)] {
        body["retryable"] = json!(retryable);
        let told = (StatusCode::TOO_MANY_REQUESTS, Some("9"), body.clone());
        let (script, client) = Script::serve([told, granted()]).await;
        let decision = client.consume(&ask()).await.unwrap();
        assert_eq!((decision.allowed, decision.retry_after), (false, expected));
        assert_eq!(script.asked().len(), 1);
    }
}

#[tokio::test]
async fn who_does_not_answer_is_given_up() {
    let (_script, client) = Script::serve([]).await;
    let error = client
        .with_timeout(Duration::from_millis(100))
        .check(&ask())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::TimedOut(_)) && error.is_away(), "{error}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(&nobody, "k").unwrap();
    let error = client.check(&ask()).await.unwrap_err();
    assert!(
        matches!(error, Error::Unreachable(_)) && error.is_away(),
        "{error}"
    );
}

#[tokio::test]
async fn another_server_is_not_taken_for_an_engine() {
    let page = (StatusCode::OK, None, json!("a page"));
    let moved = (StatusCode::FOUND, None, json!({}));
    let (_script, client) = Script::serve([page, moved]).await;
    for _ in 0..2 {
        let error = client.check(&ask()).await.unwrap_err();
        assert!(
            matches!(error, Error::Unreadable { .. }) && !error.is_away(),
            "{error}"
        );
    }
}
