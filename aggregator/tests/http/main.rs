//! The routes of usage, as the server mounts them.

#![cfg(test)]

#[path = "../common/mod.rs"]
mod common;
mod long_values;
mod openmeter;
mod overflow;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use common::{Event, TENANT, World, meter, runtime};
use serde_json::{Value, json};
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
    let bytes = to_bytes(response.into_body(), 1 << 24).await.unwrap();
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

#[test]
fn one_row_for_all_and_rows_by_customer_subject_and_dimension() {
    runtime().block_on(async {
        let world = world().await;
        let all = read(&world, &format!("/v1/meters/tokens/usage?{DAY}")).await;
        assert_eq!(all["meter"], "tokens");
        assert_eq!(all["complete"], true);
        assert_eq!(all["data"], json!([{
            "start": "2026-03-29T00:00:00Z", "end": "2026-03-30T00:00:00Z", "customer": null, "group": {}, "value": "31.5",
        }]));
        let by = |field: &'static str, query: &str| {
            let uri = format!("/v1/meters/tokens/usage?{DAY}&{query}");
            let world = &world;
            async move {
                let answer = read(world, &uri).await;
                let text = |row: &Value| match field {
                    "group" => row["group"]["g"].as_str().unwrap().to_owned(),
                    _ => row[field].as_str().unwrap().to_owned(),
                };
                let rows = answer["data"].as_array().unwrap().iter();
                rows.map(|row| format!("{}={}", text(row), row["value"].as_str().unwrap())).collect::<Vec<_>>().join(" ")
            }
        };
        assert_eq!(by("customer", "group_by=customer").await, "acme=19.5 globex=4 loose=8");
        assert_eq!(by("subject", "group_by=subject").await, "a1=17.5 a2=2 g1=4 loose=8");
        assert_eq!(by("group", "group_by=g").await, "=8 x=21.5 y=2");
        assert_eq!(by("customer", "customer=acme&customer=loose").await, "acme=19.5 loose=8");
        assert_eq!(by("customer", "customer=acme&filter[g]=x&filter[g]=z").await, "acme=17.5");
        assert_eq!(by("customer", "customer=acme&subject=a2").await, "acme=2");
        assert_eq!(by("customer", "customer=nobody").await, "nobody=0");
        assert_eq!(by("customer", "customer=a1").await, "a1=0", "the name of another customer's subject");
        world.directory.add_customer("loose", &["l1"]);
        assert_eq!(by("customer", "group_by=customer").await, "acme=19.5 globex=4 loose=8", "a free subject by its name");
        assert_eq!(by("customer", "customer=loose").await, "loose=0", "the customer's subjects alone");
    });
}

#[test]
fn what_is_named_again_counts_once() {
    runtime().block_on(async {
        let world = world().await;
        let usage = format!("/v1/meters/tokens/usage?{DAY}");
        let export = format!("/v1/export/usage?{DAY}&format=ndjson");
        let openmeter = format!("/api/v1/meters/tokens/query?{DAY}");
        for (path, once, again) in [
            (&usage, "customer=acme", "customer=acme"),
            (&usage, "customer=nobody", "customer=nobody"),
            (&usage, "subject=a1", "subject=a1"),
            (&usage, "customer=acme&subject=a1", "subject=a1&customer=acme"),
            (&usage, "filter[g]=x", "filter[g]=x"),
            (&usage, "group_by=g", "group_by=g,g"),
            (&usage, "customer=acme&window=hour", "customer=acme"),
            (&usage, "customer=acme&format=csv", "customer=acme"),
            (&export, "customer=acme", "customer=acme"),
            (&export, "subject=a1", "subject=a1"),
            (&openmeter, "filterCustomerId=acme", "filterCustomerId=acme"),
            (&openmeter, "subject=a1", "subject=a1"),
            (&openmeter, "subject=a1&groupBy=g", "groupBy=g"),
            (&openmeter, "filterGroupBy[g]=x", "filterGroupBy[g]=x"),
        ] {
            let told = |uri: String| {
                let world = &world;
                async move {
                    let (status, body) = get(world, Scope::Read, &uri, "*/*").await;
                    assert_eq!(status, StatusCode::OK, "{uri}: {body}");
                    // The moment of the reading is the test clock's, which stands still.
                    body
                }
            };
            let uri = format!("{path}&{once}");
            assert_eq!(
                told(format!("{uri}&{again}")).await,
                told(uri).await,
                "{path}&{once}&{again}"
            );
        }
        let acme = read(&world, &format!("{usage}&customer=acme&customer=acme")).await;
        assert_eq!(
            values(&acme),
            [("2026-03-29T00:00:00Z".to_owned(), "19.5".to_owned())]
        );
    });
}

#[test]
fn windows_follow_the_zone_and_its_clock_changes() {
    runtime().block_on(async {
        let world = world().await;
        let rows = |query: &'static str| {
            let world = &world;
            async move { values(&read(world, &format!("/v1/meters/tokens/usage?{query}")).await) }
        };
        let pair = |start: &str, value: &str| (start.to_owned(), value.to_owned());
        assert_eq!(
            rows("from=2026-03-28T00:00:00Z&to=2026-04-01T00:00:00Z&window=day&tz=Europe/Berlin").await,
            [
                pair("2026-03-28T23:00:00Z", "15.5"),
                pair("2026-03-29T22:00:00Z", "16")
            ]
        );
        assert_eq!(
            rows("from=2026-03-29T00:00:00Z&to=2026-03-30T00:00:00Z&window=hour").await,
            [
                pair("2026-03-29T00:00:00Z", "3.5"),
                pair("2026-03-29T01:00:00Z", "12"),
                pair("2026-03-29T23:00:00Z", "16")
            ]
        );
        assert_eq!(
            rows("from=2026-01-01T00:00:00Z&to=2026-05-01T00:00:00Z&window=month&tz=Asia/Kolkata").await,
            [pair("2026-02-28T18:30:00Z", "31.5")]
        );
        assert_eq!(
            rows("from=2026-03-29T00:00:00%2B00:00&to=2026-03-29T00:02:00Z&window=minute").await,
            [pair("2026-03-29T00:00:00Z", "1.5")]
        );
    });
}

#[test]
fn pages_follow_each_other_without_gap_or_overlap() {
    runtime().block_on(async {
        let world = world().await;
        let base = format!("/v1/meters/tokens/usage?{DAY}&window=hour&group_by=subject");
        let whole = read(&world, &base).await["data"].as_array().unwrap().clone();
        let (mut pages, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = read(&world, &format!("{base}&limit=2&cursor={cursor}")).await;
            pages.extend(page["data"].as_array().unwrap().clone());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(pages, whole);
        assert_eq!(whole.len(), 5);
    });
}

#[test]
fn csv_and_ndjson_by_accept_or_format() {
    runtime().block_on(async {
        let world = world().await;
        let uri = format!("/v1/meters/tokens/usage?{DAY}&group_by=customer");
        let (_, csv) = get(&world, Scope::Read, &uri, "text/csv").await;
        assert_eq!(csv.lines().next(), Some("start,end,customer,value"));
        assert_eq!(
            csv.lines().nth(1),
            Some("2026-03-29T00:00:00Z,2026-03-30T00:00:00Z,acme,19.5")
        );
        let (_, lines) = get(&world, Scope::Read, &format!("{uri}&format=ndjson"), "text/csv").await;
        assert_eq!(lines.lines().count(), 3);
        let (_, export) = get(&world, Scope::Read, &format!("/v1/export/usage?{DAY}"), "*/*").await;
        assert_eq!(
            export.lines().next(),
            Some("meter,start,end,customer,subject,group,value")
        );
        assert_eq!(export.lines().count(), 1 + 2 * 3);
        let (_, one) = get(
            &world,
            Scope::Read,
            &format!("/v1/export/usage?{DAY}&meter=calls&format=ndjson"),
            "*/*",
        )
        .await;
        let first: Value = serde_json::from_str(one.lines().next().unwrap()).unwrap();
        assert_eq!(
            (&first["meter"], &first["customer"], &first["value"]),
            (&json!("calls"), &json!("acme"), &json!("3"))
        );
    });
}

#[test]
fn wrong_parameters_are_named() {
    runtime().block_on(async {
        let world = world().await;
        for (query, status, pointer) in [
            ("window=hour", 422, "/from"),
            ("from=2026-03-29T00:00:30Z", 422, "/from"),
            ("from=2026-03-29T00:00:00Z&to=2026-03-29T00:00:00Z", 422, "/to"),
            ("from=2026-03-29T00:00:00Z&window=week", 422, "/window"),
            ("from=1970-01-01T00:00:00Z&window=minute", 422, "/window"),
            ("tz=Mars/Base", 422, "/tz"),
            ("group_by=nope", 422, "/group_by"),
            ("filter[nope]=1", 422, "/filter[nope]"),
            ("limit=0", 422, "/limit"),
            ("cursor=x", 422, "/cursor"),
            ("limit=x", 422, "/limit"),
            ("tz=", 422, "/tz"),
            ("group_by=", 422, "/group_by"),
            ("customer=", 422, "/customer"),
            ("subject=a&subject=", 422, "/subject"),
            ("colour=red", 422, "/colour"),
            ("format=csv&limit=5", 422, "/limit"),
            ("format=ndjson&limit=x", 422, "/limit"),
            ("format=ndjson&cursor=x", 422, "/cursor"),
            ("format=csv&cursor=", 422, "/cursor"),
        ] {
            let (got, body) = get(
                &world,
                Scope::Read,
                &format!("/v1/meters/tokens/usage?{query}"),
                "*/*",
            )
            .await;
            assert_eq!(got.as_u16(), status, "{query}: {body}");
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["errors"][0]["pointer"], pointer, "{query}");
        }
        assert_eq!(
            get(&world, Scope::Read, "/v1/meters/nope/usage", "*/*").await.0,
            StatusCode::NOT_FOUND
        );
        for uri in [
            "/v1/meters/tokens/usage",
            "/v1/export/usage",
            "/api/v1/meters/tokens/query",
        ] {
            assert_eq!(
                get(&world, Scope::Ingest, uri, "*/*").await.0,
                StatusCode::FORBIDDEN
            );
        }
    });
}

#[test]
fn without_a_window_the_range_has_its_row_even_where_nothing_happened() {
    runtime().block_on(async {
        let world = World::new(
            2,
            &[
                meter(1, "tokens", Aggregation::Sum),
                meter(2, "peak", Aggregation::Max),
                meter(3, "load", Aggregation::TimeWeightedSum),
            ],
        );
        world.directory.add_customer("acme", &["a1"]);
        let day: i64 = 1_774_742_400;
        world
            .clock
            .set(turnpike_domain::time::Timestamp::from_micros(day * 2_000_000).unwrap());
        world
            .submit(&[Event::new(1, "a1", day, r#"{"v": 3}"#)])
            .await
            .unwrap();
        let rows = async |meter: &str, query: &str| {
            let answer = read(&world, &format!("/v1/meters/{meter}/usage?{query}")).await;
            let row = |row: &Value| (row["customer"].clone(), row["value"].clone());
            answer["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(row)
                .collect::<Vec<_>>()
        };
        let before = "from=2026-03-28T00:00:00Z&to=2026-03-29T00:00:00Z";
        assert_eq!(rows("tokens", before).await, [(Value::Null, json!("0"))]);
        assert_eq!(rows("peak", before).await, [(Value::Null, Value::Null)]);
        assert_eq!(rows("load", before).await, [(Value::Null, Value::Null)]);
        assert_eq!(rows("tokens", &format!("{before}&window=day")).await, []);
        assert_eq!(rows("tokens", &format!("{before}&group_by=customer")).await, []);
        assert_eq!(
            rows("tokens", "subject=nobody").await,
            [(Value::Null, json!("0"))]
        );
        assert_eq!(
            rows("tokens", "customer=zeta&customer=acme&customer=zeta").await,
            [(json!("acme"), json!("3")), (json!("zeta"), json!("0"))]
        );
        assert_eq!(
            rows("tokens", "customer=acme&group_by=subject&to=2026-01-01T00:00:00Z").await,
            []
        );
    });
}

#[test]
fn what_is_accepted_now_is_in_what_is_asked_now() {
    runtime().block_on(async {
        let meters = [
            meter(1, "calls", Aggregation::Count),
            meter(2, "load", Aggregation::TimeWeightedSum),
        ];
        let world = World::new(2, &meters);
        let now: i64 = 1_774_742_400;
        for (id, second, minute_end) in [(1, 0, 60), (2, 59, 60), (3, 60, 120)] {
            let at = turnpike_domain::time::Timestamp::from_micros((now + second) * 1_000_000).unwrap();
            world.clock.set(at);
            world
                .submit(&[Event::new(id, "u", now + second, r#"{"v": 2}"#)])
                .await
                .unwrap();
            let answer = read(&world, "/v1/meters/calls/usage").await;
            let end = turnpike_domain::time::Timestamp::from_micros((now + minute_end) * 1_000_000).unwrap();
            assert_eq!(answer["data"][0]["end"], end.to_string());
            assert_eq!(answer["data"][0]["value"], id.to_string(), "{second}");
            let open = read(&world, "/api/v1/meters/calls/query").await;
            assert_eq!(open["data"][0]["value"], json!(id));
            let (_, export) = get(&world, Scope::Read, "/v1/export/usage?meter=calls", "*/*").await;
            assert!(
                export.lines().nth(1).unwrap().ends_with(&format!(",{id}")),
                "{export}"
            );
            let load = read(&world, "/v1/meters/load/usage").await;
            assert_eq!(
                load["data"][0]["value"],
                (2 * minute_end).to_string(),
                "carried to the end"
            );
            let until = format!("/v1/meters/load/usage?to={}", "2026-03-29T00:01:00Z");
            assert_eq!(read(&world, &until).await["data"][0]["value"], "120");
        }
    });
}

#[test]
fn a_cursor_goes_on_with_its_own_query_only() {
    runtime().block_on(async {
        let world = world().await;
        let base = format!("{DAY}&window=hour&group_by=subject&limit=2");
        let first = read(&world, &format!("/v1/meters/tokens/usage?{base}")).await;
        let cursor = first["next_cursor"].as_str().unwrap();
        let same = format!("limit=3&group_by=subject&window=hour&{DAY}&cursor={cursor}");
        assert_eq!(
            read(&world, &format!("/v1/meters/tokens/usage?{same}")).await["data"]
                .as_array()
                .unwrap()
                .len(),
            3
        );
        for other in [
            format!("/v1/meters/calls/usage?{base}&cursor={cursor}"),
            format!("/v1/meters/tokens/usage?{base}&subject=a1&cursor={cursor}"),
            format!("/v1/meters/tokens/usage?{DAY}&window=minute&group_by=subject&limit=2&cursor={cursor}"),
        ] {
            let (status, body) = get(&world, Scope::Read, &other, "*/*").await;
            assert_eq!(status.as_u16(), 422, "{other}: {body}");
            assert!(body.contains("/cursor"), "{body}");
        }
    });
}
