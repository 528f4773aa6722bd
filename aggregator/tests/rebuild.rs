//! What a rebuild calls a difference, and what not.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use common::{Event, KEY, World, meter};
use turnpike_aggregator::rebuild::{self, Comparison};
use turnpike_domain::identity::EventName;
use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::views::{IdEntry, Views};
use turnpike_domain::record::Position;

async fn world() -> World {
    let world = World::new(
        2,
        &[
            meter(1, "kept", Aggregation::Count),
            meter(2, "gone", Aggregation::Max),
        ],
    );
    let events: Vec<_> = (0..40)
        .map(|n| Event::new(n, &format!("subject-{}", n % 3), n, r#"{"v": 5}"#))
        .collect();
    world.submit(&events).await.unwrap();
    world.aggregator.checkpoint().await.unwrap();
    world
}

async fn compared(world: &World) -> Comparison {
    let derived = world.derive().await;
    rebuild::compare(&world.shared_views(), &derived, world.directory.as_ref()).unwrap()
}

#[tokio::test]
async fn rows_of_a_deleted_meter_are_no_difference() {
    let world = world().await;
    let before = compared(&world).await;
    assert_eq!((before.different, before.ids), (0, (40, 40)));
    world.declare(&[meter(1, "kept", Aggregation::Count)]);
    world.aggregator.checkpoint().await.unwrap();
    let after = compared(&world).await;
    assert_eq!((after.different, &after.named), (0, &Vec::new()));
    assert!(
        after.rows.0 < before.rows.0 && after.rows.0 == after.rows.1,
        "{:?}",
        after.rows
    );
}

/// Changes what is remembered of a name behind the engine's back.
fn tamper(world: &World, name: EventName, change: impl Fn(&mut IdEntry)) {
    let known = |views: &&Arc<dyn Views>| views.probe(&[name]).unwrap()[0].is_some();
    let all = world.shared_views();
    let views = all.iter().find(known).unwrap_or(&all[0]);
    let mut entry = views.probe(&[name]).unwrap()[0].unwrap_or(IdEntry {
        digest: 1,
        position: Position(1),
    });
    change(&mut entry);
    views.remember(&[(name, entry)]).unwrap();
    views.begin_checkpoint().unwrap();
    let (position, meta) = (views.position(), views.meta());
    views.finish_checkpoint(position, &Vec::new(), meta).unwrap();
}

#[tokio::test]
async fn an_id_that_is_not_what_the_log_says_is_named() {
    let name = Event::new(7, "", 0, "").name();
    let changes: [fn(&mut IdEntry); 2] = [|entry| entry.digest ^= 1, |entry| entry.position.0 += 1];
    for change in changes {
        let world = world().await;
        tamper(&world, name, change);
        let found = compared(&world).await;
        assert_eq!((found.different, found.named.len()), (1, 1));
        let (was, is) = (
            found.named[0].first.clone().unwrap(),
            found.named[0].second.clone().unwrap(),
        );
        let text = format!("{:032x}", name.0);
        assert!(
            was.contains(&text) && is.contains(&text) && was != is,
            "{was} {is}"
        );
    }
    let world = world().await;
    let stranger = KEY.name(common::TENANT, "s", "never sent");
    tamper(&world, stranger, |_| {});
    let found = compared(&world).await;
    assert_eq!((found.different, found.ids), (1, (41, 40)));
    assert_eq!(found.named[0].second, None, "the log knows nothing of it");
}
