use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

/// Keys remembered at the most; beyond it those that called longest ago are forgotten, however many come.
const KEYS_MAX: u64 = 65_536;

/// A rate per key, with a burst of as many as its window allows: the generic cell rate algorithm, which keeps one number
/// per key (the time at which a bucket of tokens would be full again).
/// Source: ITU-T I.371, "virtual scheduling"; one compare-and-swap per decision.
pub struct Rates<K> {
    full_at_us: Cache<K, Arc<AtomicU64>>,
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Default for Rates<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Rates<K> {
    /// Full buckets for everybody.
    pub fn new() -> Self {
        let full_at_us = Cache::builder()
            .max_capacity(KEYS_MAX)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { full_at_us }
    }

    /// Takes one of `count` (at once after a quiet time) per `window_us` for `key` at `now_us`: how many are left; else the seconds after which one is
    /// free, at least 1.
    pub fn take(&self, key: &K, count: u32, window_us: u64, now_us: u64) -> Result<u32, u32> {
        if count == 0 {
            return Err(u32::MAX);
        }
        let cell = self.full_at_us.get_with_by_ref(key, Arc::default);
        let step = window_us / u64::from(count);
        let mut full_at = cell.load(Ordering::Relaxed);
        loop {
            let next = full_at.max(now_us) + step;
            if next > now_us + window_us.max(step) {
                let wait_us = next - (now_us + window_us.max(step));
                return Err(u32::try_from(wait_us.div_ceil(1_000_000))
                    .unwrap_or(u32::MAX)
                    .max(1));
            }
            match cell.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    let left = (now_us + window_us.max(step) - next) / step.max(1);
                    return Ok(u32::try_from(left).unwrap_or(u32::MAX));
                }
                Err(other) => full_at = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_burst_then_the_rate() {
        let rates = Rates::new();
        let now = 5 * SECOND;
        let burst = (0..100)
            .filter(|_| rates.take(&1, 10, SECOND, now).is_ok())
            .count();
        assert_eq!(burst, 10);
        assert_eq!(rates.take(&1, 10, SECOND, now), Err(1));
        let later = (0..100)
            .filter(|_| rates.take(&1, 10, SECOND, now + SECOND / 2).is_ok())
            .count();
        assert_eq!(later, 5);
        assert!(
            rates.take(&2, 10, SECOND, now).is_ok(),
            "another key is not concerned"
        );
    }

    #[test]
    fn what_is_left_is_told() {
        let rates = Rates::new();
        let left: Vec<_> = (0..4).map(|_| rates.take(&1, 3, SECOND, SECOND)).collect();
        assert_eq!(left, [Ok(2), Ok(1), Ok(0), Err(1)]);
        assert_eq!(rates.take(&1, 3, SECOND, 3 * SECOND), Ok(2));
    }

    #[test]
    fn nothing_is_taken_of_nothing() {
        let rates = Rates::new();
        assert_eq!(rates.take(&1, 0, SECOND, SECOND), Err(u32::MAX));
    }

    #[test]
    fn over_a_long_time_exactly_the_rate() {
        let rates = Rates::new();
        let granted = (0..10_000u64)
            .filter(|tick| rates.take(&1, 7, SECOND, tick * 10_000).is_ok())
            .count();
        // 100 seconds at 7 per second, and the burst of the first window.
        assert!((700..=707).contains(&granted), "{granted}");
    }

    #[test]
    fn a_flood_of_keys_takes_bounded_memory_and_frees_nobody_who_calls() {
        let rates = Rates::new();
        assert!(rates.take(&0, 1, SECOND, SECOND).is_ok());
        for key in 1..2 * KEYS_MAX {
            assert!(rates.take(&key, 1, SECOND, SECOND).is_ok());
            if key % 1_000 == 0 {
                assert!(rates.take(&0, 1, SECOND, SECOND).is_err());
            }
        }
        rates.full_at_us.run_pending_tasks();
        assert!(rates.full_at_us.entry_count() <= KEYS_MAX);
    }

    #[test]
    fn threads_share_one_rate() {
        let rates = Rates::new();
        let granted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..1_000)
                            .filter(|_| rates.take(&1, 50, SECOND, SECOND).is_ok())
                            .count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(granted, 50);
    }
}
