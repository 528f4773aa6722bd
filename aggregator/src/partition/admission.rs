use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bound before a partition's queue: records and bytes that wait or are being worked on.
#[derive(Debug)]
pub(crate) struct Gate {
    records: AtomicUsize,
    bytes: AtomicUsize,
    records_max: usize,
    bytes_max: usize,
}

/// Room taken behind a [`Gate`]; given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    gate: Arc<Gate>,
    records: usize,
    bytes: usize,
}

impl Gate {
    pub(crate) fn new(records_max: usize, bytes_max: usize) -> Self {
        Self {
            records: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            records_max,
            bytes_max,
        }
    }

    /// Takes room, or `None` when there is not enough. What is larger than the whole bound passes when nothing else is
    /// behind the gate.
    pub(crate) fn enter(self: &Arc<Self>, records: usize, bytes: usize) -> Option<Ticket> {
        let ticket = Ticket {
            gate: Arc::clone(self),
            records,
            bytes,
        };
        let before = (
            self.records.fetch_add(records, Ordering::AcqRel),
            self.bytes.fetch_add(bytes, Ordering::AcqRel),
        );
        let fits = before.0 + records <= self.records_max && before.1 + bytes <= self.bytes_max;
        (fits || before == (0, 0)).then_some(ticket)
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
        let gate = Arc::new(Gate::new(10, 1_000));
        let first = gate.enter(6, 10).unwrap();
        assert!(gate.enter(5, 10).is_none(), "too many records");
        assert!(gate.enter(1, 1_000).is_none(), "too many bytes");
        let second = gate.enter(4, 990).unwrap();
        assert!(gate.enter(1, 0).is_none());
        drop((first, second));
        assert_eq!(gate.records.load(Ordering::Relaxed), 0);
        let large = gate.enter(50, 5_000).unwrap();
        assert!(
            gate.enter(1, 1).is_none(),
            "what is larger than the bound passes alone"
        );
        drop(large);
        assert!(gate.enter(1, 1).is_some());
    }
}
