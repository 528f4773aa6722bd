//! Pages of groups with long values.

use serde_json::{Value, json};
use turnpike_domain::identity::Scope;
use turnpike_domain::meter::{Aggregation, Meter};
use turnpike_domain::time::Timestamp;

use super::common::{Event, World, meter, runtime};
use super::{get, read};

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

#[test]
fn cursors_stay_short_and_pages_follow_each_other() {
    runtime().block_on(async {
        for filling in ["x", "\0"] {
            let world = long_values(&DIMENSIONS, filling, 7).await;
            assert_eq!(
                in_pages(&world, &[2]).await,
                (0..7).collect::<Vec<_>>(),
                "{filling:?}"
            );
        }
        // The row behind which the third page begins is not among the first that are looked through.
        let world = long_values(&["a", "f"], "x", 1_090).await;
        let seen = in_pages(&world, &[1_000, 50]).await;
        assert_eq!(seen, (0..1_090).collect::<Vec<_>>());
    });
}

#[test]
fn a_cursor_behind_a_row_that_is_gone_says_so() {
    runtime().block_on(async {
        let page = read(&long_values(&DIMENSIONS, "x", 7).await, &format!("{URI}&limit=2")).await;
        let cursor = page["next_cursor"].as_str().unwrap();
        let other = long_values(&DIMENSIONS, "y", 7).await;
        let (status, body) = get(&other, Scope::Read, &format!("{URI}&cursor={cursor}"), "*/*").await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (status.as_u16(), &problem["errors"][0]["pointer"]),
            (422, &json!("/cursor"))
        );
    });
}
