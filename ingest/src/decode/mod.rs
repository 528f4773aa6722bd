//! From the bytes of a body to batches of events, each read once.

mod amendment;
pub(crate) mod binary;
pub(crate) mod cloudevents;
pub(crate) mod lines;
mod refused;

use std::sync::Arc;

use turnpike_domain::event::EventBatch;
use turnpike_domain::json::Scanner;
use turnpike_domain::limits::{STREAM_PIECE_BYTES, STREAM_PIECE_EVENTS};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::Timestamp;

pub(crate) use amendment::read_amendment;
use cloudevents::{EventReader, Origin, Refusal, too_large};
use lines::Line;
pub(crate) use refused::{Kept, Refusals, Refused};

/// Events that go on together: those that are good, and those that were refused among them.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Index of the first event.
    pub(crate) first: u64,
    pub(crate) batch: Arc<EventBatch>,
    pub(crate) refused: Refusals,
}

impl Piece {
    /// How many events it has, refused ones too.
    pub(crate) fn len(&self) -> usize {
        self.batch.len() + self.refused.len()
    }

    /// Bytes that it holds in memory, nearly.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.batch.entries()) + self.batch.bytes_len() + self.refused.bytes()
    }

    /// The indexes of the good events, in the order of the batch, as far as an answer may name them: up to the first
    /// refused event that is only counted.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = u64> {
        let first = self.refused.first();
        let end = match first.last() {
            _ if self.refused.only_counted() == 0 => self.first + self.len() as u64,
            Some(last) => last.index,
            None => self.first,
        };
        let mut refused = first.iter().map(|refused| refused.index).peekable();
        (self.first..end).filter(move |index| refused.next_if_eq(index).is_none())
    }
}

/// What a whole body was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One bare event.
    Single,
    /// An array of events.
    Many,
}

/// About as many bytes as an event is sent in.
const USUAL_EVENT_BYTES: usize = 200;

/// Puts events together to pieces.
pub(crate) struct Assembler<'k> {
    origin: Origin<'k>,
    /// Whether one more refused event may be kept as a dead letter.
    may_keep: &'k (dyn Fn() -> bool + Sync),
    reader: EventReader,
    first: u64,
    batch: EventBatch,
    refused: Refusals,
}

impl<'k> Assembler<'k> {
    pub(crate) fn new(origin: Origin<'k>, may_keep: &'k (dyn Fn() -> bool + Sync)) -> Self {
        Self {
            origin,
            may_keep,
            reader: EventReader::default(),
            first: 0,
            batch: EventBatch::default(),
            refused: Refusals::default(),
        }
    }

    /// Reads what follows as received at `received`.
    pub(crate) fn received_at(&mut self, received: Timestamp) {
        self.origin.received = received;
    }

    /// Makes room for events that are sent in so many bytes more: they take less than that, and a piece has a bound.
    pub(crate) fn expect(&mut self, bytes: usize) {
        let bytes = bytes.min(STREAM_PIECE_BYTES.saturating_sub(self.bytes()));
        let events = (bytes / USUAL_EVENT_BYTES).min(STREAM_PIECE_EVENTS.saturating_sub(self.len()));
        self.batch.reserve(events, bytes);
    }

    /// How many events the piece has, refused ones too.
    pub(crate) fn len(&self) -> usize {
        self.batch.len() + self.refused.len()
    }

    /// Bytes of the texts of the piece's events, and of what is kept of the refused ones.
    pub(crate) fn bytes(&self) -> usize {
        self.batch.bytes_len() + self.refused.bytes()
    }

    /// Whether the piece should go on.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= STREAM_PIECE_EVENTS || self.bytes() >= STREAM_PIECE_BYTES
    }

    /// Takes the piece and begins the next.
    pub(crate) fn take(&mut self) -> Piece {
        let following = if self.is_full() {
            EventBatch::with_capacity(self.batch.len(), self.batch.bytes_len())
        } else {
            EventBatch::default()
        };
        let piece = Piece {
            first: self.first,
            batch: Arc::new(std::mem::replace(&mut self.batch, following)),
            refused: self.refused.take(),
        };
        self.first += piece.len() as u64;
        piece
    }

    /// Adds the event of one line, which stands alone; a blank line is none.
    pub(crate) fn line(&mut self, line: &Line<'_>) {
        match line {
            Line::Whole(bytes) if bytes.iter().all(|byte| b" \t\r\n".contains(byte)) => {}
            _ => self.event(line),
        }
    }

    /// Adds the event that is all of `line`, be it good or refused.
    pub(crate) fn event(&mut self, line: &Line<'_>) {
        match line {
            Line::Whole(bytes) => {
                if let Err(refusal) = self.whole_line(bytes) {
                    self.refuse(refusal, bytes, false);
                }
            }
            Line::TooLong { head, bytes } => {
                let refusal = Refusal {
                    problem: too_large(*bytes),
                    id: String::new(),
                };
                self.refuse(refusal, head, true);
            }
        }
    }

    fn whole_line(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let broken = |problem| Refusal {
            problem,
            id: String::new(),
        };
        let text = utf8(bytes, "the line").map_err(broken)?;
        let mut scanner = Scanner::new(text);
        let read = self
            .reader
            .read_alone(&self.origin, &mut scanner, &mut self.batch);
        read.map_err(|error| broken(not_json("the line", &error)))?
    }

    /// Adds the event or the array of events that is the whole of `bytes`. An error refuses all of them.
    pub(crate) fn body(&mut self, bytes: &[u8]) -> Result<Form, Problem> {
        let text = utf8(bytes, "the body")?;
        let mut scanner = Scanner::new(text);
        match scanner.peek() {
            None => Err(Problem::new(Code::InvalidJson, "the body is empty")),
            Some(b'[') => self.array(&mut scanner).map(|()| Form::Many),
            Some(_) => {
                let read = self
                    .reader
                    .read_alone(&self.origin, &mut scanner, &mut self.batch);
                if let Err(refusal) = read.map_err(|error| not_json("the body", &error))? {
                    self.refuse(refusal, bytes, false);
                }
                Ok(Form::Single)
            }
        }
    }

    fn array(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Problem> {
        scanner.take(b'[');
        if !scanner.take(b']') {
            loop {
                scanner.peek();
                let start = scanner.at();
                let read = self.reader.read(&self.origin, scanner, &mut self.batch);
                if let Err(refusal) = read.map_err(|error| not_json("the body", &error))? {
                    self.refuse(refusal, scanner.since(start).as_bytes(), false);
                }
                if scanner.take(b']') {
                    break;
                }
                if !scanner.take(b',') {
                    let error = scanner.wrong("a comma or a closing bracket is missing");
                    return Err(not_json("the body", &error));
                }
            }
        }
        scanner.end().map_err(|error| not_json("the body", &error))
    }

    #[cold]
    fn refuse(&mut self, refusal: Refusal, raw: &[u8], more: bool) {
        let index = self.first + self.len() as u64;
        self.refused.push(|| Refused {
            index,
            id: refusal.id,
            problem: refusal.problem,
            kept: (self.may_keep)().then(|| Kept::new(raw, more)),
        });
    }
}

/// `bytes` as text, or the problem that names `what` they are.
pub(crate) fn utf8<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| {
        let detail = format!("{what} is not UTF-8 at byte {}", error.valid_up_to());
        Problem::new(Code::InvalidJson, detail)
    })
}

/// The problem of a text that is not JSON.
pub(crate) fn not_json(what: &str, error: &impl std::fmt::Display) -> Problem {
    Problem::new(Code::InvalidJson, format!("{what} is not valid JSON: {error}"))
}
