//! What a run says.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Counts and latencies of one worker, or of all together.
pub struct Tally {
    /// Requests answered with 2xx.
    pub answers: u64,
    /// Requests answered otherwise.
    pub errors: u64,
    /// Events or decisions in those answers.
    pub units: u64,
    /// The same, those of the warm-up included.
    pub acknowledged: u64,
    /// Microseconds.
    pub latency: Histogram<u64>,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, 60_000_000, 3).expect("fixed bounds");
        Self {
            answers: 0,
            errors: 0,
            units: 0,
            acknowledged: 0,
            latency,
        }
    }

    /// Adds another worker's.
    pub fn add(&mut self, other: &Self) {
        self.answers += other.answers;
        self.errors += other.errors;
        self.units += other.units;
        self.acknowledged += other.acknowledged;
        self.latency += &other.latency;
    }
}

/// The figures of one run.
pub struct Summary {
    /// All workers' counts.
    pub tally: Tally,
    /// Of the measured part.
    pub seconds: f64,
    /// Whether latency counts from the intended send time.
    pub open_loop: bool,
}

impl Summary {
    /// Events or decisions a second.
    pub fn rate(&self) -> f64 {
        self.tally.units as f64 / self.seconds
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quantile = |q| Duration::from_micros(self.tally.latency.value_at_quantile(q));
        write!(
            f,
            "{:>11.0}/s  p50 {:>9.2?}  p90 {:>9.2?}  p99 {:>9.2?}  p99.9 {:>9.2?}  errors {}{}",
            self.rate(),
            quantile(0.5),
            quantile(0.9),
            quantile(0.99),
            quantile(0.999),
            self.tally.errors,
            if self.open_loop { "  (open loop)" } else { "" },
        )
    }
}
