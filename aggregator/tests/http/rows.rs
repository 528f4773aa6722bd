//! Which rows there are, and over which windows.

use axum::http::StatusCode;
use serde_json::{Value, json};
use turnpike_domain::identity::Scope;
use turnpike_domain::meter::Aggregation;

use crate::common::{Event, World, meter, runtime};
use crate::{DAY, get, read, values, world};

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
