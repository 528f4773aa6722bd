//! Looking at raw events and dead letters.

use super::BoxFuture;
use crate::identity::TenantId;
use crate::problem::Problem;
use crate::record::{EventRecord, Position};
use crate::time::{TimeRange, Timestamp};

/// Which events to show. What is not named is not restricted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventQuery {
    /// Only these subjects (a customer's, say). An empty list matches nothing.
    pub subjects: Option<Vec<String>>,
    /// Only this `type`.
    pub kind: Option<String>,
    /// Only events that count for a time in this range.
    pub range: TimeRange,
    /// Only this `source`.
    pub source: Option<String>,
    /// Only this `id`. With `source` the event is looked up directly.
    pub id: Option<String>,
    /// Events at the most, from 1.
    pub limit: usize,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// How an event stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventStatus {
    /// It counts as it was sent.
    Accepted,
    /// It counts with other data or another time than it was sent with.
    Amended,
    /// It was taken back.
    Voided,
}

/// An event as it counts now; a voided one as it counted last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventView {
    /// Position of its newest record.
    pub position: Position,
    /// How it stands.
    pub status: EventStatus,
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `id`.
    pub id: String,
    /// CloudEvents `type`.
    pub kind: String,
    /// CloudEvents `subject`.
    pub subject: String,
    /// The time that it counts for.
    pub time: Timestamp,
    /// When it arrived.
    pub received: Timestamp,
    /// `data` as JSON text.
    pub data: String,
    /// Other attributes as the text of a JSON object; empty when there are none.
    pub extensions: String,
}

impl EventView {
    /// The event of the record at `position`, which is its newest one.
    pub fn of(event: &EventRecord<'_>, status: EventStatus, position: Position) -> Self {
        Self {
            position,
            status,
            source: event.source.to_owned(),
            id: event.id.to_owned(),
            kind: event.kind.to_owned(),
            subject: event.subject.to_owned(),
            time: event.time(),
            received: Timestamp::from_micros_clamped(event.received_us),
            data: event.data.to_owned(),
            extensions: event.extensions.to_owned(),
        }
    }
}

/// A page of events, the one accepted last first. A correction leaves an event at its place, but for one whose time it moves
/// into a range that is asked for: that one stands where the correction does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventPage {
    /// The events: as many as were asked for, unless there are no more, or their data is long.
    pub events: Vec<EventView>,
    /// Where the next page begins, if there is any event on it. It tells nothing else.
    pub next_cursor: Option<String>,
}

/// Something that could not be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetter {
    /// An event was refused.
    Refused {
        /// Position of its `Rejected` record.
        position: Position,
        /// When it arrived.
        received: Timestamp,
        /// Slug of the error code.
        code: String,
        /// What was wrong.
        detail: String,
        /// The id, where it could be read, else empty.
        id: String,
        /// The first bytes of what was sent.
        raw: Vec<u8>,
        /// Whether `raw` was cut.
        cut: bool,
    },
    /// A meter could not read an accepted event. Gone once the event is amended or voided.
    Unreadable {
        /// Position of the event's first record.
        position: Position,
        /// The meter's key.
        meter: String,
        /// The event's `source`.
        source: String,
        /// The event's `id`.
        id: String,
        /// What was wrong.
        detail: String,
    },
}

impl DeadLetter {
    /// Its position: the order of listing.
    pub const fn position(&self) -> Position {
        match self {
            Self::Refused { position, .. } | Self::Unreadable { position, .. } => *position,
        }
    }
}

/// A page of dead letters, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadLetterPage {
    /// The dead letters.
    pub letters: Vec<DeadLetter>,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
}

/// How far a meter has filled itself from the events before its making.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Backfill {
    /// Whether every event ever accepted is counted, as far as raw events are kept.
    pub complete: bool,
    /// Events timed before this may be missing: they had been deleted by retention when the meter was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub lacks_before: Option<Timestamp>,
    /// Bytes of the log that were there before the meter.
    pub total_bytes: u64,
    /// How many of them have been read.
    pub done_bytes: u64,
}

/// Reads raw events, dead letters and the progress of meters.
pub trait History: Send + Sync {
    /// Accepted events, the one accepted last first.
    fn events(&self, tenant: TenantId, query: EventQuery) -> BoxFuture<'_, Result<EventPage, Problem>>;

    /// Dead letters that have not been dealt with, newest first.
    fn dead_letters(
        &self,
        tenant: TenantId,
        limit: usize,
        cursor: Option<String>,
    ) -> BoxFuture<'_, Result<DeadLetterPage, Problem>>;

    /// How far the meter with this key is; `None` when there is no such meter.
    fn backfill(&self, tenant: TenantId, meter: &str) -> Option<Backfill>;
}
