//! What becomes of a batch when a part of it cannot be written: the answer says it, and a batch that is all or nothing
//! leaves nothing.

#![cfg(test)]

mod common;

use std::sync::Arc;

use common::{Event, KEY, TENANT, World, meter, quantity, request, runtime};
use turnpike_domain::event::EventBatch;
use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::intake::{Intake as _, Outcome};
use turnpike_domain::port::usage::UsageReader as _;
use turnpike_domain::time::TimeRange;

fn events(ids: std::ops::Range<u32>) -> Vec<Event> {
    ids.map(|id| Event::new(id, "c", 60, "{}")).collect()
}

fn batch_of(events: &[Event], all_or_nothing: bool) -> Arc<EventBatch> {
    let mut batch = EventBatch::default();
    for event in events {
        batch.push(&KEY, &event.record());
    }
    if all_or_nothing {
        batch.keep_all_or_nothing();
    }
    Arc::new(batch)
}

fn accepted(outcomes: &[Outcome]) -> usize {
    let is_accepted = |outcome: &&Outcome| matches!(outcome, Outcome::Accepted(_));
    outcomes.iter().filter(is_accepted).count()
}

#[test]
fn a_batch_that_one_partition_cannot_write_says_what_of_it_counts() {
    runtime().block_on(async {
        let world = World::new(3, &[meter(1, "count", Aggregation::Count)]);
        world.log.refuse(Some(1));
        let sent: Vec<Event> = events(0..60);
        let problem = world.aggregator.submit(batch_of(&sent, false)).await.unwrap_err();
        let kept = world.sum("count", &["c"]).await.unwrap();
        let kept: usize = kept.to_string().parse().unwrap();
        assert!(kept > 0 && kept < 60, "vacuous: {kept}");
        let told = format!("{kept} of the 60 events were accepted");
        assert!(problem.detail.contains(&told), "{}", problem.detail);
        assert!(problem.retry_after_s.is_some());
        world.log.refuse(None);
        let outcomes = world.aggregator.submit(batch_of(&sent, false)).await.unwrap();
        assert_eq!(accepted(&outcomes), 60 - kept);
        assert_eq!(world.sum("count", &["c"]).await, Some(quantity("60")));
    });
}

#[test]
fn a_batch_that_is_all_or_nothing_is_kept_by_all_partitions_or_by_none() {
    runtime().block_on(async {
        let mut world = World::new(3, &[meter(1, "count", Aggregation::Count)]);
        for refused in 0..3 {
            world.log.refuse(Some(refused));
            let problem = world
                .aggregator
                .submit(batch_of(&events(0..60), true))
                .await
                .unwrap_err();
            assert!(!problem.detail.contains("accepted"), "{}", problem.detail);
            assert_eq!(world.sum("count", &["c"]).await, Some(quantity("0")));
        }
        world.log.refuse(None);
        let outcomes = world
            .aggregator
            .submit(batch_of(&events(0..60), true))
            .await
            .unwrap();
        assert_eq!(accepted(&outcomes), 60);
        let outcomes = world
            .aggregator
            .submit(batch_of(&events(30..90), true))
            .await
            .unwrap();
        assert_eq!(
            accepted(&outcomes),
            30,
            "what is known is a duplicate, and the rest is taken"
        );
        world.crash();
        assert_eq!(world.sum("count", &["c"]).await, Some(quantity("90")));
    });
}

#[test]
fn batches_that_are_all_or_nothing_never_wait_for_each_other_for_ever() {
    runtime().block_on(async {
        let world = World::new(4, &[meter(1, "count", Aggregation::Count)]);
        let mut calls = Vec::new();
        for round in 0..50u32 {
            let aggregator = Arc::clone(&world.aggregator);
            let batch = batch_of(&events(round * 10..round * 10 + 20), round % 3 != 0);
            calls.push(tokio::spawn(async move { aggregator.submit(batch).await }));
            let aggregator = Arc::clone(&world.aggregator);
            let total = request("count", &["c"], TimeRange::ALL);
            calls.push(tokio::spawn(async move {
                aggregator.totals(TENANT, vec![total], None).await?;
                Ok(Vec::new())
            }));
        }
        let mut taken = 0;
        for call in calls {
            let outcomes = tokio::time::timeout(std::time::Duration::from_secs(20), call).await;
            taken += accepted(&outcomes.expect("an answer").unwrap().unwrap());
        }
        assert_eq!(taken, 510);
        assert_eq!(world.sum("count", &["c"]).await, Some(quantity("510")));
    });
}
