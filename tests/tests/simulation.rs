//! R25: seeded simulation. A failing seed prints the command that replays it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use turnpike_tests::run::{announce, seed, times};
use turnpike_tests::sim::{Report, run};

const STEPS: usize = 120;

/// Runs seeds on all processors, for each run has a thread, a disk and a clock of its own.
fn run_all(first: u64, seeds: u64) -> Report {
    let (next, all) = (AtomicU64::new(first), Mutex::new(Report::default()));
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= first + seeds {
                return;
            }
            announce("--test simulation no_seed", seed);
            // Every fifth with several partitions, which race for the log.
            let partitions = if seed.is_multiple_of(5) { 3 } else { 1 };
            let report = run(seed, STEPS, partitions);
            *all.lock().expect("no run has failed") += report;
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(worker);
        }
    });
    all.into_inner().expect("no run has failed")
}

#[test]
fn r25_no_seed_breaks_an_invariant() {
    let (first, seeds) = (seed("--test simulation no_seed", 1), times(50, 10_000) as u64);
    let all = run_all(first, seeds);
    println!("{seeds} seeds injected {all:?}");
    assert!(
        all.faults.total() > seeds && all.restarts > seeds && all.unanswered > seeds && all.jumps > 0,
        "vacuous: hardly any fault was injected"
    );
    assert!(
        all.faults.full > 0 && all.cut_off > 0,
        "vacuous: the disk was never full, or no call was cut off"
    );
    assert!(
        all.decisions > seeds && all.invoices > 0,
        "vacuous: hardly any quota decision or invoice was compared"
    );
}

#[test]
fn r25_the_same_seed_gives_the_same_trace() {
    let first = seed("--test simulation same_seed", 1);
    for seed in (first..).take(times(5, 100)) {
        let (one, other) = (run(seed, STEPS, 1), run(seed, STEPS, 1));
        assert_eq!(one.trace, other.trace, "seed {seed}");
    }
}
