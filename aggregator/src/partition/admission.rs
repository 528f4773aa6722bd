use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::budget::{Budget, Share};

/// Bytes that a record is expected to take in memory once it is counted: its id, and a window of its own in most cases.
const RECORD_BYTES: usize = 512;

/// The bound before a partition's queue: records and bytes that wait or are being worked on; and before the memory of all
/// partitions.
#[derive(Debug)]
pub(crate) struct Gate {
    records: AtomicUsize,
    bytes: AtomicUsize,
    records_max: usize,
    bytes_max: usize,
    budget: Arc<Budget>,
}

/// What there is no room in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The partition's queue.
    Queue,
    /// The memory of all partitions.
    Memory,
}

/// Room taken behind a [`Gate`]; given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    gate: Arc<Gate>,
    records: usize,
    bytes: usize,
    _memory: Share,
}

impl Gate {
    pub(crate) fn new(records_max: usize, bytes_max: usize, budget: Arc<Budget>) -> Self {
        Self {
            budget,
            records: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            records_max,
            bytes_max,
        }
    }

    /// Takes room, or says where there is not enough. What is larger than the whole bound passes when nothing else is behind
    /// the gate.
    pub(crate) fn enter(self: &Arc<Self>, records: usize, bytes: usize) -> Result<Ticket, NoRoom> {
        let memory = self.budget.try_share(bytes + records * RECORD_BYTES);
        let ticket = Ticket {
            gate: Arc::clone(self),
            records,
            bytes,
            _memory: memory.ok_or(NoRoom::Memory)?,
        };
        let before = (
            self.records.fetch_add(records, Ordering::AcqRel),
            self.bytes.fetch_add(bytes, Ordering::AcqRel),
        );
        let fits = before.0 + records <= self.records_max && before.1 + bytes <= self.bytes_max;
        if fits || before == (0, 0) {
            Ok(ticket)
        } else {
            Err(NoRoom::Queue)
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gate.records.fetch_sub(self.records, Ordering::AcqRel);
        self.gate.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_in_as_much_as_fits_and_gives_room_back() {
        let budget = Budget::new(1_000_000, 1);
        let gate = Arc::new(Gate::new(10, 1_000, Arc::clone(&budget)));
        let first = gate.enter(6, 10).unwrap();
        assert_eq!(gate.enter(5, 10).unwrap_err(), NoRoom::Queue, "too many records");
        assert_eq!(gate.enter(1, 1_000).unwrap_err(), NoRoom::Queue, "too many bytes");
        let second = gate.enter(4, 990).unwrap();
        assert!(gate.enter(1, 0).is_err());
        drop((first, second));
        assert_eq!(gate.records.load(Ordering::Relaxed), 0);
        let large = gate.enter(50, 5_000).unwrap();
        assert!(
            gate.enter(1, 1).is_err(),
            "what is larger than the bound passes alone"
        );
        drop(large);
        assert!(gate.enter(1, 1).is_ok());
        let full = budget.share(1_000_000);
        assert_eq!(gate.enter(1, 1).unwrap_err(), NoRoom::Memory);
        drop(full);
        assert!(gate.enter(1, 1).is_ok());
        assert_eq!(budget.in_use().used_bytes, 0);
    }
}
