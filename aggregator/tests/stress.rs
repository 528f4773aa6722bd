//! Reading while everything moves: writes, checkpoints that finish and fail, new meters, cuts.

#![cfg(test)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use common::{Event, KEY, TENANT, World, meter, quantity, request, runtime};
use parking_lot::Mutex;
use turnpike_aggregator::{Aggregator, Options};
use turnpike_domain::event::EventBatch;
use turnpike_domain::meter::{Aggregation, Meter};
use turnpike_domain::port::history::History as _;
use turnpike_domain::port::intake::{Correction, Intake as _};
use turnpike_domain::port::usage::{NoListener, UsageChange, UsageListener, UsageReader as _};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::TimeRange;

const BATCH: i64 = 20;

fn options() -> Options {
    // A checkpoint every few batches, so that readers meet every state of one.
    Options {
        checkpoint_records: 64,
        backfill_blocks: 1,
        ..Options::default()
    }
}

fn meters() -> Vec<Meter> {
    vec![
        meter(1, "count", Aggregation::Count),
        meter(2, "sum", Aggregation::Sum),
        meter(3, "max", Aggregation::Max),
    ]
}

async fn submit(aggregator: &Aggregator, number: i64) {
    let mut batch = EventBatch::default();
    for at in 0..BATCH {
        let id = number * BATCH + at;
        let event = Event::new(id, &format!("c{}", id % 3), id * 7 % 100_000, r#"{"v": 1}"#);
        batch.push(&KEY, &event.record());
    }
    aggregator.submit(Arc::new(batch)).await.unwrap();
}

async fn read(aggregator: &Aggregator, meters: &[&str]) -> Vec<i64> {
    let requests = meters
        .iter()
        .map(|key| request(key, &["c0", "c1", "c2"], TimeRange::ALL))
        .collect();
    let totals = aggregator.totals(TENANT, requests, None).await.unwrap();
    let units = |value: Option<Quantity>| (value.unwrap_or_default().parts() / quantity("1").parts()) as i64;
    totals.rows.iter().map(|rows| units(rows[0].value)).collect()
}

#[test]
fn a_reader_never_meets_a_gap_or_a_double() {
    runtime().block_on(async {
        let world = World::with(3, &meters(), options(), Arc::new(NoListener));
        let (sent, acknowledged, done) = (
            Arc::new(AtomicI64::new(0)),
            Arc::new(AtomicI64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let mut writers = Vec::new();
        for writer in 0..4 {
            let (aggregator, sent, acknowledged) = (
                Arc::clone(&world.aggregator),
                Arc::clone(&sent),
                Arc::clone(&acknowledged),
            );
            writers.push(tokio::spawn(async move {
                for number in 0..60 {
                    sent.fetch_add(BATCH, Ordering::SeqCst);
                    submit(&aggregator, writer * 60 + number).await;
                    acknowledged.fetch_add(BATCH, Ordering::SeqCst);
                }
            }));
        }
        let reader = {
            let (aggregator, done) = (Arc::clone(&world.aggregator), Arc::clone(&done));
            tokio::spawn(async move {
                let mut reads = 0;
                while !done.load(Ordering::SeqCst) {
                    let low = acknowledged.load(Ordering::SeqCst);
                    let found = read(&aggregator, &["count", "sum", "count"]).await;
                    let high = sent.load(Ordering::SeqCst);
                    assert!(
                        found[0] >= low && found[0] <= high,
                        "{low} <= {found:?} <= {high}"
                    );
                    assert!(found.iter().all(|one| *one == found[0]), "one cut: {found:?}");
                    reads += 1;
                }
                reads
            })
        };
        for writer in writers {
            writer.await.unwrap();
        }
        done.store(true, Ordering::SeqCst);
        assert!(
            reader.await.unwrap() > 5,
            "the reader read while the writers wrote"
        );
        assert_eq!(
            read(&world.aggregator, &["count", "sum", "max"]).await,
            [4 * 60 * BATCH, 4 * 60 * BATCH, 1]
        );
        use turnpike_domain::port::views::Views as _;
        assert!(
            world.views.iter().all(|views| views.position().0 > 0),
            "checkpoints were written meanwhile"
        );
    });
}

/// A slot as the quota engine keeps it: registered at the cut, the base added later.
#[derive(Default)]
struct Slot {
    registered: AtomicBool,
    since: Mutex<Quantity>,
}

impl UsageListener for Slot {
    fn applied(&self, changes: &[UsageChange<'_>]) {
        if self.registered.load(Ordering::SeqCst) {
            for change in changes.iter().filter(|change| change.meter.0 == 2) {
                let mut since = self.since.lock();
                *since = since.checked_add(change.amount).unwrap();
            }
        }
    }
}

#[test]
fn a_slot_made_at_a_cut_misses_nothing_and_counts_nothing_twice() {
    runtime().block_on(async {
        for round in 0..10 {
            let slot = Arc::new(Slot::default());
            let world = World::with(3, &meters(), options(), Arc::clone(&slot) as _);
            let writer = {
                let aggregator = Arc::clone(&world.aggregator);
                tokio::spawn(async move {
                    for number in 0..20 {
                        submit(&aggregator, number).await;
                    }
                })
            };
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            let at_slot = Arc::clone(&slot);
            let at_cut = Box::new(move || at_slot.registered.store(true, Ordering::SeqCst));
            let asked = vec![request("sum", &["c0", "c1", "c2"], TimeRange::ALL)];
            let base = world
                .aggregator
                .totals(TENANT, asked, Some(at_cut))
                .await
                .unwrap()
                .rows[0][0]
                .value
                .unwrap();
            writer.await.unwrap();
            assert_eq!(
                base.checked_add(*slot.since.lock()),
                Some(Quantity::from_units(20 * BATCH))
            );
        }
    });
}

#[test]
fn a_new_meter_fills_itself_while_events_and_corrections_keep_coming() {
    runtime().block_on(async {
        let mut world = World::with(2, &meters(), options(), Arc::new(NoListener));
        for number in 0..100 {
            submit(&world.aggregator, number).await;
        }
        let mut all = meters();
        all.push(meter(9, "late", Aggregation::Sum));
        world.declare(&all);
        for number in 100..130 {
            submit(&world.aggregator, number).await;
            let old = Event::new(number * 3, &format!("c{}", number * 3 % 3), 0, "").name();
            world
                .aggregator
                .correct(old, Correction::Void, common::at(0))
                .await
                .unwrap()
                .unwrap();
            if number == 110 {
                world.crash();
            }
        }
        let found = read(&world.aggregator, &["sum", "late"]).await;
        assert_eq!(found, [130 * BATCH - 30, 130 * BATCH - 30]);
        let progress = world.aggregator.backfill(TENANT, "late").unwrap();
        assert!(progress.complete && progress.done_bytes == progress.total_bytes && progress.total_bytes > 0);
        assert_eq!(world.aggregator.backfill(TENANT, "none"), None);

        world.declare(&meters());
        assert!(
            world
                .total(request("late", &["c0"], TimeRange::ALL))
                .await
                .is_err(),
            "a deleted meter answers nothing"
        );
        let mut again = meters();
        again.push(meter(10, "late", Aggregation::Count));
        world.declare(&again);
        assert_eq!(read(&world.aggregator, &["late"]).await, [130 * BATCH - 30]);
        assert_eq!(world.aggregator.shutdown().await, Ok(()));
        let refused = world.submit(&[Event::new("x", "c", 0, "{}")]).await.unwrap_err();
        assert_eq!(refused.code, turnpike_domain::problem::Code::ShuttingDown);
    });
}

#[test]
fn any_order_gives_the_same_dump() {
    runtime().block_on(async {
        let all: Vec<Event> = (0..120)
            .map(|id| {
                Event::new(
                    id,
                    &format!("c{}", id % 5),
                    id * 997 % 200_000,
                    format!(r#"{{"v": {}, "g": "{}"}}"#, id % 13, id % 2),
                )
            })
            .collect();
        let mut dumps = BTreeMap::new();
        for seed in 0..20u64 {
            let mut order: Vec<usize> = (0..all.len()).collect();
            order.sort_by_key(|at| (*at as u64 + 1).wrapping_mul(seed * 2_654_435_761 + 97) % 1_009);
            let every = [
                Aggregation::Sum,
                Aggregation::Percentile,
                Aggregation::Latest,
                Aggregation::UniqueCount,
            ];
            let meters: Vec<Meter> = (1..)
                .zip(every)
                .map(|(id, a)| meter(id, &format!("m{id}"), a))
                .collect();
            let world = World::with(1 + (seed % 3) as usize, &meters, options(), Arc::new(NoListener));
            for chunk in order.chunks(1 + seed as usize) {
                let batch: Vec<Event> = chunk.iter().map(|at| all[*at].clone()).collect();
                world.submit(&batch).await.unwrap();
            }
            world.aggregator.shutdown().await.unwrap();
            let mut out = Vec::new();
            turnpike_aggregator::rebuild::dump(&world.shared_views(), world.directory.as_ref(), &mut out)
                .unwrap();
            *dumps.entry(out).or_insert(0) += 1;
        }
        assert_eq!(
            dumps.len(),
            1,
            "one dump for all orders and numbers of partitions"
        );
    });
}
