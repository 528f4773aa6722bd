//! Pages of groups with long values.

use serde_json::{Value, json};
use turnpike_domain::meter::{Aggregation, Meter};
use turnpike_domain::port::intake::{Correction, Intake as _};
use turnpike_domain::time::Timestamp;

use super::common::{Event, KEY, TENANT, World, at, meter, runtime};
use super::read;

const URI: &str = "/v1/meters/long/usage?group_by=a,b,c,d,e,f";

const DIMENSIONS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// So many events with values of 2,048 bytes in the dimensions of `names`; that of `f` ends with the event's number.
async fn long_values(names: &[&str], filling: &str, events: u32) -> World {
    let world = World::new(2, &[]);
    world.clock.set(Timestamp::parse("2026-04-01T00:00:00Z").unwrap());
    world.declare(&[Meter {
        group_by: DIMENSIONS
            .iter()
            .map(|name| ((*name).to_owned(), format!("$.{name}")))
            .collect(),
        ..meter(1, "long", Aggregation::Count)
    }]);
    let event = |id: u32| {
        let mut data: Value = names.iter().map(|name| (*name, filling.repeat(2_048))).collect();
        data["f"] = json!(format!("{}{id:04}", filling.repeat(2_044)));
        Event::new(id, "s", 60, data)
    };
    let events: Vec<_> = (0..events).map(event).collect();
    world.submit(&events).await.unwrap();
    world
}

fn of_event(row: &Value) -> u32 {
    let last = row["group"]["f"].as_str().unwrap();
    last[last.len() - 4..].parse().unwrap()
}

/// The numbers of all events, in pages of `limits`, the last of them over and over.
async fn in_pages(world: &World, limits: &[usize]) -> Vec<u32> {
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for limit in limits.iter().chain(std::iter::repeat(&limits[limits.len() - 1])) {
        let page = read(world, &format!("{URI}&limit={limit}&cursor={cursor}")).await;
        let rows = page["data"].as_array().unwrap();
        assert!(rows.len() <= *limit);
        seen.extend(rows.iter().map(of_event));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
        assert!(cursor.len() < 4_096, "{} characters", cursor.len());
    }
    seen
}

fn sorted(mut events: Vec<u32>) -> Vec<u32> {
    events.sort_unstable();
    events
}

#[test]
fn cursors_stay_short_and_pages_follow_each_other() {
    runtime().block_on(async {
        for filling in ["x", "\0"] {
            let world = long_values(&DIMENSIONS, filling, 7).await;
            let seen = in_pages(&world, &[2]).await;
            assert_eq!(seen, in_pages(&world, &[1_000]).await, "{filling:?}");
            assert_eq!(sorted(seen), (0..7).collect::<Vec<_>>(), "{filling:?}");
        }
        let world = long_values(&["a", "f"], "x", 1_090).await;
        let seen = in_pages(&world, &[1_000, 50]).await;
        assert_eq!(sorted(seen), (0..1_090).collect::<Vec<_>>());
    });
}

/// A cursor is a place in the order of rows, whether or not the row that it stands behind is still there.
#[test]
fn a_cursor_goes_on_behind_a_row_that_is_gone() {
    runtime().block_on(async {
        for filling in ["x", ""] {
            let world = long_values(&DIMENSIONS, filling, 9).await;
            let page = read(&world, &format!("{URI}&limit=4")).await;
            let first: Vec<_> = page["data"].as_array().unwrap().iter().map(of_event).collect();
            let cursor = page["next_cursor"].as_str().unwrap();
            // The row that it stands behind, and one before it.
            for id in [first[3], first[1]] {
                let name = KEY.name(TENANT, "s", &id.to_string());
                let voided = world.aggregator.correct(name, Correction::Void, at(120));
                assert!(voided.await.unwrap().is_some());
            }
            let rest = read(&world, &format!("{URI}&limit=4&cursor={cursor}")).await;
            let next = rest["next_cursor"].as_str().unwrap();
            let last = read(&world, &format!("{URI}&limit=4&cursor={next}")).await;
            assert_eq!(last["next_cursor"], Value::Null);
            let pages = [&page, &rest, &last];
            let rows = pages.iter().flat_map(|page| page["data"].as_array().unwrap());
            assert_eq!(
                sorted(rows.map(of_event).collect()),
                (0..9).collect::<Vec<_>>(),
                "{filling:?}"
            );
        }
    });
}
