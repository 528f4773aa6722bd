//! Duplicates, conflicts, and what is refused: full queues, a full log, a poisoned one.

use std::sync::Arc;

use crate::common::{Event, KEY, TENANT, World, at, meter, quantity, request, runtime};
use turnpike_aggregator::Options;
use turnpike_domain::event::EventBatch;
use turnpike_domain::identity::TenantId;
use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::history::History as _;
use turnpike_domain::port::intake::{Correction, Intake as _, Outcome};
use turnpike_domain::port::log::EventLog as _;
use turnpike_domain::port::usage::{NoListener, UsageReader as _};
use turnpike_domain::problem::Code;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::record::{Record, decode};
use turnpike_domain::time::TimeRange;

use crate::{all_events, event, events, world};

#[test]
fn duplicates_and_conflicts_in_one_batch_and_after_corrections() {
    runtime().block_on(async {
        let world = world();
        let other = Event {
            data: r#"{"v": 9}"#.to_owned(),
            ..event(1, 1)
        };
        let spelled = Event {
            data: r#"{ "v" : 1.0 }"#.to_owned(),
            ..event(1, 1)
        };
        let batch = [
            event(1, 1),
            event(1, 1),
            other.clone(),
            spelled.clone(),
            event(2, 5),
        ];
        let outcomes = world.submit(&batch).await.unwrap();
        let Outcome::Accepted(first) = outcomes[0] else {
            panic!("{outcomes:?}")
        };
        assert_eq!(
            outcomes[1..4],
            [
                Outcome::Duplicate(first),
                Outcome::Conflict(first),
                Outcome::Duplicate(first)
            ]
        );
        assert_eq!(world.sum("sum", &["c"]).await, Some(quantity("6")));

        let amend = Correction::Amend {
            data: Some(r#"{"v": 9}"#.to_owned()),
            time: None,
        };
        let amended = world
            .aggregator
            .correct(event(1, 1).name(), amend.clone(), at(61))
            .await
            .unwrap()
            .unwrap();
        let again = world
            .aggregator
            .correct(event(1, 1).name(), amend, at(62))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(amended.position, again.position, "a repeat writes nothing");
        assert_eq!(world.sum("sum", &["c"]).await, Some(quantity("14")));
        let outcomes = world.submit(&[event(1, 1), other, spelled]).await.unwrap();
        assert!(
            matches!(
                outcomes[..],
                [Outcome::Duplicate(_), Outcome::Conflict(_), Outcome::Duplicate(_)]
            ),
            "{outcomes:?}"
        );

        let void = || {
            world
                .aggregator
                .correct(event(1, 1).name(), Correction::Void, at(63))
        };
        let voided = void().await.unwrap().unwrap();
        assert_eq!(void().await.unwrap().unwrap().position, voided.position);
        assert!(matches!(decode(&voided.record), Ok(Record::Void { .. })));
        assert_eq!(world.sum("sum", &["c"]).await, Some(quantity("5")));
        assert!(matches!(
            world.submit(&[event(1, 1)]).await.unwrap()[..],
            [Outcome::Duplicate(_)]
        ));
        assert_eq!(
            world
                .aggregator
                .correct(event(99, 1).name(), Correction::Void, at(64))
                .await,
            Ok(None)
        );
    });
}

#[test]
fn a_full_queue_keeps_nothing_of_a_batch() {
    runtime().block_on(async {
        let options = Options {
            queue_records_max: 20,
            ..Options::default()
        };
        let meters = [meter(2, "count", Aggregation::Count)];
        let world = World::with(2, &meters, options, Arc::new(NoListener));
        // A cut that does not end holds both owners, so the queues fill.
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let (stopped, standing) = tokio::sync::oneshot::channel();
        let at_cut = Box::new(move || {
            stopped.send(()).unwrap();
            wait.recv().unwrap();
        });
        let aggregator = Arc::clone(&world.aggregator);
        let held = tokio::spawn(async move { aggregator.totals(TENANT, Vec::new(), Some(at_cut)).await });
        standing.await.unwrap();
        let mut calls = Vec::new();
        for call in 0..20u32 {
            let mut batch = EventBatch::default();
            for event in events(call * 6..call * 6 + 6) {
                batch.push(&KEY, &event.record());
            }
            let aggregator = Arc::clone(&world.aggregator);
            calls.push(tokio::spawn(
                async move { aggregator.submit(Arc::new(batch)).await },
            ));
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        go_on.send(()).unwrap();
        held.await.unwrap().unwrap();
        let (mut taken, mut refused) = (0, 0);
        for call in calls {
            match call.await.unwrap() {
                Ok(outcomes) => taken += outcomes.len() as i64,
                Err(problem) => {
                    assert_eq!((problem.code, problem.retry_after_s), (Code::Overloaded, Some(1)));
                    // Of a stream, what was sent before may have been kept.
                    let said = problem.detail.ends_with("; what found no room was not kept");
                    assert!(said, "{}", problem.detail);
                    refused += 1;
                }
            }
        }
        assert!(refused > 0 && taken > 0, "{refused} refused, {taken} taken");
        assert_eq!(
            world.sum("count", &["c"]).await,
            Some(Quantity::from_units(taken)),
            "refused batches left nothing"
        );
    });
}

#[test]
fn a_full_log_refuses_and_a_poisoned_one_acknowledges_nothing() {
    runtime().block_on(async {
        let mut world = world();
        world.submit(&events(0..10)).await.unwrap();
        world.log.set_full(true);
        assert_eq!(
            world.submit(&events(5..15)).await.unwrap_err().code,
            Code::StorageFull
        );
        let void = world
            .aggregator
            .correct(event(1, 1).name(), Correction::Void, at(0))
            .await;
        assert_eq!(void.unwrap_err().code, Code::StorageFull);
        assert_eq!(
            world.sum("count", &["c"]).await,
            Some(quantity("10")),
            "nothing half done"
        );
        world.log.set_full(false);
        assert!(
            world.submit(&events(10..15)).await.is_ok(),
            "accepts again by itself"
        );

        world.log.hold(true);
        let aggregator = Arc::clone(&world.aggregator);
        let mut batch = EventBatch::default();
        for event in events(20..25) {
            batch.push(&KEY, &event.record());
        }
        let waiting = tokio::spawn(async move { aggregator.submit(Arc::new(batch)).await });
        while world.log.end() == world.log.durable() {
            tokio::task::yield_now().await;
        }
        world.log.poison();
        assert_eq!(waiting.await.unwrap().unwrap_err().code, Code::StoragePoisoned);
        assert_eq!(
            world.submit(&events(30..31)).await.unwrap_err().code,
            Code::StoragePoisoned
        );
        let total = world.total(request("count", &["c"], TimeRange::ALL)).await;
        assert_eq!(
            total.unwrap_err().code,
            Code::StoragePoisoned,
            "no answer rests on what is not durable"
        );
        world.crash();
        assert_eq!(world.sum("count", &["c"]).await, Some(quantity("15")));
    });
}

#[test]
fn an_answer_waits_for_the_events_group_even_for_duplicates() {
    runtime().block_on(async {
        let world = world();
        world.log.hold(true);
        let submit = |event: Event| {
            let aggregator = Arc::clone(&world.aggregator);
            tokio::spawn(async move {
                let mut batch = EventBatch::default();
                batch.push(&KEY, &event.record());
                aggregator.submit(Arc::new(batch)).await
            })
        };
        let calls = [submit(event(1, 1)), submit(event(1, 1)), submit(event(1, 2))];
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(calls.iter().all(|call| !call.is_finished()));
        world.log.hold(false);
        for call in calls {
            call.await.unwrap().unwrap();
        }
    });
}

#[test]
fn tenants_never_meet() {
    runtime().block_on(async {
        let world = world();
        let other = TenantId(2);
        world.directory.set(other, &[meter(11, "sum", Aggregation::Sum)]);
        use turnpike_domain::port::directory::{DirectoryChange, DirectoryListener as _};
        world.aggregator.changed(&DirectoryChange::Catalog(other));
        let theirs = Event {
            tenant: other,
            ..event(1, 100)
        };
        let outcomes = world.submit(&[event(1, 1), theirs.clone()]).await.unwrap();
        assert!(
            outcomes
                .iter()
                .all(|outcome| matches!(outcome, Outcome::Accepted(_))),
            "the same id is another event"
        );
        world.aggregator.checkpoint().await.unwrap();
        assert_eq!(world.sum("sum", &["c"]).await, Some(quantity("1")));
        let totals = world
            .aggregator
            .totals(other, vec![request("sum", &["c"], TimeRange::ALL)], None)
            .await
            .unwrap();
        assert_eq!(totals.rows[0][0].value, Some(quantity("100")));
        let missing = world
            .aggregator
            .totals(other, vec![request("count", &["c"], TimeRange::ALL)], None)
            .await;
        assert_eq!(missing.unwrap_err().code, Code::NotFound);
        let page = world.aggregator.events(other, all_events()).await.unwrap();
        assert_eq!(page.events.len(), 1);
    });
}
