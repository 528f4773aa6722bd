//! The engine on a disk that fails: what was acknowledged counts, once, and nothing is acknowledged behind a failure (R4, R5).

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Declared, Event, KEY, TENANT, at, meter, parts, request};
use turnpike_aggregator::{Aggregator, Options, rows};
use turnpike_domain::event::EventBatch;
use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::intake::{Intake as _, Outcome};
use turnpike_domain::port::usage::UsageReader as _;
use turnpike_domain::port::views::Views;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::TimeRange;
use turnpike_stores::disk::Disk as _;
use turnpike_stores::embedded::{EmbeddedViews, LogOptions, SegmentedLog, ViewsOptions};
use turnpike_stores::fault::{FailPoints, FaultCounts, FaultDisk, Operation};
use turnpike_stores::machine::{MachineClock, MachineRandomness, ManualClock};

const LOG: &str = "/data/log";
const PARTITIONS: u32 = 2;

/// An engine on a disk, with the events that it was sent by number, and whether it acknowledged them.
struct Engine {
    disk: FaultDisk,
    aggregator: Arc<Aggregator>,
    sent: BTreeMap<u64, bool>,
}

fn open(disk: &FaultDisk) -> Arc<Aggregator> {
    let shared = Arc::new(disk.clone());
    let options = LogOptions {
        segment_bytes: 64 * 1024,
        ahead_bytes: 8 * 1024,
        tick: Duration::from_millis(5),
        ..LogOptions::new(LOG)
    };
    let fail = || Arc::new(FailPoints::default());
    let log = SegmentedLog::open(
        options,
        shared.clone(),
        Arc::new(MachineClock),
        &MachineRandomness,
        fail(),
    );
    let views = |partition| {
        let options = ViewsOptions::new("/data/views", partition);
        EmbeddedViews::open(options, rows::merge(), shared.clone(), fail()).unwrap() as Arc<dyn Views>
    };
    let directory = Arc::new(Declared::default());
    directory.set(TENANT, &[meter(1, "events", Aggregation::Count)]);
    let clock = Arc::new(ManualClock::new(at(1_000_000_000)));
    let views = (0..PARTITIONS).map(views).collect();
    Aggregator::start(parts(
        log.unwrap(),
        views,
        &directory,
        &clock,
        &Options::default(),
    ))
    .unwrap()
}

impl Engine {
    fn new(seed: u64) -> Self {
        let disk = FaultDisk::new(seed);
        Self {
            aggregator: open(&disk),
            disk,
            sent: BTreeMap::new(),
        }
    }

    /// Sends the events with these numbers in one batch.
    async fn send(&mut self, numbers: std::ops::Range<u64>) -> Result<Vec<Outcome>, Problem> {
        let mut batch = EventBatch::default();
        for n in numbers.clone() {
            let event = Event::new(
                n,
                &format!("subject-{}", n % 7),
                n as i64,
                r#"{"g": "some text that takes room"}"#,
            );
            batch.push(&KEY, &event.record());
            self.sent.entry(n).or_default();
        }
        let outcomes = self.aggregator.submit(Arc::new(batch)).await?;
        self.sent.extend(numbers.map(|n| (n, true)));
        Ok(outcomes)
    }

    /// Sends new events, some at once, until one batch is refused.
    async fn send_until_refused(&mut self, each: u64) -> Problem {
        for _ in 0..5_000 {
            let next = self.next();
            if let Err(problem) = self.send(next..next + each).await {
                return problem;
            }
        }
        panic!("it refuses nothing");
    }

    fn next(&self) -> u64 {
        self.sent.last_key_value().map_or(0, |(last, _)| last + 1)
    }

    fn acknowledged(&self) -> u64 {
        self.sent.values().filter(|known| **known).count() as u64
    }

    async fn count(&self) -> u64 {
        let subjects: Vec<String> = (0..7).map(|n| format!("subject-{n}")).collect();
        let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
        let request = request("events", &subjects, TimeRange::ALL);
        let totals = self.aggregator.totals(TENANT, vec![request], None).await.unwrap();
        let value = totals.rows.first().and_then(|rows| rows.first()?.value);
        value.map_or(0, |value| value.to_string().parse().unwrap())
    }

    /// Loses what was not durable, starts anew, and sends everything again: what was acknowledged is known.
    async fn recover(&mut self) {
        self.disk = self.disk.crash();
        self.aggregator = open(&self.disk);
        let acknowledged = self.acknowledged();
        assert!(
            self.count().await >= acknowledged,
            "an acknowledged event is lost"
        );
        for (n, known) in self.sent.clone() {
            let outcome = self.send(n..n + 1).await.unwrap();
            let duplicate = matches!(outcome[0], Outcome::Duplicate(_));
            assert!(duplicate || !known, "event {n} was acknowledged, but is new");
        }
        assert_eq!(
            self.count().await,
            self.sent.len() as u64,
            "an event counts twice or not at all"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r4_after_a_failed_sync_or_write_nothing_is_acknowledged_until_a_restart() {
    let mut faults = FaultCounts::default();
    for (seed, operation) in (0..15).flat_map(|seed| [(seed, Operation::Sync), (seed, Operation::Write)]) {
        let mut engine = Engine::new(seed);
        engine.send(0..20).await.unwrap();
        engine.disk.fail(operation, seed % 9);
        let refused = engine.send_until_refused(seed % 4 + 1).await;
        assert_eq!(
            (refused.code, refused.code.status()),
            (Code::StoragePoisoned, 503),
            "{refused}"
        );
        for _ in 0..10 {
            let next = engine.next();
            let refused = engine.send(next..next + 3).await.unwrap_err();
            assert_eq!(
                refused.code,
                Code::StoragePoisoned,
                "acknowledged behind a failure"
            );
        }
        engine.recover().await;
        faults += engine.disk.counts();
    }
    println!("{faults}");
    assert_eq!(faults.errors, 30, "vacuous");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_intake_stops_before_the_disk_is_full_and_comes_back_by_itself() {
    let mut full = 0;
    for seed in 0..6_u64 {
        let mut engine = Engine::new(seed);
        let mut capacity = 60_000 + seed * 7_001;
        engine.disk.set_capacity(capacity);
        for _ in 0..2 {
            let refused = engine.send_until_refused(20).await;
            assert_eq!(
                (refused.code, refused.code.status()),
                (Code::StorageFull, 503),
                "{refused}"
            );
            assert!(refused.retry_after_s.is_some(), "503 without Retry-After");
            let (free, total) = engine.disk.space(Path::new(LOG)).unwrap();
            assert!((total - free) * 100 <= total * 95, "intake stops at 95 %");
            // Of the batch that was refused one partition's part may count; the answer says so.
            let (counted, known) = (engine.count().await, engine.acknowledged());
            assert!(
                (known..known + 20).contains(&counted),
                "{known} acknowledged, {counted} counted"
            );
            full += 1;
            capacity += 30_000;
            engine.disk.set_capacity(capacity);
            back_within_ten_seconds(&mut engine).await;
        }
        assert_eq!(engine.count().await, engine.acknowledged());
        engine.recover().await;
    }
    assert_eq!(full, 12, "vacuous");
}

async fn back_within_ten_seconds(engine: &mut Engine) {
    // The batch that was refused.
    let next = engine.next() - 20;
    for _ in 0..1_000 {
        match engine.send(next..next + 20).await {
            Ok(_) => return,
            Err(problem) => assert_eq!(problem.code, Code::StorageFull),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not take events again within 10 s");
}
