//! Events whose time is moved into the range that a list is asked for.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use crate::common::{Event, TENANT, World, at, meter, range, runtime};
use turnpike_aggregator::Options;
use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::history::{EventQuery, History as _};
use turnpike_domain::port::intake::{Correction, Intake as _};
use turnpike_domain::port::usage::NoListener;

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
        let away = async || {
            amend(1, None, Some(100)).await;
            amend(1, None, Some(9_650)).await;
        };
        assert_eq!(
            moved_pages(&world, away).await,
            "65143",
            "it is moved away and in again between"
        );
        assert_eq!(moved_pages(&world, async || {}).await, "16543");
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

/// What has to be looked up to tell an event's place is not looked up for each event anew.
#[test]
fn a_list_of_moved_events_reads_the_log_once_for_a_page() {
    runtime().block_on(async {
        let options = Options {
            events_looked_bytes_max: 100_000,
            ..Options::default()
        };
        let meters = [meter(1, "sum", Aggregation::Sum)];
        let world = World::with(2, &meters, options, Arc::new(NoListener));
        for id in 0..200 {
            world.submit(&[Event::new(id, "x", 100, "{}")]).await.unwrap();
        }
        for round in 0..3 {
            for id in 0..200 {
                let change = Correction::Amend {
                    data: Some(format!("{{\"v\":{round}}}")),
                    time: Some(at(9_000 + round)),
                };
                let name = event(id, 0).name();
                world.aggregator.correct(name, change, at(10_000)).await.unwrap();
            }
        }
        let (mut query, mut pages, mut ids) = (all_events(), 0, BTreeSet::new());
        (query.range, query.limit) = (range(8_000, 10_000), 50);
        loop {
            let page = world.aggregator.events(TENANT, query.clone()).await.unwrap();
            pages += 1;
            for event in page.events {
                assert!(ids.insert(event.id), "shown twice");
            }
            query.cursor = page.next_cursor;
            if query.cursor.is_none() {
                break;
            }
        }
        assert_eq!(ids.len(), 200);
        assert!(pages <= 8, "{pages} pages");
    });
}
