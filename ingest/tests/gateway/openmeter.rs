//! The path that OpenMeter's clients call. The bodies are what its Python and JavaScript clients send.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use turnpike_domain::identity::Scope;

use crate::rig::{Gateway, event_with};

const PATH: &str = "/api/v1/events";

#[tokio::test]
async fn what_the_official_clients_send_is_taken() {
    let gateway = Gateway::new();
    let python = r#"{"id": "py-1", "source": "py", "specversion": "1.0", "type": "prompt", "subject": "customer-1", "time": "2026-01-15T12:00:00Z", "data": {"tokens": 100, "model": "gpt"}}"#;
    let javascript = r#"[{"type":"prompt","subject":"customer-3","data":{"tokens":5},"id":"4f0ac6d0-8f0e-4c6e-9d6e-0a3d0b8e7f11","source":"@openmeter/sdk","specversion":"1.0","time":"2026-02-28T09:10:11.123Z"}]"#;
    for (content_type, body) in [
        ("application/cloudevents+json", python.to_owned()),
        ("application/cloudevents-batch+json", format!("[{python}]")),
        ("application/cloudevents-batch+json", javascript.to_owned()),
        ("application/json", python.to_owned()),
        ("application/json", "[]".to_owned()),
    ] {
        let answer = gateway.post(PATH, content_type, body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.bytes.len()),
            (204, 0),
            "{answer:?}"
        );
        assert_eq!(answer.headers.get("turnpike-events-without-id"), None);
    }
    assert_eq!(gateway.events(), 2);
}

#[tokio::test]
async fn what_has_no_id_gets_one_and_is_told_so() {
    let gateway = Gateway::new();
    let bare = json!({"type": "prompt", "subject": "s", "data": {"tokens": 1}});
    let body = json!([bare, bare, event_with("a")]).to_string();
    for round in 1..=2 {
        let answer = gateway.post(PATH, "application/json", body.clone()).await;
        assert_eq!(
            (
                answer.status.as_u16(),
                &answer.headers["turnpike-events-without-id"]
            ),
            (204, &"2".parse().unwrap())
        );
        assert_eq!(gateway.events(), 1 + 2 * round);
    }
    let listed = gateway.get("/v1/events?source=turnpike:openmeter").await;
    assert_eq!(listed.json["data"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn nothing_is_refused_in_silence() {
    let gateway = Gateway::new();
    let mut invalid = event_with("b");
    invalid["data"] = json!("text");
    let body = json!([event_with("a"), invalid]).to_string();
    let answer = gateway.post(PATH, "application/json", body).await;
    assert_eq!((answer.status.as_u16(), answer.pointer()), (422, "/1/data"));
    let answer = gateway.post(PATH, "application/json", invalid.to_string()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code(), answer.pointer()),
        (422, "invalid_data", "/data")
    );
    assert_eq!(gateway.events(), 0);

    gateway
        .post(PATH, "application/json", event_with("a").to_string())
        .await;
    let mut conflict = event_with("a");
    conflict["data"] = json!({});
    for body in [
        conflict.to_string(),
        json!([conflict, event_with("c")]).to_string(),
    ] {
        let answer = gateway.post(PATH, "application/json", body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (409, "event_conflict"));
    }
    let batch = json!([event_with("c"), conflict, event_with("c")]).to_string();
    let answer = gateway.post(PATH, "application/json", batch).await;
    assert_eq!((answer.status.as_u16(), answer.pointer()), (409, "/1"));
    let errors = answer.json["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0]["detail"].as_str().unwrap().contains("\"a\""),
        "{answer:?}"
    );
    assert_eq!(gateway.events(), 2);
    for body in ["{", "", "[{}"] {
        assert_eq!(
            gateway.post(PATH, "application/json", body).await.code(),
            "invalid_json"
        );
    }
    assert_eq!(
        gateway.post(PATH, "application/x-ndjson", "").await.code(),
        "unsupported_media_type"
    );
}

#[tokio::test]
async fn other_products_bodies_are_not_mistaken_for_events() {
    let gateway = Gateway::new();
    let lago = json!({"event": {"transaction_id": "t", "external_subscription_id": "s", "code": "c"}});
    let answer = gateway.post(PATH, "application/json", lago.to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (422, "invalid_type"));
    for path in [
        "/api/v1/events/batch",
        "/api/v1/events/ingest",
        "/v1/events/bulk",
        "/v1/billing/meter_events",
    ] {
        let request = Request::post(path).body(Body::empty()).unwrap();
        let status = gateway.status(1, Scope::Admin, request).await;
        assert_eq!(status, 404, "{path}");
    }
}
