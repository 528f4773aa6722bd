//! Events that were refused: how many, and of the first ones why.

use turnpike_domain::limits::{DEAD_LETTER_BYTES_MAX, EVENT_ERRORS_LISTED_MAX};
use turnpike_domain::problem::Problem;

/// An event that was refused.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Its place among the events of its request.
    pub(crate) index: u64,
    /// Its id where it could be read, else empty.
    pub(crate) id: String,
    pub(crate) problem: Problem,
    /// What is kept of it; `None` when the tenant's rate of dead letters is used up.
    pub(crate) kept: Option<Kept>,
}

/// The first bytes of what was sent.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) raw: Vec<u8>,
    pub(crate) cut: bool,
}

impl Kept {
    /// Keeps the beginning of `raw`, of which `more` bytes are already gone.
    pub(crate) fn new(raw: &[u8], more: bool) -> Self {
        Self {
            raw: raw[..raw.len().min(DEAD_LETTER_BYTES_MAX)].to_vec(),
            cut: more || raw.len() > DEAD_LETTER_BYTES_MAX,
        }
    }
}

/// The refused events of one piece. An invalid event may be two bytes long and its reason some hundred, so of a whole body only
/// as many as an answer lists are kept; those behind them are counted.
#[derive(Debug)]
pub(crate) struct Refusals {
    /// Ascending by index, at most [`EVENT_ERRORS_LISTED_MAX`] of all pieces of a body.
    first: Vec<Refused>,
    total: usize,
    bytes: usize,
    /// How many more may be kept.
    room: usize,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            first: Vec::new(),
            total: 0,
            bytes: 0,
            room: EVENT_ERRORS_LISTED_MAX,
        }
    }
}

impl Refusals {
    /// Takes these, and leaves those of the next piece of the same body.
    pub(super) fn take(&mut self) -> Self {
        let next = Self {
            room: self.room,
            ..Self::default()
        };
        std::mem::replace(self, next)
    }

    /// Adds the next refused event. `refused` is asked only for one that is kept.
    pub(super) fn push(&mut self, refused: impl FnOnce() -> Refused) {
        self.total += 1;
        if self.room > 0 {
            self.room -= 1;
            let refused = refused();
            self.bytes += refused.bytes();
            self.first.push(refused);
        }
    }

    /// How many were refused.
    pub(crate) const fn len(&self) -> usize {
        self.total
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// How many are counted only: neither their reasons nor dead letters are kept.
    pub(crate) const fn only_counted(&self) -> usize {
        self.total - self.first.len()
    }

    /// The first ones, ascending by index.
    pub(crate) fn first(&self) -> &[Refused] {
        &self.first
    }

    pub(crate) fn first_mut(&mut self) -> &mut [Refused] {
        &mut self.first
    }

    /// Bytes that they hold in memory, nearly.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Refused {
    fn bytes(&self) -> usize {
        let fields = self.problem.fields.iter();
        let words = fields.map(|field| size_of_val(field) + field.pointer.len() + field.detail.len());
        let kept = self.kept.as_ref().map_or(0, |kept| kept.raw.len());
        size_of::<Self>() + self.id.len() + self.problem.detail.len() + words.sum::<usize>() + kept
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use turnpike_domain::identity::{NameKey, TenantId};
    use turnpike_domain::time::Timestamp;

    use super::*;
    use crate::decode::cloudevents::{NoDefaults, Origin};
    use crate::decode::lines::Line;
    use crate::decode::{Assembler, Piece};

    fn origin() -> Origin<'static> {
        let now = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
        Origin {
            key: &NameKey([7; 16]),
            tenant: TenantId(1),
            now,
            horizon: Timestamp::EPOCH,
            received: now,
            defaults: &NoDefaults,
        }
    }

    fn assembled(fill: impl FnOnce(&mut Assembler<'_>)) -> Piece {
        let may_keep = || true;
        let mut assembler = Assembler::new(origin(), &may_keep);
        fill(&mut assembler);
        assembler.take()
    }

    fn is_bounded(piece: &Piece, total: usize) {
        assert_eq!((piece.len(), piece.refused.len()), (total, total));
        assert_eq!(piece.refused.first().len(), EVENT_ERRORS_LISTED_MAX);
        assert_eq!(piece.refused.first.capacity(), 1_024);
        assert!(
            piece.bytes() < 1024 * EVENT_ERRORS_LISTED_MAX,
            "{}",
            piece.bytes()
        );
        assert!(piece.indexes().next().is_none());
    }

    #[test]
    fn millions_of_invalid_events_keep_no_more_than_an_answer_lists() {
        const MANY: usize = 2_000_000;
        for element in ["{}", "1"] {
            let body = format!("[{}{element}]", format!("{element},").repeat(MANY - 1));
            let piece = assembled(|assembler| {
                assembler.body(body.as_bytes()).unwrap();
            });
            is_bounded(&piece, MANY);
        }
        let lines = assembled(|assembler| (0..MANY).for_each(|_| assembler.line(&Line::Whole(b"{}"))));
        is_bounded(&lines, MANY);
    }

    /// Also where a body is a stream of many pieces, whose answer lists no more: their reasons cost nothing then.
    #[test]
    fn of_a_stream_no_more_are_kept_than_its_answer_lists() {
        let good = br#"{"id": "a", "source": "s", "type": "t", "subject": "u"}"#;
        let asked = AtomicUsize::new(0);
        let may_keep = || asked.fetch_add(1, Ordering::Relaxed) < usize::MAX;
        let mut assembler = Assembler::new(origin(), &may_keep);
        let mut kept = Vec::new();
        for _ in 0..4 {
            for _ in 0..400 {
                assembler.line(&Line::Whole(b"{}"));
            }
            assembler.line(&Line::Whole(good));
            let piece = assembler.take();
            assert_eq!((piece.refused.len(), piece.batch.len()), (400, 1));
            kept.push((piece.refused.first().len(), piece.indexes().collect::<Vec<_>>()));
        }
        // Of the third piece 200 are only counted, so the good event behind them has no index that is known.
        let expected = [(400, vec![400]), (400, vec![801]), (200, vec![]), (0, vec![])];
        assert_eq!(kept, expected);
        assert_eq!(asked.load(Ordering::Relaxed), EVENT_ERRORS_LISTED_MAX);
    }

    #[test]
    fn good_events_are_named_up_to_the_first_refused_one_that_is_only_counted() {
        let good = r#"{"id": "a", "source": "s", "type": "t", "subject": "u"}"#;
        let mut elements = vec![good];
        elements.extend(["1"; EVENT_ERRORS_LISTED_MAX]);
        elements.push(good);
        let piece = |elements: &[&str]| {
            let body = format!("[{}]", elements.join(","));
            assembled(|assembler| {
                assembler.body(body.as_bytes()).unwrap();
            })
        };
        assert_eq!(piece(&elements).indexes().collect::<Vec<_>>(), [0, 1_001]);
        elements.extend(["1", good]);
        let piece = piece(&elements);
        assert_eq!(piece.indexes().collect::<Vec<_>>(), [0]);
        assert_eq!((piece.batch.len(), piece.refused.only_counted()), (3, 1));
    }
}
