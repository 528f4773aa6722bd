//! How a test is run: its seed and its size, from the environment.

/// The variable that gives a seed again.
const SEED: &str = "TURNPIKE_TEST_SEED";
/// The variable that takes the larger sizes, as a nightly run does.
const NIGHTLY: &str = "TURNPIKE_TEST_NIGHTLY";

/// The seed of a test: `TURNPIKE_TEST_SEED`, else the one given. Printed, with the command that replays it; `test` is what
/// stands there behind the package.
///
/// # Panics
/// Where the variable is no whole number.
pub fn seed(test: &str, default: u64) -> u64 {
    let seed = std::env::var(SEED).map_or(default, |text| text.parse().expect("a seed is a whole number"));
    announce(test, seed);
    seed
}

/// Prints a seed with the command that replays it.
pub fn announce(test: &str, seed: u64) {
    println!("seed {seed}; again: {SEED}={seed} cargo test --workspace {test}");
}

/// How often a fault is tried: `TURNPIKE_TEST_NIGHTLY` takes the larger number.
pub fn times(per_change: usize, nightly: usize) -> usize {
    if std::env::var_os(NIGHTLY).is_some() {
        nightly
    } else {
        per_change
    }
}
