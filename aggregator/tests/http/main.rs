//! The routes of usage, as the server mounts them.

#![cfg(test)]

#[path = "../common/mod.rs"]
mod common;
mod openmeter;
mod pages;
mod parameters;
mod rows;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use common::{Event, TENANT, World, meter};
use serde_json::Value;
use tower::ServiceExt as _;
use turnpike_aggregator::router;
use turnpike_domain::identity::Scope;
use turnpike_domain::meter::Aggregation;
use turnpike_http::{Caller, RequestId};

async fn get(world: &World, scope: Scope, uri: &str, accept: &str) -> (StatusCode, String) {
    let caller = Caller {
        tenant: TENANT,
        key_id: Arc::from("k"),
        scopes: Arc::new(BTreeSet::from([scope])),
        request_id: RequestId(Arc::from("r")),
    };
    let routes = router(Arc::clone(&world.aggregator))
        .split_for_parts()
        .0
        .layer(Extension(caller));
    let request = Request::get(uri)
        .header("accept", accept)
        .body(Body::empty())
        .unwrap();
    let response = routes.oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn read(world: &World, uri: &str) -> Value {
    let (status, body) = get(world, Scope::Read, uri, "*/*").await;
    assert_eq!(status, StatusCode::OK, "{uri}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// Two customers (one with two subjects), a subject without one, on the day the clocks go forward in Berlin.
async fn world() -> World {
    let world = World::new(
        2,
        &[
            meter(1, "tokens", Aggregation::Sum),
            meter(2, "calls", Aggregation::Count),
        ],
    );
    world.directory.add_customer("acme", &["a1", "a2"]);
    world.directory.add_customer("globex", &["g1"]);
    world
        .clock
        .set(turnpike_domain::time::Timestamp::parse("2026-04-01T00:00:00Z").unwrap());
    let day = turnpike_domain::time::Timestamp::parse("2026-03-29T00:00:00Z")
        .unwrap()
        .micros()
        / 1_000_000;
    let event =
        |id: u32, subject: &str, minute: i64, data: &str| Event::new(id, subject, day + minute * 60, data);
    let events = [
        event(1, "a1", 0, r#"{"v": "1.5", "g": "x"}"#),
        event(2, "a2", 30, r#"{"v": 2, "g": "y"}"#),
        event(3, "g1", 61, r#"{"v": 4, "g": "x"}"#),
        event(4, "loose", 90, r#"{"v": 8}"#),
        event(5, "a1", 23 * 60, r#"{"v": 16, "g": "x"}"#),
    ];
    world.submit(&events).await.unwrap();
    world.aggregator.checkpoint().await.unwrap();
    world
}

const DAY: &str = "from=2026-03-29T00:00:00Z&to=2026-03-30T00:00:00Z";

fn values(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    answer["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (text(&row["start"]), text(&row["value"])))
        .collect()
}
