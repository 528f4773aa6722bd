//! How long calls were waited for.

use std::time::{Duration, Instant};

/// What the machine's other work may add to any figure: a test runs beside others, on few processors.
const ALLOWANCE: Duration = Duration::from_millis(100);

/// Waits of one kind of call.
#[derive(Debug, Clone, Default)]
pub struct Waits(Vec<Duration>);

impl Waits {
    /// Waits for `call`.
    pub async fn time<T>(&mut self, call: impl Future<Output = T>) -> T {
        let begin = Instant::now();
        let answer = call.await;
        self.add(begin.elapsed());
        answer
    }

    /// Adds one that was measured elsewhere.
    pub fn add(&mut self, wait: Duration) {
        self.0.push(wait);
    }

    /// The wait that 99 of 100 calls did not exceed (nearest rank).
    ///
    /// # Panics
    /// Where there was no call.
    pub fn p99(&self) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        let rank = (sorted.len() * 99).div_ceil(100);
        sorted[rank - 1]
    }

    /// The longest wait.
    pub fn max(&self) -> Duration {
        self.0.iter().max().copied().unwrap_or_default()
    }

    /// The p99 must be at most `times` that of `normal`, but for an allowance of 100 ms.
    pub fn assert_at_most(&self, times: u32, normal: &Self) {
        let (found, normal) = (self.p99(), normal.p99());
        println!("p99 {found:?}, normally {normal:?}");
        assert!(
            found <= normal * times + ALLOWANCE,
            "p99 {found:?} is more than {times} × {normal:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_rank() {
        let waits = |millis: u64| Waits((1..=millis).map(Duration::from_millis).collect());
        assert_eq!(waits(100).p99(), Duration::from_millis(99));
        assert_eq!(waits(10).p99(), Duration::from_millis(10));
        assert_eq!(waits(1).p99(), waits(1).max());
        waits(300).assert_at_most(1, &waits(200));
    }

    #[test]
    #[should_panic(expected = "is more than 2 ×")]
    fn slower_calls_are_seen() {
        let (slow, normal) = (Duration::from_millis(301), Duration::from_millis(100));
        Waits(vec![slow]).assert_at_most(2, &Waits(vec![normal]));
    }
}
