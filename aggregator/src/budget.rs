//! The bound for the memory of all partitions: what they hold that no checkpoint holds yet, and what waits for them. As it
//! fills, partitions write checkpoints earlier, then wait for those that are being written; when it is full, nothing more is
//! let in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bound that all partitions share.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    bytes_max: usize,
    partitions: usize,
}

/// Bytes taken of a [`Budget`]; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

/// How much of a bounded memory is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes in use (estimated).
    pub used_bytes: u64,
    /// The bound.
    pub max_bytes: u64,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize, partitions: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            bytes_max,
            partitions: partitions.max(1),
        })
    }

    /// A share of `bytes`, whatever is in use.
    pub(crate) fn share(self: &Arc<Self>, bytes: usize) -> Share {
        self.used.fetch_add(bytes, Ordering::AcqRel);
        Share {
            budget: Arc::clone(self),
            bytes,
        }
    }

    /// A share of `bytes` as long as any room is left: so the bound is passed by one share at the most, and one that is
    /// larger than all of it can still be had.
    pub(crate) fn try_share(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let before = self.used.fetch_add(bytes, Ordering::AcqRel);
        let share = Share {
            budget: Arc::clone(self),
            bytes,
        };
        (before < self.bytes_max).then_some(share)
    }

    /// Whether any room is left.
    pub(crate) fn has_room(&self) -> bool {
        self.used() < self.bytes_max
    }

    /// Whether a partition that holds `bytes` should write them out: half of the bound is in use, and it holds as much of that as
    /// others. So whenever half of the bound is in use, some partition should.
    pub(crate) fn presses(&self, bytes: usize) -> bool {
        let half = self.bytes_max / 2;
        self.used() >= half && bytes >= half / self.partitions
    }

    /// Whether so much is in use that whoever has a checkpoint under way should wait for it.
    pub(crate) fn is_tight(&self) -> bool {
        self.used() >= self.bytes_max / 4 * 3
    }

    pub(crate) fn in_use(&self) -> MemoryUse {
        MemoryUse {
            used_bytes: self.used() as u64,
            max_bytes: self.bytes_max as u64,
        }
    }

    fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }
}

impl Share {
    /// Makes it `bytes` large.
    pub(crate) fn set(&mut self, bytes: usize) {
        let used = &self.budget.used;
        if bytes >= self.bytes {
            used.fetch_add(bytes - self.bytes, Ordering::AcqRel);
        } else {
            used.fetch_sub(self.bytes - bytes, Ordering::AcqRel);
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_in_while_there_is_room_and_takes_back_what_is_dropped() {
        let budget = Budget::new(100, 2);
        let mut held = budget.share(0);
        held.set(90);
        let last = budget.try_share(500).unwrap();
        assert_eq!(budget.in_use().used_bytes, 590);
        assert!(budget.try_share(1).is_none(), "full");
        assert_eq!(budget.in_use().used_bytes, 590, "a refusal takes nothing");
        drop(last);
        held.set(100);
        assert!(budget.try_share(1).is_none());
        held.set(99);
        assert!(budget.has_room() && budget.try_share(1).is_some());
        drop(held);
        assert_eq!(budget.in_use().used_bytes, 0);
    }

    #[test]
    fn presses_those_who_hold_most_once_half_is_in_use() {
        let budget = Budget::new(100, 2);
        let mut one = budget.share(49);
        assert!(!budget.presses(49) && !budget.is_tight());
        one.set(50);
        assert!(budget.presses(25) && !budget.presses(24) && !budget.is_tight());
        let _other = budget.share(25);
        assert!(budget.is_tight() && budget.has_room());
    }
}
