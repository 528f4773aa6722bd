//! The way into the log: what the gateway and the quota engine ask of the partition owners.

use std::sync::Arc;

use super::BoxFuture;
use crate::event::EventBatch;
use crate::identity::{EventName, TenantId};
use crate::problem::Problem;
use crate::record::Position;
use crate::time::Timestamp;

/// What became of an event. Told only once it is durable (for a duplicate or conflict: once the first one is).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// New, durable and counted.
    Accepted(Position),
    /// Seen before with the same payload.
    Duplicate(Position),
    /// Seen before with another payload; the first one stands.
    Conflict(Position),
}

/// Quota that was taken in memory for an event or a reservation that is on its way to the log.
///
/// The partition owner passes it on with the change that it applies ([`super::usage::UsageChange::hold`]), so that
/// what was already taken is not counted again. Where the record is not applied (duplicate, conflict, failure) the
/// submitter gives the quota back itself.
pub type Hold = Arc<dyn std::any::Any + Send + Sync>;

/// A correction of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Correction {
    /// Takes the event back.
    Void,
    /// Replaces `data` (JSON text of an object) and/or `time`.
    Amend {
        /// The new data.
        data: Option<String>,
        /// The new time.
        time: Option<Timestamp>,
    },
}

/// A refused event on its way to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The tenant.
    pub tenant: TenantId,
    /// When it arrived.
    pub received: Timestamp,
    /// Slug of the error code.
    pub code: String,
    /// What was wrong.
    pub detail: String,
    /// Its id where it could be read, else empty.
    pub id: String,
    /// The first bytes, cut to [`crate::limits::DEAD_LETTER_BYTES_MAX`].
    pub raw: Vec<u8>,
    /// Whether `raw` was cut.
    pub cut: bool,
}

/// An encoded [`crate::record::Record`] that changes the state of a quota name (reserve, release, commit).
#[derive(Clone)]
pub struct QuotaRecord {
    /// Name of (tenant, `turnpike:quota`, id).
    pub name: EventName,
    /// Hash of the request's body.
    pub digest: u64,
    /// The encoded record: `Reserved`, `Released` or `Committed`, or `Event` for a consume.
    pub record: Vec<u8>,
    /// The state of the name that this record requires; another state answers without writing.
    pub expect: Expect,
    /// Quota taken in memory for it.
    pub hold: Option<Hold>,
}

/// The state of a name that a [`QuotaRecord`] requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The name is new, or stands at a released reservation.
    Free,
    /// The newest record of the name is the one at this position.
    At(Position),
}

/// What became of a [`QuotaRecord`]; durable when told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuotaOutcome {
    /// Written and applied.
    Written(Position),
    /// Not written: the name's newest record is another one.
    Occupied(Known),
}

/// The newest record of a name; durable when told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its position.
    pub position: Position,
    /// Hash of the first payload.
    pub digest: u64,
    /// The encoded record.
    pub record: Vec<u8>,
    /// Where that voids or amends an event: the encoded record that the event came with, unless it has been deleted.
    pub first: Option<Vec<u8>>,
}

/// The partition owners, as those who write see them. All calls answer after the records are durable, and are refused
/// with 503 and nothing kept when a queue is full, the disk is full, or the log is poisoned.
pub trait Intake: Send + Sync {
    /// Decides, writes and counts events. Outcomes are in the batch's order. The batch is shared, so that its partitions
    /// can read from it side by side, and the submitter can name the events that conflict.
    ///
    /// # Errors
    /// Where some of its partitions could not write, the others' events count all the same, and the problem says how many,
    /// unless the batch [is all or nothing](EventBatch::is_all_or_nothing).
    fn submit(&self, batch: Arc<EventBatch>) -> BoxFuture<'_, Result<Vec<Outcome>, Problem>>;

    /// Voids or amends the event of that name. `None`: there is no such event. The record is the event's newest,
    /// whether written now or, for a repeat, before.
    fn correct(
        &self,
        name: EventName,
        change: Correction,
        at: Timestamp,
    ) -> BoxFuture<'_, Result<Option<Known>, Problem>>;

    /// Keeps refused events as dead letters.
    fn reject(&self, rejections: Vec<Rejection>) -> BoxFuture<'_, Result<Vec<Position>, Problem>>;

    /// Marks a dead letter as dealt with.
    fn resolve(&self, tenant: TenantId, rejected: Position) -> BoxFuture<'_, Result<(), Problem>>;

    /// Writes a quota record if the name is in the state it expects.
    fn quota(&self, record: QuotaRecord) -> BoxFuture<'_, Result<QuotaOutcome, Problem>>;

    /// The newest records of names, in the order asked.
    fn lookup(&self, names: Vec<EventName>) -> BoxFuture<'_, Result<Vec<Option<Known>>, Problem>>;
}
