//! How a test is run: its seed and its size, from the environment.

/// The variable that gives a seed again.
const SEED: &str = "TURNPIKE_TEST_SEED";
/// The variable that takes the larger sizes, as a nightly run does: `1` those of the whole night, `1/N` a part of them.
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

/// How often a fault is tried: `TURNPIKE_TEST_NIGHTLY` takes the larger number, or an Nth part of it where that is more than
/// what is tried on each change.
///
/// # Panics
/// Where the variable is neither `1` nor `1/N`.
pub fn times(per_change: usize, nightly: usize) -> usize {
    match std::env::var(NIGHTLY) {
        Ok(part) => per_change.max(nightly / divisor(&part)),
        Err(_) => per_change,
    }
}

fn divisor(part: &str) -> usize {
    let parts = part.strip_prefix("1/").unwrap_or(part).parse().ok();
    parts
        .filter(|parts| *parts > 0 && (*parts == 1 || part.starts_with("1/")))
        .unwrap_or_else(|| panic!("{NIGHTLY} is 1, or 1/N for a part of it, not {part}"))
}

#[cfg(test)]
mod tests {
    use super::divisor;

    #[test]
    fn a_part_of_the_night_is_written_as_a_fraction() {
        assert_eq!([divisor("1"), divisor("1/1"), divisor("1/33")], [1, 1, 33]);
        for wrong in ["", "0", "7", "1/0", "1/x", "yes"] {
            assert!(std::panic::catch_unwind(|| divisor(wrong)).is_err(), "{wrong}");
        }
    }
}
