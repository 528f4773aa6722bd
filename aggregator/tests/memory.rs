//! Memory is bounded over all partitions: where checkpoints fail, intake refuses cleanly, and comes back by itself.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::watched::{Watch, watched};
use common::{Declared, Event, KEY, TENANT, at, meter, parts, request};
use turnpike_aggregator::{Aggregator, Options};
use turnpike_domain::event::EventBatch;
use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::intake::{Intake as _, Outcome};
use turnpike_domain::port::log::EventLog as _;
use turnpike_domain::port::usage::UsageReader as _;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::TimeRange;
use turnpike_stores::machine::ManualClock;
use turnpike_stores::memory::MemoryLog;

const MEMORY_BYTES_MAX: usize = 4 * 1024 * 1024;
const PARTITIONS: usize = 3;
const BATCH_EVENTS: u64 = 200;
/// Refusals without an acceptance between them that show that the memory is full, not only a queue for a moment.
const REFUSALS: u32 = 50;

struct Engine {
    aggregator: Arc<Aggregator>,
    log: Arc<MemoryLog>,
    clock: Arc<ManualClock>,
    watch: Arc<Watch>,
}

impl Engine {
    fn start() -> Self {
        let (log, watch) = (Arc::new(MemoryLog::new()), Arc::new(Watch::default()));
        let directory = Arc::new(Declared::default());
        directory.set(TENANT, &[meter(1, "events", Aggregation::Count)]);
        let clock = Arc::new(ManualClock::new(at(1_000_000_000)));
        let options = Options {
            memory_bytes_max: MEMORY_BYTES_MAX,
            ..Options::default()
        };
        let views = watched(PARTITIONS, &watch);
        let aggregator = Aggregator::start(parts(log.clone(), views, &directory, &clock, &options));
        Self {
            aggregator: aggregator.unwrap(),
            log,
            clock,
            watch,
        }
    }

    /// Sends a batch of events, each of another subject, so that each has a window of its own.
    async fn send(&self, batch: u64) -> Result<Vec<Outcome>, Problem> {
        let mut events = EventBatch::default();
        for n in batch * BATCH_EVENTS..(batch + 1) * BATCH_EVENTS {
            events.push(&KEY, &Event::new(n, &format!("subject-{n}"), 60, "{}").record());
        }
        self.aggregator.submit(Arc::new(events)).await
    }

    fn used(&self) -> usize {
        self.aggregator.memory().used_bytes as usize
    }

    /// What an event of its own window takes at the most.
    async fn bytes_of_a_batch(&self) -> usize {
        self.send(1_000_000).await.unwrap();
        self.aggregator.memory().used_bytes as usize
    }

    async fn count(&self, subject: &str) -> Option<String> {
        let request = request("events", &[subject], TimeRange::ALL);
        let totals = self.aggregator.totals(TENANT, vec![request], None).await.unwrap();
        let value = totals.rows.first()?.first()?.value;
        value.map(|value| value.to_string())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_bounded_while_checkpoints_fail_and_intake_comes_back_by_itself() {
    let engine = Engine::start();
    let one = engine.bytes_of_a_batch().await;
    engine.watch.fails.store(true, Ordering::SeqCst);
    let (mut taken, mut refused, mut end) = (0, 0, engine.log.end());
    while refused < REFUSALS {
        match engine.send(taken).await {
            Ok(_) => {
                (taken, refused, end) = (taken + 1, 0, engine.log.end());
            }
            Err(problem) => {
                assert_eq!((problem.code, problem.retry_after_s), (Code::Overloaded, Some(1)));
                let named = problem.detail.contains("engine.memory_bytes_max");
                assert!(named, "{}", problem.detail);
                refused += 1;
            }
        }
        assert!(engine.used() <= MEMORY_BYTES_MAX + one, "{} bytes", engine.used());
        assert!(taken < 1_000, "nothing bounds the memory");
    }
    assert_eq!(engine.log.end(), end, "a refused batch reached the log");
    assert_eq!(engine.count("subject-0").await.as_deref(), Some("1"));

    engine.watch.fails.store(false, Ordering::SeqCst);
    let mut waited = 0;
    let outcomes = loop {
        // The owners try again once a second of this clock has passed.
        engine.clock.pass(1_100_000);
        tokio::time::sleep(Duration::from_millis(50)).await;
        match engine.send(taken).await {
            Ok(outcomes) => break outcomes,
            Err(problem) => assert_eq!(problem.code, Code::Overloaded),
        }
        waited += 1;
        assert!(waited < 200, "intake did not come back");
    };
    let new = |outcome: &Outcome| matches!(outcome, Outcome::Accepted(_));
    assert!(outcomes.iter().all(new), "what was refused is new");
    let again = engine.send(0).await.unwrap();
    let duplicate = |outcome: &Outcome| matches!(outcome, Outcome::Duplicate(_));
    assert!(again.iter().all(duplicate), "what was taken is known");
    for n in [0, taken * BATCH_EVENTS - 1, (taken + 1) * BATCH_EVENTS - 1] {
        let counted = engine.count(&format!("subject-{n}")).await;
        assert_eq!(counted.as_deref(), Some("1"), "subject {n}");
    }
    engine.aggregator.shutdown().await.unwrap();
    assert_eq!(engine.used(), 0, "all was given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_many_times_the_bound_goes_through_while_checkpoints_succeed() {
    let engine = Engine::start();
    let one = engine.bytes_of_a_batch().await;
    let batches = (8 * MEMORY_BYTES_MAX / one) as u64;
    let mut most = 0;
    for batch in 0..batches {
        while let Err(problem) = engine.send(batch).await {
            assert_eq!(problem.code, Code::Overloaded);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        most = most.max(engine.used());
    }
    assert!(most <= MEMORY_BYTES_MAX + one, "{most} bytes");
    let last = batches * BATCH_EVENTS - 1;
    assert_eq!(
        engine.count(&format!("subject-{last}")).await.as_deref(),
        Some("1")
    );
}
