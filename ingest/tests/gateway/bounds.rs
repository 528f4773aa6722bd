//! What is too much is refused before it is taken in, with nothing half done.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Request;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::json;
use turnpike_domain::identity::Scope;
use turnpike_ingest::IngestOptions;

use crate::memory::MemoryIntake;
use crate::rig::{Gateway, event_with, lines_of};

fn limited(options: IngestOptions) -> Gateway {
    Gateway::with(options, MemoryIntake::default())
}

/// A body that sends `first` and then never ends.
fn stalled(first: &str) -> Body {
    let first = stream::iter([Ok::<_, Infallible>(Bytes::from(first.to_owned()))]);
    Body::from_stream(first.chain(stream::pending()))
}

fn post(content_type: &str, body: Body) -> Request<Body> {
    Request::post("/v1/events")
        .header("content-type", content_type)
        .body(body)
        .unwrap()
}

#[tokio::test]
async fn a_body_has_a_bound_told_or_not() {
    let event = event_with("a").to_string();
    let gateway = limited(IngestOptions {
        body_bytes_max: event.len(),
        ..IngestOptions::default()
    });
    assert_eq!(gateway.json(event.clone()).await.counts(), (1, 0, 0, 0));
    let larger = event.clone() + " ";
    assert_eq!(gateway.json(larger.clone()).await.code(), "too_large");
    let chunks = larger
        .into_bytes()
        .chunks(7)
        .map(|part| Ok::<_, Infallible>(part.to_vec()))
        .collect::<Vec<_>>();
    let unsaid = Body::from_stream(stream::iter(chunks));
    assert_eq!(gateway.json(unsaid).await.code(), "too_large");
    let told = Request::post("/v1/events").header("content-type", "application/json");
    let told = told
        .header("content-length", "99999999999999999999")
        .body(Body::from(event.clone()))
        .unwrap();
    assert_eq!(
        gateway.call(told).await.counts(),
        (0, 1, 0, 0),
        "a length that is no number is not believed"
    );
    let lines = lines_of(0..100);
    assert_eq!(
        gateway
            .post("/v1/events?atomic=true", "application/x-ndjson", lines.clone())
            .await
            .code(),
        "too_large"
    );
    assert_eq!(gateway.events(), 1);
    assert_eq!(
        gateway.lines(lines).await.counts(),
        (100, 0, 0, 0),
        "a stream has no bound"
    );
}

#[tokio::test]
async fn one_tenant_leaves_room_for_another() {
    let event = event_with("a").to_string();
    let options = IngestOptions {
        in_flight_bytes_max: 8 * event.len(),
        ..IngestOptions::default()
    };
    let gateway = Arc::new(limited(options));
    let holder = tokio::spawn({
        let (gateway, body) = (gateway.clone(), stalled(&event));
        async move { gateway.call(post("application/json", body)).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Tenant 1 holds a quarter; two more would be more than what is left free for others.
    let two = json!([event_with("a"), event_with("b")]).to_string();
    let answer = gateway.json(two.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (429, "rate_limited"));
    let other = post("application/json", Body::from(event.clone()));
    assert_eq!(
        gateway.call_as(2, Scope::Ingest, other).await.counts(),
        (1, 0, 0, 0)
    );
    let huge = json!(vec![event_with("a"); 9]).to_string();
    assert_eq!(gateway.json(huge).await.code(), "overloaded");
    assert_eq!(gateway.events(), 1);
    holder.abort();
    let _ = holder.await;
    assert_eq!(
        gateway.json(event).await.counts(),
        (1, 0, 0, 0),
        "what was held is free again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_is_let_go() {
    for content_type in ["application/json", "application/x-ndjson"] {
        let gateway = Gateway::new();
        let answer = gateway.call(post(content_type, stalled("{\"id\":"))).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (408, "request_timeout"),
            "{content_type}"
        );
        assert_eq!(gateway.events(), 0);
    }
    // A byte now and then does not keep a body that is read whole open for ever.
    let drops = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
    });
    let answer = Gateway::new()
        .call(post("application/json", Body::from_stream(drops)))
        .await;
    assert_eq!(answer.code(), "request_timeout");
}

#[tokio::test]
async fn dead_letters_are_kept_at_a_rate() {
    let options = IngestOptions {
        dead_letters_per_s: 2,
        dead_letters_burst: 5,
        ..IngestOptions::default()
    };
    let gateway = limited(options);
    let broken = "x\n".repeat(100);
    assert_eq!(gateway.lines(broken.clone()).await.counts(), (0, 0, 0, 100));
    assert_eq!(gateway.letters().len(), 5);
    gateway.clock.pass(1_000_000);
    gateway.lines(broken).await;
    assert_eq!(gateway.letters().len(), 7);
    gateway.json("{").await;
    assert_eq!(gateway.letters().len(), 7);
}

#[tokio::test]
async fn the_answer_lists_a_bounded_number_of_errors() {
    let gateway = Gateway::new();
    let answer = gateway.lines("x\n".repeat(2_500)).await;
    assert_eq!(answer.counts(), (0, 0, 0, 2_500));
    assert_eq!(answer.json["errors"].as_array().unwrap().len(), 1_000);
    assert_eq!(answer.json["errors"][999]["index"], 999);
    assert_eq!(answer.json["errors_omitted"], 1_500);
    let array = format!("[{}]", vec!["1"; 1_001].join(","));
    let answer = gateway.json(array.clone()).await;
    assert_eq!(
        (
            answer.json["errors"].as_array().unwrap().len(),
            &answer.json["errors_omitted"]
        ),
        (1_000, &json!(1))
    );
    let answer = gateway
        .post("/v1/events?atomic=true", "application/json", array)
        .await;
    assert_eq!(answer.json["errors"].as_array().unwrap().len(), 1_000);
}

#[tokio::test]
async fn among_very_many_errors_the_first_are_listed_be_they_conflicts_or_refusals() {
    let gateway = Gateway::new();
    gateway.json(event_with("a").to_string()).await;
    let mut other = event_with("a");
    other["data"] = json!({});
    let mut elements = vec![json!(1); 5_000];
    elements[700] = other.clone();
    elements[4_000] = other.clone();
    elements[4_001] = event_with("b");
    let answer = gateway.json(json!(elements).to_string()).await;
    assert_eq!(answer.counts(), (1, 0, 2, 4_997));
    let errors = answer.json["errors"].as_array().unwrap();
    let indexes: Vec<_> = errors
        .iter()
        .map(|error| error["index"].as_u64().unwrap())
        .collect();
    assert_eq!(indexes, (0..1_000).collect::<Vec<_>>());
    assert_eq!(errors[700]["code"], "event_conflict");
    assert_eq!(answer.json["errors_omitted"], 3_999);
    assert_eq!(gateway.letters().len(), 1_000);

    let conflicts = gateway.json(json!(vec![other; 2_500]).to_string()).await;
    assert_eq!(conflicts.counts(), (0, 0, 2_500, 0));
    assert_eq!(conflicts.json["errors"][999]["index"], 999);
    assert_eq!(conflicts.json["errors_omitted"], 1_500);
}
