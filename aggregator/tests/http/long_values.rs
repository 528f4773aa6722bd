//! Pages of groups with long values.

use serde_json::{Value, json};
use turnpike_domain::identity::Scope;
use turnpike_domain::meter::{Aggregation, Meter};
use turnpike_domain::time::Timestamp;

use super::common::{Event, World, meter, runtime};
use super::{get, read};

const URI: &str = "/v1/meters/long/usage?group_by=a,b,c,d,e,f&limit=2";

/// Events with six dimensions of 2,048 bytes, of which the last ends with the event's number.
async fn long_values(world: &World, filling: &str) {
    let names = ["a", "b", "c", "d", "e", "f"];
    world.declare(&[Meter {
        group_by: names
            .iter()
            .map(|name| ((*name).to_owned(), format!("$.{name}")))
            .collect(),
        ..meter(1, "long", Aggregation::Count)
    }]);
    let event = |id: u32| {
        let mut data: Value = names.iter().map(|name| (*name, filling.repeat(2_048))).collect();
        data["f"] = json!(format!("{}{id:02}", filling.repeat(2_046)));
        Event::new(id, "s", 60, data)
    };
    let events: Vec<_> = (0..7).map(event).collect();
    world.submit(&events).await.unwrap();
}

fn of_event(row: &Value) -> u32 {
    let last = row["group"]["f"].as_str().unwrap();
    last[last.len() - 2..].parse().unwrap()
}

#[test]
fn cursors_stay_short_and_pages_follow_each_other() {
    runtime().block_on(async {
        for filling in ["x", "\0"] {
            let world = World::new(2, &[]);
            world.clock.set(Timestamp::parse("2026-04-01T00:00:00Z").unwrap());
            long_values(&world, filling).await;
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = read(&world, &format!("{URI}&cursor={cursor}")).await;
                let rows = page["data"].as_array().unwrap();
                assert!(rows.len() <= 2);
                seen.extend(rows.iter().map(of_event));
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = next.to_owned(),
                    None => break,
                }
                assert!(cursor.len() < 4_096, "{} characters", cursor.len());
            }
            assert_eq!(seen, (0..7).collect::<Vec<_>>(), "{filling:?}");
        }
    });
}

#[test]
fn a_cursor_behind_a_row_that_is_gone_says_so() {
    runtime().block_on(async {
        let world = World::new(2, &[]);
        world.clock.set(Timestamp::parse("2026-04-01T00:00:00Z").unwrap());
        long_values(&world, "x").await;
        let page = read(&world, URI).await;
        let cursor = page["next_cursor"].as_str().unwrap();
        let other = World::new(2, &[]);
        other.clock.set(Timestamp::parse("2026-04-01T00:00:00Z").unwrap());
        long_values(&other, "y").await;
        let (status, body) = get(&other, Scope::Read, &format!("{URI}&cursor={cursor}"), "*/*").await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (status.as_u16(), &problem["errors"][0]["pointer"]),
            (422, &json!("/cursor"))
        );
    });
}
