//! How many refused events are kept as dead letters: a bucket for each tenant.

use dashmap::DashMap;
use turnpike_domain::identity::TenantId;

/// Lets `per_s` dead letters a second through for each tenant, and `burst` at once after a quiet time.
pub(crate) struct LetterGate {
    per_s: u64,
    burst: u64,
    buckets: DashMap<TenantId, Bucket>,
}

/// A bucket in millionths of a letter, so that a microsecond adds `per_s` of them.
struct Bucket {
    millionths: u64,
    seen_us: u64,
}

const LETTER: u64 = 1_000_000;

impl LetterGate {
    pub(crate) fn new(per_s: u32, burst: u32) -> Self {
        Self {
            per_s: per_s.into(),
            burst: burst.into(),
            buckets: DashMap::new(),
        }
    }

    /// Whether one more refused event of `tenant` is kept at `now_us` of a clock that never steps back.
    pub(crate) fn admit(&self, tenant: TenantId, now_us: u64) -> bool {
        let full = self.burst * LETTER;
        let mut bucket = self.buckets.entry(tenant).or_insert(Bucket {
            millionths: full,
            seen_us: now_us,
        });
        let passed_us = now_us.saturating_sub(bucket.seen_us);
        bucket.seen_us = bucket.seen_us.max(now_us);
        bucket.millionths = bucket
            .millionths
            .saturating_add(passed_us.saturating_mul(self.per_s))
            .min(full);
        match bucket.millionths.checked_sub(LETTER) {
            Some(left) => {
                bucket.millionths = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_each_tenant_for_itself() {
        let gate = LetterGate::new(10, 5);
        let kept = |tenant, at| (0..100).filter(|_| gate.admit(TenantId(tenant), at)).count();
        assert_eq!(kept(1, 0), 5);
        assert_eq!(kept(2, 0), 5);
        assert_eq!(kept(1, 99_999), 0);
        assert_eq!(kept(1, 100_000), 1);
        assert_eq!(kept(1, 400_000), 3);
        assert_eq!(kept(1, u64::MAX), 5);
        assert_eq!(kept(1, 0), 0);
    }

    #[test]
    fn none_are_kept_where_none_may_be() {
        let gate = LetterGate::new(0, 0);
        assert!(!gate.admit(TenantId(1), 0));
        assert!(!gate.admit(TenantId(1), u64::MAX));
    }
}
