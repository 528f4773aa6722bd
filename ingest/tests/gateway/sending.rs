//! Good events, in every form.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use turnpike_domain::identity::Scope;

use crate::rig::{Gateway, event_with, lines_of};

#[tokio::test]
async fn one_event_then_again_then_changed() {
    let gateway = Gateway::new();
    let event = event_with("a");
    let answer = gateway.json(event.to_string()).await;
    assert_eq!(answer.counts(), (1, 0, 0, 0));
    assert_eq!(answer.json["errors"], json!([]));
    assert_eq!(answer.json.get("errors_omitted"), None);
    assert_eq!(gateway.json(event.to_string()).await.counts(), (0, 1, 0, 0));

    let respelled = r#"{ "data": {"model":"gpt\u002d4","tokens":1.7e1}, "subject":"acme","type":"llm.request",
        "source":"test", "i\u0064":"a", "time":"2026-03-01T12:00:00+01:00" }"#;
    assert_eq!(gateway.json(respelled).await.counts(), (0, 1, 0, 0));

    for (attribute, value) in [
        ("type", json!("other")),
        ("subject", json!("other")),
        ("time", json!("2026-03-01T11:00:01Z")),
        ("time", Value::Null),
        ("data", json!({"tokens": 18, "model": "gpt-4"})),
    ] {
        let mut changed = event.clone();
        changed[attribute] = value;
        let answer = gateway.json(changed.to_string()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (409, "event_conflict"),
            "{attribute}"
        );
    }
    assert_eq!(gateway.events(), 1);
    assert_eq!(gateway.letters().len(), 0);
}

#[tokio::test]
async fn an_array_tells_each_apart() {
    let gateway = Gateway::new();
    gateway.json(event_with("old").to_string()).await;
    let mut conflict = event_with("old");
    conflict["data"] = json!({});
    let mut invalid = event_with("bad");
    invalid["time"] = json!("noon");
    let body = json!([
        event_with("new"),
        invalid,
        event_with("old"),
        5,
        conflict,
        event_with("new"),
        event_with("b")
    ]);
    let answer = gateway.json(body.to_string()).await;
    assert_eq!(answer.counts(), (2, 2, 1, 2));
    let errors: Vec<_> = answer.json["errors"].as_array().unwrap().iter().collect();
    let short = |error: &Value| {
        (
            error["index"].as_u64().unwrap(),
            error["id"].clone(),
            error["code"].clone(),
        )
    };
    assert_eq!(
        errors.into_iter().map(short).collect::<Vec<_>>(),
        [
            (1, json!("bad"), json!("invalid_time")),
            (3, json!(""), json!("invalid")),
            (4, json!("old"), json!("event_conflict")),
        ]
    );
    let letters = gateway.letters();
    assert_eq!(letters.len(), 2);
    assert_eq!(
        (letters[0].code.as_str(), letters[0].id.as_str()),
        ("invalid_time", "bad")
    );
    assert_eq!(
        serde_json::from_slice::<Value>(&letters[0].raw).unwrap()["time"],
        "noon"
    );
    assert_eq!(letters[1].raw, b"5");
}

#[tokio::test]
async fn nothing_sent_is_nothing_counted() {
    let gateway = Gateway::new();
    assert_eq!(gateway.json("[]").await.counts(), (0, 0, 0, 0));
    assert_eq!(gateway.json(" [ ] \n").await.counts(), (0, 0, 0, 0));
    assert_eq!(gateway.lines("").await.counts(), (0, 0, 0, 0));
    assert_eq!(gateway.lines("\n \r\n\t\n").await.counts(), (0, 0, 0, 0));
    assert_eq!(
        gateway
            .post("/v1/events?atomic=true", "application/json", "[]")
            .await
            .counts(),
        (0, 0, 0, 0)
    );
    assert_eq!(
        gateway
            .post("/v1/events?atomic=true", "application/x-ndjson", "")
            .await
            .counts(),
        (0, 0, 0, 0)
    );
}

#[tokio::test]
async fn every_content_type_is_taken() {
    let gateway = Gateway::new();
    for (at, content_type) in [
        "application/json",
        "application/json; charset=utf-8",
        "application/cloudevents+json",
        "application/cloudevents-batch+json; charset=UTF-8",
    ]
    .into_iter()
    .enumerate()
    {
        let one = event_with(&format!("{at}"));
        let many = json!([event_with(&format!("{at}-1")), event_with(&format!("{at}-2"))]);
        assert_eq!(
            gateway
                .post("/v1/events", content_type, one.to_string())
                .await
                .counts(),
            (1, 0, 0, 0)
        );
        assert_eq!(
            gateway
                .post("/v1/events?wait=counted", content_type, many.to_string())
                .await
                .counts(),
            (2, 0, 0, 0)
        );
    }
    assert_eq!(gateway.lines(lines_of(10..13)).await.counts(), (3, 0, 0, 0));
}

#[tokio::test]
async fn what_is_kept_is_what_was_sent() {
    let gateway = Gateway::new();
    let event = json!({
        "id": "\u{0}weird/id ü", "source": "https://x/y?z=\"1\"", "type": "t", "subject": "acme",
        "data": {"n": 1, "deep": [{"a": "\u{1F600}"}]}, "dataschema": null, "datacontenttype": "application/json",
        "traceparent": "00-1", "é": 5,
    });
    assert_eq!(gateway.json(event.to_string()).await.counts(), (1, 0, 0, 0));
    let listed = gateway.get("/v1/events").await;
    let mut kept = listed.json["data"][0].clone();
    assert_eq!(kept["time"], crate::rig::NOW);
    assert_eq!(kept["received"], crate::rig::NOW);
    assert_eq!(kept["status"], "accepted");
    let mut sent = event;
    sent.as_object_mut().unwrap().remove("dataschema");
    for name in ["position", "status", "received", "time"] {
        kept.as_object_mut().unwrap().remove(name);
    }
    let extensions = kept.as_object_mut().unwrap().remove("extensions").unwrap();
    kept.as_object_mut()
        .unwrap()
        .extend(extensions.as_object().unwrap().clone());
    assert_eq!(kept, sent);
}

#[tokio::test]
async fn names_do_not_run_into_each_other() {
    let gateway = Gateway::new();
    for (source, id) in [
        ("a-b", "c"),
        ("a", "b-c"),
        ("a\u{0}", "b"),
        ("a", "\u{0}b"),
        ("ab", "c"),
        ("a", "bc"),
    ] {
        let mut event = event_with(id);
        event["source"] = json!(source);
        assert_eq!(
            gateway.json(event.to_string()).await.counts(),
            (1, 0, 0, 0),
            "{source:?} {id:?}"
        );
    }
    let other = Request::post("/v1/events").header("content-type", "application/json");
    let other = other.body(Body::from(event_with("bc").to_string())).unwrap();
    assert_eq!(
        gateway.call_as(2, Scope::Ingest, other).await.counts(),
        (1, 0, 0, 0)
    );
}

#[tokio::test]
async fn atomic_is_all_or_nothing() {
    let gateway = Gateway::new();
    let mut invalid = event_with("bad");
    invalid["time"] = json!("noon");
    let mixed = json!([event_with("a"), invalid, event_with("b"), {"id": 7}]);
    let answer = gateway
        .post("/v1/events?atomic=true", "application/json", mixed.to_string())
        .await;
    assert_eq!((answer.status.as_u16(), answer.code()), (422, "invalid"));
    assert_eq!(answer.json["errors"][0]["pointer"], "/1/time");
    assert_eq!(answer.json["errors"][1]["pointer"], "/3/id");
    assert!(
        answer.json["errors"][1]["detail"]
            .as_str()
            .unwrap()
            .starts_with("invalid_id: ")
    );
    let lines = format!("{}\n\n{}", event_with("a"), invalid);
    let answer = gateway
        .post("/v1/events?atomic=true", "application/x-ndjson", lines)
        .await;
    assert_eq!(
        (
            answer.status.as_u16(),
            answer.json["errors"][0]["pointer"].as_str()
        ),
        (422, Some("/1/time"))
    );
    let answer = gateway
        .post("/v1/events?atomic=true", "application/json", invalid.to_string())
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.code(), answer.pointer()),
        (422, "invalid_time", "/time")
    );
    assert_eq!(
        (gateway.events(), gateway.letters().len()),
        (0, 1),
        "only the bare event left a dead letter"
    );

    gateway.json(event_with("a").to_string()).await;
    let mut conflict = event_with("a");
    conflict["data"] = json!({});
    let good = json!([conflict, event_with("b")]);
    let answer = gateway
        .post("/v1/events?atomic=true", "application/json", good.to_string())
        .await;
    assert_eq!(
        answer.counts(),
        (1, 0, 1, 0),
        "a conflict is no matter of validity"
    );
}

#[tokio::test]
async fn a_key_needs_the_scope() {
    let gateway = Gateway::new();
    for scope in [Scope::Read, Scope::Check, Scope::Billing] {
        let request = Request::post("/v1/events").header("content-type", "application/json");
        let request = request.body(Body::from(event_with("a").to_string())).unwrap();
        assert_eq!(gateway.call_as(1, scope, request).await.code(), "forbidden");
    }
    assert_eq!(gateway.events(), 0);
}
