//! R25: seeded simulation. A failing seed prints the command that replays it.

use turnpike_tests::run::{announce, seed, times};
use turnpike_tests::sim::{Report, run};

const STEPS: usize = 120;

#[test]
fn r25_no_seed_breaks_an_invariant() {
    let (first, seeds) = (seed("--test simulation no_seed", 1), times(50, 10_000) as u64);
    let mut all = Report::default();
    for seed in first..first + seeds {
        announce("--test simulation no_seed", seed);
        // Every fifth with several partitions, which race for the log.
        let partitions = if seed % 5 == 0 { 3 } else { 1 };
        all += run(seed, STEPS, partitions);
    }
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
