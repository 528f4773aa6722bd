//! R25: seeded simulation. A failing seed prints the command that replays it.

use turnpike_tests::sim::run;
use turnpike_tests::workload::times;

const STEPS: usize = 120;

fn first_seed() -> u64 {
    std::env::var("TURNPIKE_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1)
}

#[test]
fn r25_no_seed_breaks_an_invariant() {
    let (first, seeds) = (first_seed(), times(50, 10_000) as u64);
    let (mut faults, mut restarts, mut acknowledged) = (0, 0, 0);
    for seed in first..first + seeds {
        println!(
            "seed {seed}; again: TURNPIKE_TEST_SEED={seed} cargo test -p turnpike-tests --test simulation"
        );
        // Every fifth with several partitions, which race for the log.
        let partitions = if seed % 5 == 0 { 3 } else { 1 };
        let report = run(seed, STEPS, partitions);
        faults += report.faults.total();
        restarts += report.restarts;
        acknowledged += report.acknowledged;
    }
    println!(
        "injected {faults} faults of the disk and {restarts} restarts; {acknowledged} events acknowledged"
    );
    assert!(
        faults > seeds && restarts > seeds,
        "vacuous: hardly any fault was injected"
    );
}

#[test]
fn r25_the_same_seed_gives_the_same_trace() {
    for seed in (first_seed()..).take(times(5, 100)) {
        let (one, other) = (run(seed, STEPS, 1), run(seed, STEPS, 1));
        assert_eq!(one.trace, other.trace, "seed {seed}");
    }
}
