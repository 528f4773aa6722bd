//! Events whose time is moved into the range that a list is asked for.

use std::ops::Range;

use crate::common::{Event, TENANT, World, at, range, runtime};
use turnpike_domain::port::history::{EventQuery, History as _};
use turnpike_domain::port::intake::{Correction, Intake as _};

use crate::{all_events, event, world};

/// The ids of all pages of two events with a time from 8,000 to 10,000 s, with `between` done after each page.
async fn moved_pages(world: &World, between: impl AsyncFn()) -> String {
    let mut query = EventQuery {
        range: range(8_000, 10_000),
        limit: 2,
        ..all_events()
    };
    let mut ids = String::new();
    loop {
        let page = world.aggregator.events(TENANT, query.clone()).await.unwrap();
        ids.extend(page.events.iter().map(|event| event.id.as_str()));
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            return ids;
        }
        between().await;
    }
}

/// An event that was moved into the asked range keeps the place of that amendment, whatever comes behind.
#[test]
fn an_event_that_was_moved_into_the_range_is_on_one_page() {
    runtime().block_on(async {
        let world = world();
        let submit = async |ids: Range<u32>, second: i64| {
            for id in ids {
                let event = Event::new(id, "x", second + i64::from(id), "{}");
                world.submit(&[event]).await.unwrap();
            }
        };
        let amend = async |id: u32, data: Option<&str>, second: Option<i64>| {
            let change = Correction::Amend {
                data: data.map(str::to_owned),
                time: second.map(at),
            };
            let name = event(id, 0).name();
            world.aggregator.correct(name, change, at(10_000)).await.unwrap();
        };
        submit(0..3, 100).await;
        submit(3..5, 9_000).await;
        amend(1, None, Some(9_500)).await;
        submit(5..7, 9_000).await;
        assert_eq!(moved_pages(&world, async || {}).await, "65143");
        let data = async || amend(1, Some("{\"v\":2}"), None).await;
        assert_eq!(
            moved_pages(&world, data).await,
            "65143",
            "its data is amended between"
        );
        let time = async || amend(1, None, Some(9_600)).await;
        assert_eq!(
            moved_pages(&world, time).await,
            "65143",
            "its time is, within the range"
        );
        // Out of the range and in again: it stands where it came in last, once.
        amend(1, None, Some(100)).await;
        assert_eq!(moved_pages(&world, async || {}).await, "6543");
        amend(1, None, Some(9_700)).await;
        submit(7..8, 9_000).await;
        amend(1, Some("{}"), None).await;
        assert_eq!(moved_pages(&world, async || {}).await, "716543");
        let void = event(1, 0).name();
        world
            .aggregator
            .correct(void, Correction::Void, at(10_000))
            .await
            .unwrap();
        assert_eq!(moved_pages(&world, async || {}).await, "716543");
        // One that began in the range keeps its first place also by way of outside.
        amend(3, None, Some(100)).await;
        amend(3, None, Some(9_800)).await;
        assert_eq!(
            moved_pages(&world, async || amend(3, Some("{}"), None).await).await,
            "716543"
        );
    });
}
