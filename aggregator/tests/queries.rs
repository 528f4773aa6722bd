//! Readings of usage are bounded in what they hold, in number, and in time once nobody waits for them; and however they are
//! cut into pages, the rows stay the same.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "a counting allocator")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::body::to_bytes;
use common::watched::{Watch, watched};
use common::{Declared, Event, KEY, TENANT, World, answer, at, meter, parts};
use serde_json::Value;
use turnpike_aggregator::{Aggregator, Options};
use turnpike_domain::event::EventBatch;
use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::intake::{Correction, Intake as _};
use turnpike_stores::machine::ManualClock;
use turnpike_stores::memory::MemoryLog;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), SeqCst) + layout.size();
        MOST.fetch_max(held, SeqCst);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tests that count bytes or rows run one at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const SUBJECTS: u64 = 20_000;
const RANGE: &str = "from=1970-01-01T00:00:00Z&to=1970-01-03T00:00:00Z";

/// An aggregator with an event of each of many subjects; every other one is a customer.
async fn many(options: Options, subjects: u64) -> (Arc<Aggregator>, Arc<Watch>) {
    let watch = Arc::new(Watch::default());
    let directory = Arc::new(Declared::default());
    directory.set(TENANT, &[meter(1, "calls", Aggregation::Count)]);
    for n in (0..subjects).step_by(2) {
        let key = format!("s{n:06}");
        directory.add_customer(&key, &[&key]);
    }
    let clock = Arc::new(ManualClock::new(at(1_000_000_000)));
    let log = Arc::new(MemoryLog::new());
    let aggregator = Aggregator::start(parts(log, watched(2, &watch), &directory, &clock, &options)).unwrap();
    let mut events = EventBatch::default();
    for n in 0..subjects {
        let data = format!(r#"{{"g": "{}"}}"#, n % 7);
        events.push(&KEY, &Event::new(n, &format!("s{n:06}"), 60, data).record());
    }
    aggregator.submit(Arc::new(events)).await.unwrap();
    (aggregator, watch)
}

async fn page(aggregator: &Arc<Aggregator>, query: &str) -> Value {
    let answer = answer(aggregator, &format!("/v1/meters/calls/usage?{RANGE}&{query}")).await;
    assert_eq!(answer.status(), 200, "{query}");
    let body = to_bytes(answer.into_body(), 1 << 24).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_many_subjects_are_found_at_once_and_hold_little() {
    let _alone = ALONE.lock().await;
    let (aggregator, watch) = many(Options::default(), SUBJECTS).await;
    aggregator.checkpoint().await.unwrap();
    for by in ["subject", "customer"] {
        let mut cursor = String::new();
        for number in 0..4 {
            watch.read.store(0, SeqCst);
            let page = page(&aggregator, &format!("group_by={by}&limit=100&cursor={cursor}")).await;
            let first = page["data"][0][by].as_str().unwrap();
            assert_eq!(first, format!("s{:06}", number * 100));
            page["next_cursor"].as_str().unwrap().clone_into(&mut cursor);
            let read = watch.read.load(SeqCst);
            assert!(read < 600, "{read} rows were read for a page of 100 by {by}");
        }
    }
    let before = HELD.load(SeqCst);
    MOST.store(before, SeqCst);
    let all = (0..16).map(|n| {
        let aggregator = Arc::clone(&aggregator);
        let by = ["subject", "customer", "g&group_by=subject"][n % 3];
        tokio::spawn(async move { page(&aggregator, &format!("group_by={by}&limit=100")).await })
    });
    for page in all.collect::<Vec<_>>() {
        assert_eq!(page.await.unwrap()["data"].as_array().unwrap().len(), 100);
    }
    let held = MOST.load(SeqCst) - before;
    // All rows of one such reading take 5 MB, and three of one tenant work at once.
    assert!(held < 8 << 20, "{held} bytes were held by 16 readings");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_readings_leave_one_slot_to_others() {
    let _alone = ALONE.lock().await;
    let options = Options {
        queries_max: 3,
        ..Options::default()
    };
    let (aggregator, watch) = many(options, SUBJECTS).await;
    aggregator.checkpoint().await.unwrap();
    let all = (0..12).map(|_| {
        let aggregator = Arc::clone(&aggregator);
        tokio::spawn(async move { page(&aggregator, "group_by=g&limit=10").await })
    });
    for page in all.collect::<Vec<_>>() {
        page.await.unwrap();
    }
    let most = watch.most_scans.load(SeqCst);
    assert!((1..=2).contains(&most), "{most} read at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reading_that_nobody_waits_for_stops() {
    let _alone = ALONE.lock().await;
    let (aggregator, watch) = many(Options::default(), SUBJECTS).await;
    aggregator.checkpoint().await.unwrap();
    for query in ["group_by=g&limit=10", "group_by=customer&format=ndjson"] {
        watch.held.store(true, SeqCst);
        watch.read.store(0, SeqCst);
        let reading = {
            let aggregator = Arc::clone(&aggregator);
            tokio::spawn(async move { page(&aggregator, query).await })
        };
        while watch.read.load(SeqCst) < 499 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        reading.abort();
        assert!(reading.await.unwrap_err().is_cancelled());
        watch.held.store(false, SeqCst);
        while watch.scans.load(SeqCst) > 0 || aggregator.query_memory().used_bytes > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let read = watch.read.load(SeqCst);
        assert!(read < 510, "{query}: {read} rows were read");
    }
    assert_eq!(
        page(&aggregator, "").await["data"][0]["value"],
        SUBJECTS.to_string()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_readings_copy_of_memory_is_bounded() {
    let _alone = ALONE.lock().await;
    let options = Options {
        query_memory_bytes_max: 100_000,
        ..Options::default()
    };
    // A stream holds what it has not sent, so that must be more than a part of it.
    let (aggregator, _) = many(options, 2 * SUBJECTS + 1_000).await;
    let uri = format!("/v1/meters/calls/usage?{RANGE}&group_by=subject");
    let slow = answer(&aggregator, &format!("{uri}&format=ndjson")).await;
    assert_eq!(slow.status(), 200);
    let used = aggregator.query_memory();
    assert!(
        used.used_bytes > used.max_bytes,
        "one that is alone has all that it needs"
    );
    let refused = answer(&aggregator, &uri).await;
    assert_eq!(
        (
            refused.status().as_u16(),
            refused.headers()["retry-after"].as_bytes()
        ),
        (503, &b"1"[..])
    );
    let body = to_bytes(refused.into_body(), 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["code"], "overloaded");
    assert!(
        body["detail"]
            .as_str()
            .unwrap()
            .contains("engine.query_memory_bytes_max")
    );
    drop(slow);
    // It may be at work on its next part, and ends when that is of no use to anybody.
    while aggregator.query_memory().used_bytes > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(
        page(&aggregator, "group_by=subject").await["data"]
            .as_array()
            .unwrap()
            .len(),
        100
    );
}

/// The rows of all pages.
async fn paged(world: &World, uri: &str) -> Vec<Value> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = answer(&world.aggregator, &format!("{uri}&limit=170&cursor={cursor}")).await;
        let body = to_bytes(page.into_body(), 1 << 24).await.unwrap();
        let page: Value = serde_json::from_slice(&body).unwrap();
        rows.extend(page["data"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return rows,
        }
    }
}

/// Subjects enough that pages let sums go, a part of them in a checkpoint, and some without any event that counts.
async fn some() -> World {
    let meters = [
        meter(1, "sum", Aggregation::Sum),
        meter(2, "unique", Aggregation::UniqueCount),
        meter(3, "load", Aggregation::TimeWeightedSum),
        meter(4, "last", Aggregation::Latest),
    ];
    let world = World::new(3, &meters);
    world.clock.set(at(3 * 86_400));
    for third in 0..3_i64 {
        let event = |n: i64| {
            let data = format!(r#"{{"v": {}, "g": "{}"}}"#, n * 3 + third, n % 5);
            let second = (n * 977 + third * 40_000) % (2 * 86_400);
            Event::new(
                format!("{n}-{third}"),
                &format!("s{:04}", n * 7 % 1_700),
                second,
                data,
            )
        };
        let events: Vec<Event> = (0..1_700).map(event).collect();
        world.submit(&events).await.unwrap();
        for gone in events.iter().skip(3).step_by(11) {
            let voided = world.aggregator.correct(gone.name(), Correction::Void, at(1));
            voided.await.unwrap();
        }
        if third == 1 {
            world.aggregator.checkpoint().await.unwrap();
        }
    }
    world
}

/// Makes customers whose subjects stand before their key, behind it, at it and at both sides of it, and far more without any
/// usage. Subject → customer.
fn customers(world: &World) -> BTreeMap<String, String> {
    let mut owners = BTreeMap::new();
    for n in (0..1_500).step_by(3) {
        let subject = |n: usize| format!("s{n:04}");
        let (key, subjects) = match n % 5 {
            0 => (subject(n), vec![subject(n)]),
            1 => (format!("c{n:04}"), vec![subject(n)]),
            2 => (format!("x{n:04}"), vec![subject(n), subject(n + 1)]),
            3 => (subject(n + 1), vec![subject(n), subject(n + 2)]),
            _ => (format!("s{n:04}+"), vec![subject(1_699 - n / 15)]),
        };
        let named: Vec<&str> = subjects.iter().map(String::as_str).collect();
        world.directory.add_customer(&key, &named);
        owners.extend(subjects.into_iter().map(|subject| (subject, key.clone())));
    }
    for n in 0..30_000 {
        world
            .directory
            .add_customer(&format!("m{n:05}"), &[&format!("n{n:05}")]);
    }
    owners
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_parts_hold_the_rows_of_the_whole() {
    let _alone = ALONE.lock().await;
    let world = some().await;
    let owners = customers(&world);
    let readings = [
        ("sum", "subject", ""),
        ("sum", "subject,g", "&window=day"),
        ("sum", "g,subject", ""),
        ("sum", "customer", "&window=day"),
        ("sum", "customer,subject", ""),
        ("unique", "customer", ""),
        ("load", "customer", "&window=day"),
        ("unique", "subject", "&window=day"),
        ("last", "g,subject", "&window=day"),
        ("load", "subject", ""),
    ];
    for (meter, by, window) in readings {
        let uri = format!("/v1/meters/{meter}/usage?{RANGE}&group_by={by}{window}");
        let lines = answer(&world.aggregator, &format!("{uri}&format=ndjson")).await;
        let lines = to_bytes(lines.into_body(), 1 << 24).await.unwrap();
        let lines = String::from_utf8(lines.to_vec()).unwrap();
        let whole: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let pages = paged(&world, &uri).await;
        assert!(whole.len() > 1_000, "{uri}: {} rows", whole.len());
        assert!(pages == whole, "{uri}: {} and {} rows", pages.len(), whole.len());
    }
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    for third in 0..3_i64 {
        for n in (0..1_700_i64).filter(|n| n % 11 != 3) {
            *sums.entry(format!("s{:04}", n * 7 % 1_700)).or_default() += n * 3 + third;
        }
    }
    let mut by_customer: BTreeMap<String, i64> = BTreeMap::new();
    for (subject, sum) in &sums {
        let owner = owners.get(subject).unwrap_or(subject);
        *by_customer.entry(owner.clone()).or_default() += sum;
    }
    assert!(by_customer.len() > 1_000 && by_customer.len() < sums.len());
    for (by, expected) in [("subject", sums), ("customer", by_customer)] {
        let pages = paged(&world, &format!("/v1/meters/sum/usage?{RANGE}&group_by={by}")).await;
        let pages = pages.iter().map(|row| {
            let text = |field: &str| row[field].as_str().unwrap().to_owned();
            (text(by), text("value").parse::<i64>().unwrap())
        });
        let pages: Vec<_> = pages.collect();
        assert_eq!(
            pages,
            expected.into_iter().collect::<Vec<_>>(),
            "by {by}, in order"
        );
    }
}
