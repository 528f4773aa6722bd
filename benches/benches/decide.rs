//! T4: a quota decision in process against its floors, in turns, with 1 and 2 threads: by names against one map lookup by
//! string (an `ArcSwap` map and a `dashmap`), by a handle against one compare-and-swap.
//!
//! `cargo bench -p turnpike-benches --bench decide`. Figures are nanoseconds for one call and thread, medians of five rounds;
//! ratios are the medians of the rounds' ratios. With `--features peers` also against the crate `governor`. With `-- --instructions [--keep REASON]`: the instructions of one call, beside those
//! that are kept in `benches/instructions.txt`.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::float_arithmetic,
    reason = "a bench measures real time"
)]

#[path = "../../enforcer/tests/support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use serde_json::json;
use support::{TENANT, World};
use turnpike_benches::callgrind::{self, Failure, Kept};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::{Clock as _, Timestamp};

const CUSTOMERS: usize = 10_000;
const FEATURES: usize = 3;
const CALLS: usize = 2_000_000;
const ROUNDS: usize = 5;

type Names = Vec<(String, String)>;

/// What is measured: what one thread does, told its number.
type Work<'a> = &'a (dyn Fn(usize) + Sync);

/// Calls of which the instructions are counted, and customers that they are about: few, for all is slow there.
const COUNTED: usize = 5_000;
const COUNTED_CUSTOMERS: usize = 100;
/// What tells this program, run under callgrind, what to count.
const COUNT: &str = "TURNPIKE_BENCH_COUNT";

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Ok(name) = std::env::var(COUNT) {
        return runtime.block_on(count_in_here(&name, Path::new(words.first().ok_or("no file")?)));
    }
    if words.first().is_some_and(|word| word == "--instructions") {
        let reason = words.iter().skip_while(|word| *word != "--keep").nth(1);
        return count(reason.map(String::as_str));
    }
    let (world, names) = runtime.block_on(world(CUSTOMERS));
    let now = world.clock.machine_now();
    println!("threads\twhat\tns\tfloor\tns\tratio");
    for threads in [1, 2] {
        by_names(&world, &names, now, threads);
        runtime.block_on(by_handle(&world, now, threads));
    }
    Ok(())
}

/// Counts the instructions of a call by names and of one by a handle, each in a process of its own.
fn count(reason: Option<&str>) -> Result<(), Failure> {
    if !callgrind::is_here() {
        println!("valgrind is not on this machine: instructions were not counted");
        return Ok(());
    }
    let mut counted = Vec::new();
    for name in ["decide_by_names", "decide_by_handle"] {
        let directory = tempfile::tempdir()?;
        let out = directory.path().join("callgrind");
        let said = callgrind::command(&std::env::current_exe()?, &out)
            .arg(&out)
            .env(COUNT, name)
            .output()?;
        let text = String::from_utf8_lossy(&said.stdout);
        let total = text.trim().parse::<u64>();
        let total = total.map_err(|_| format!("{name}: {text}{}", String::from_utf8_lossy(&said.stderr)))?;
        counted.push((name, total / COUNTED as u64));
    }
    Kept::read()?.compare(&counted, reason)
}

/// Prints the instructions of [`COUNTED`] calls, where this process runs under callgrind.
async fn count_in_here(name: &str, out: &Path) -> Result<(), Failure> {
    let (world, names) = world(COUNTED_CUSTOMERS).await;
    let now = world.clock.machine_now();
    let mut handle = world.enforcer.handle(TENANT, "customer-0", "feature-0").await?;
    let mut calls = |count: usize| {
        for (customer, feature) in names.iter().cycle().take(count) {
            if name == "decide_by_names" {
                let decided = world
                    .enforcer
                    .decide(TENANT, customer, feature, Quantity::ONE, now);
                black_box(decided);
            } else {
                black_box(handle.decide(Quantity::ONE, now));
            }
        }
    };
    calls(COUNTED);
    callgrind::zero(std::process::id())?;
    calls(COUNTED);
    println!("{}", callgrind::counted(std::process::id(), out)?);
    Ok(())
}

async fn world(customers: usize) -> (World, Names) {
    let world = World::new().await;
    let features: Vec<String> = (0..FEATURES).map(|n| format!("feature-{n}")).collect();
    for feature in &features {
        world.put_feature(feature, json!({"kind": "metered", "meter": "tokens"}));
    }
    let limits = json!([{"limit": "100000", "period": "month"}]);
    let entitlements: Vec<_> = features
        .iter()
        .map(|key| json!({"feature": key, "limits": limits}))
        .collect();
    world.put_plan("pro", json!(entitlements));
    let mut names = Vec::new();
    for number in 0..customers {
        let customer = format!("customer-{number}");
        world.directory.put_customer(&customer, json!({}));
        world.directory.subscribe(&customer, "pro", &[]);
        names.extend(features.iter().map(|feature| (customer.clone(), feature.clone())));
    }
    for (customer, feature) in &names {
        world.enforcer.handle(TENANT, customer, feature).await.unwrap();
    }
    // Walked in an order that no cache line foresees.
    let count = names.len();
    let shuffled = (0..count).map(|n| names[n * 7_919 % count].clone()).collect();
    (world, shuffled)
}

fn by_names(world: &World, names: &Names, now: Timestamp, threads: usize) {
    let keys: Vec<String> = names
        .iter()
        .map(|(customer, feature)| format!("{customer}/{feature}"))
        .collect();
    let values = keys.iter().enumerate().map(|(at, key)| (key.clone(), at as u64));
    let swapped: ArcSwap<HashMap<_, _, foldhash::fast::RandomState>> =
        ArcSwap::from_pointee(values.clone().collect());
    let dashed: DashMap<_, _, foldhash::fast::RandomState> = values.collect();
    let step = |thread: usize, call: usize| (call + thread * 1_009) % keys.len();
    let decide = |thread: usize| {
        for call in 0..CALLS {
            let (customer, feature) = &names[step(thread, call)];
            black_box(
                world
                    .enforcer
                    .decide(TENANT, customer, feature, Quantity::ONE, now),
            );
        }
    };
    let in_swapped = |thread: usize| {
        for call in 0..CALLS {
            black_box(swapped.load().get(keys[step(thread, call)].as_str()));
        }
    };
    let in_dashed = |thread: usize| {
        for call in 0..CALLS {
            black_box(dashed.get(keys[step(thread, call)].as_str()).map(|value| *value));
        }
    };
    compare(
        threads,
        ("decision by names", &decide),
        ("ArcSwap map by string", &in_swapped),
    );
    compare(
        threads,
        ("decision by names", &decide),
        ("dashmap by string", &in_dashed),
    );
    #[cfg(feature = "peers")]
    {
        let governor = governor::RateLimiter::keyed(governor::Quota::per_second(std::num::NonZeroU32::MAX));
        let in_governor = |thread: usize| {
            for call in 0..CALLS {
                let _ = black_box(governor.check_key(&keys[step(thread, call)]));
            }
        };
        compare(
            threads,
            ("decision by names", &decide),
            ("governor by string", &in_governor),
        );
    }
}

async fn by_handle(world: &World, now: Timestamp, threads: usize) {
    let mut handles = Vec::new();
    for thread in 0..threads {
        let customer = format!("customer-{thread}");
        let handle = world
            .enforcer
            .handle(TENANT, &customer, "feature-0")
            .await
            .unwrap();
        handles.push(parking_lot::Mutex::new(handle));
    }
    let slots: Vec<Line> = (0..threads).map(|_| Line(AtomicI64::new(0))).collect();
    let decide = |thread: usize| {
        let mut handle = handles[thread].lock();
        for _ in 0..CALLS {
            black_box(handle.decide(Quantity::ONE, now));
        }
    };
    let slot = |thread: usize| {
        for _ in 0..CALLS {
            black_box(slots[thread].take(1, i64::MAX));
        }
    };
    compare(
        threads,
        ("decision by a handle", &decide),
        ("one compare-and-swap", &slot),
    );
}

/// A count on a line of its own.
#[repr(align(128))]
struct Line(AtomicI64);

impl Line {
    fn take(&self, amount: i64, limit: i64) -> bool {
        let take = |used: i64| used.checked_add(amount).filter(|after| *after <= limit);
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, take)
            .is_ok()
    }
}

/// Nanoseconds of one call, on each of `threads`.
fn time(threads: usize, work: Work<'_>) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || work(thread));
        }
    });
    start.elapsed().as_secs_f64() * 1e9 / CALLS as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn compare(threads: usize, ours: (&str, Work<'_>), floor: (&str, Work<'_>)) {
    // Once without counting: caches, and what a thread sets up.
    time(threads, ours.1);
    time(threads, floor.1);
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|_| (time(threads, ours.1), time(threads, floor.1)))
        .collect();
    let ratio = median(rounds.iter().map(|(ours, floor)| ours / floor).collect());
    let (ours_ns, floor_ns) = rounds.into_iter().unzip();
    let (ours_ns, floor_ns) = (median(ours_ns), median(floor_ns));
    println!(
        "{threads}\t{}\t{ours_ns:.1}\t{}\t{floor_ns:.1}\t{ratio:.2}",
        ours.0, floor.0
    );
}
