//! Exports and pages of long ranges: the same rows whichever way they are read, and never all of them in memory.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use axum::body::BodyDataStream;
use common::{Event, TENANT, World, answer, at, meter};
use futures_util::StreamExt as _;
use serde_json::Value;
use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::views::{Row, Views as _};

const MINUTES: i64 = 160;
const SUBJECTS: i64 = 60;
/// Far above what a step may give (20,000 rows of about 150 bytes), far below what all is.
const PART_BYTES_MAX: usize = 3 << 20;

/// The body of a good answer.
async fn body(world: &World, uri: &str) -> BodyDataStream {
    let response = answer(&world.aggregator, uri).await;
    assert_eq!(response.status(), 200, "{uri}");
    response.into_body().into_data_stream()
}

/// The parts of an answer as they come.
async fn parts(world: &World, uri: &str) -> Vec<String> {
    let mut stream = body(world, uri).await;
    let mut parts = Vec::new();
    while let Some(part) = stream.next().await {
        parts.push(String::from_utf8(part.unwrap().to_vec()).unwrap());
    }
    parts
}

/// An event of each subject in each minute; half of them in a checkpoint.
async fn world() -> World {
    let meters = [
        meter(1, "tokens", Aggregation::Sum),
        meter(2, "load", Aggregation::TimeWeightedSum),
    ];
    let world = World::new(2, &meters);
    for minute in 0..MINUTES {
        let events: Vec<_> = (0..SUBJECTS)
            .map(|n| {
                let data = format!(r#"{{"v": {}, "g": "{}"}}"#, minute * 7 + n, n % 3);
                Event::new(
                    format!("{minute}-{n}"),
                    &format!("subject-{n:03}"),
                    minute * 60 + n % 60,
                    data,
                )
            })
            .collect();
        world.submit(&events).await.unwrap();
        if minute == MINUTES / 2 {
            world.aggregator.checkpoint().await.unwrap();
        }
    }
    world.clock.set(at(MINUTES * 60));
    world
}

fn range() -> String {
    format!("from=1970-01-01T00:00:00Z&to={}&window=minute", at(MINUTES * 60))
}

/// All rows of a meter, page by page.
async fn paged(world: &World, meter: &str) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut cursor = String::new();
    loop {
        let uri = format!(
            "/v1/meters/{meter}/usage?{}&group_by=subject&limit=1000&cursor={cursor}",
            range()
        );
        let page: Value = serde_json::from_str(&parts(world, &uri).await.concat()).unwrap();
        rows.extend(page["data"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return rows,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_lines_and_exports_hold_the_same_rows_and_come_in_parts() {
    let world = world().await;
    let mut counts = Vec::new();
    for name in ["tokens", "load"] {
        let pages = paged(&world, name).await;
        let uri = format!("/v1/meters/{name}/usage?{}&group_by=subject&format=", range());
        let lines = parts(&world, &format!("{uri}ndjson")).await;
        let rows: Vec<Value> = lines
            .concat()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(rows.len(), pages.len());
        assert!(rows == pages, "{name}: the lines are not the pages");
        let csv = parts(&world, &format!("{uri}csv")).await;
        assert_eq!(csv.concat().lines().count(), pages.len() + 1);
        for parts in [&lines, &csv] {
            let largest = parts.iter().map(String::len).max().unwrap();
            assert!(
                parts.len() > 4 && largest < PART_BYTES_MAX,
                "{} parts, {largest} bytes",
                parts.len()
            );
        }
        counts.push(pages.len());
    }
    assert_eq!(counts[0] as i64, MINUTES * SUBJECTS);

    let uri = format!("/v1/export/usage?{}&group_by=subject&format=ndjson", range());
    let export = parts(&world, &uri).await.concat();
    let of = |meter: &str| export.lines().filter(|line| line.contains(meter)).count();
    assert_eq!([of(r#""meter":"tokens""#), of(r#""meter":"load""#)], counts[..]);
}

/// OpenMeter's query has the rows of usage, in parts too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openmeters_query_is_sent_as_it_is_read() {
    let world = world().await;
    let of = |size: &str| {
        let to = at(MINUTES * 60);
        format!(
            "/api/v1/meters/tokens/query?from=1970-01-01T00:00:00Z&to={to}&windowSize={size}&groupBy=subject"
        )
    };
    let sent = parts(&world, &of("MINUTE")).await;
    assert!(sent.len() > 4, "{} parts", sent.len());
    let answer: Value = serde_json::from_str(&sent.concat()).unwrap();
    let rows = answer["data"].as_array().unwrap();
    let pages = paged(&world, "tokens").await;
    assert_eq!(rows.len(), pages.len());
    for (row, page) in rows.iter().zip(&pages) {
        assert_eq!(
            (&row["subject"], &row["windowStart"], &row["value"].to_string()),
            (
                &page["subject"],
                &page["start"],
                &page["value"].as_str().unwrap().to_owned()
            )
        );
    }
    let hours: Value = serde_json::from_str(&parts(&world, &of("HOUR")).await.concat()).unwrap();
    assert_eq!(hours["data"].as_array().unwrap().len() as i64, 3 * SUBJECTS);
    let none = "/api/v1/meters/tokens/query?subject=nobody&windowSize=DAY";
    assert_eq!(
        parts(&world, none).await.concat(),
        r#"{"windowSize":"DAY","data":[]}"#
    );
    let bare = "/api/v1/meters/tokens/query?subject=nobody";
    assert_eq!(parts(&world, bare).await.concat(), r#"{"data":[]}"#);
}

/// Makes the last minute of a subject's sum unreadable on the disk.
fn damage_the_last_minute(world: &World) {
    let mut key = vec![1];
    key.extend_from_slice(&TENANT.0.to_be_bytes());
    key.extend_from_slice(&1_u32.to_be_bytes());
    key.extend_from_slice(b"\0subject-000\0\x010\0\x01");
    key.extend_from_slice(&(MINUTES as u32 - 1).to_be_bytes());
    let value = b"no cell".to_vec();
    let views = &world.views[0];
    let (position, meta) = (views.position(), views.meta());
    let rows = vec![Row { key, value }];
    views.begin_checkpoint().unwrap();
    views.finish_checkpoint(position, &rows, meta).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_reads_no_further_than_it_must_and_a_failure_cuts_an_export_off() {
    let mut world = world().await;
    damage_the_last_minute(&world);
    world.crash();
    let uri = format!("/v1/meters/tokens/usage?{}&group_by=subject", range());
    let page = parts(&world, &format!("{uri}&limit=5")).await.concat();
    let page: Value = serde_json::from_str(&page).unwrap();
    assert_eq!(
        page["data"].as_array().unwrap().len(),
        5,
        "it does not come near the damage"
    );
    let mut stream = body(&world, &format!("{uri}&format=ndjson")).await;
    let (mut good, mut failed) = (0, 0);
    while let Some(part) = stream.next().await {
        match part {
            Ok(_) => good += 1,
            Err(_) => failed += 1,
        }
    }
    assert!(good > 1 && failed == 1, "{good} parts, then {failed} failure");
}

/// A meter that is named again has its rows once.
#[tokio::test]
async fn a_meter_is_exported_once_however_often_it_is_named() {
    let world = world().await;
    let once = parts(&world, "/v1/export/usage?meter=tokens").await.concat();
    let twice = parts(&world, "/v1/export/usage?meter=tokens&meter=tokens")
        .await
        .concat();
    assert!(once.lines().count() > 1, "vacuous: {once}");
    assert_eq!(once, twice);
}
