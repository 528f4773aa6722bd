//! Rows that are beyond all numbers.

use serde_json::{Value, json};
use turnpike_domain::identity::Scope;

use super::common::{Event, World, runtime};
use super::{DAY, get, world};

/// The world with an hour of `g1` whose sum is greater than all numbers.
async fn world_with_an_overflow() -> World {
    let world = world().await;
    let start = turnpike_domain::time::Timestamp::parse("2026-03-29T05:00:00Z").unwrap();
    let second = start.micros() / 1_000_000;
    let most = "9".repeat(26);
    for (id, value) in [(91, most.as_str()), (92, "1")] {
        let event = Event::new(id, "g1", second, format!(r#"{{"v": "{value}"}}"#));
        world.submit(&[event]).await.unwrap();
    }
    world
}

#[test]
fn a_row_that_is_beyond_all_numbers_is_named() {
    runtime().block_on(async {
        let world = world_with_an_overflow().await;
        for uri in [
            format!("/v1/meters/tokens/usage?group_by=subject&{DAY}&window=hour"),
            "/api/v1/meters/tokens/query?groupBy=subject&from=2026-03-29T00:00:00Z&windowSize=HOUR"
                .to_owned(),
            // Behind windows that have no row.
            "/api/v1/meters/tokens/query?groupBy=subject&from=2026-01-01T00:00:00Z&windowSize=HOUR"
                .to_owned(),
        ] {
            let (status, body) = get(&world, Scope::Read, &uri, "*/*").await;
            let body: Value = serde_json::from_str(&body).unwrap_or_default();
            assert_eq!(
                (status.as_u16(), &body["code"]),
                (422, &json!("overflow")),
                "{uri}: {body}"
            );
            let detail = body["detail"].as_str().unwrap();
            for told in [
                "\"tokens\"",
                "from 2026-03-29T05:00:00Z to 2026-03-29T06:00:00Z",
                "[\"g1\"]",
            ] {
                assert!(detail.contains(told), "{told} is missing: {detail}");
            }
        }
    });
}

/// What has all rows tells in the one row that it has no value, and has the others.
#[test]
fn a_row_beyond_all_numbers_is_told_where_all_rows_are_sent() {
    runtime().block_on(async {
        let world = world_with_an_overflow().await;
        let export = format!("/v1/export/usage?group_by=subject&{DAY}&window=hour");
        let usage = format!("/v1/meters/tokens/usage?group_by=subject&{DAY}&window=hour");
        for (uri, rows) in [(&export, 12), (&usage, 6)] {
            let (status, body) = get(&world, Scope::Read, &format!("{uri}&format=ndjson"), "*/*").await;
            assert_eq!(status.as_u16(), 200, "{body}");
            let lines: Vec<Value> = body
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            let (broken, good): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["value"].is_null());
            assert_eq!((broken.len(), good.len()), (1, rows - 1), "{body}");
            assert_eq!(
                (&broken[0]["subject"], &broken[0]["start"], &broken[0]["error"]),
                (&json!("g1"), &json!("2026-03-29T05:00:00Z"), &json!("overflow"))
            );
            assert!(good.iter().all(|line| line.get("error").is_none()), "{body}");
            let (_, csv) = get(&world, Scope::Read, &format!("{uri}&format=csv"), "*/*").await;
            let broken: Vec<_> = csv.lines().filter(|line| line.ends_with(",overflow")).collect();
            assert_eq!((broken.len(), csv.lines().count()), (1, rows + 1), "{csv}");
            assert!(
                broken[0].contains("2026-03-29T05:00:00Z") && broken[0].contains("g1"),
                "{csv}"
            );
        }
    });
}
