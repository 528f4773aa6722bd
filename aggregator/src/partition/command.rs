use std::sync::Arc;

use tokio::sync::oneshot;
use turnpike_domain::event::EventBatch;
use turnpike_domain::identity::{EventName, TenantId};
use turnpike_domain::port::intake::{Correction, QuotaRecord, Rejection};
use turnpike_domain::port::views::IdEntry;
use turnpike_domain::problem::Problem;
use turnpike_domain::record::Position;
use turnpike_domain::time::Timestamp;

use super::admission::Ticket;
use super::joint::JointTicket;
use crate::query::{CopiesFull, CutTicket, Snapshot, Wanted};

/// Where an answer goes. What rests on records is told once they are durable.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Problem>>;

/// What an owner is asked to do. Commands are done in the order of their queue.
pub(crate) enum Command {
    Submit(Submit),
    /// Stops with all other partitions of a batch that is all or nothing, until one has appended all of it.
    SubmitJointly(Submit, JointTicket),
    Correct {
        name: EventName,
        change: Correction,
        at: Timestamp,
        reply: Reply<Option<Newest>>,
        ticket: Ticket,
    },
    Reject {
        rejections: Vec<Rejection>,
        reply: Reply<Vec<Position>>,
        ticket: Ticket,
    },
    Resolve {
        tenant: TenantId,
        rejected: Position,
        reply: Reply<Position>,
        ticket: Ticket,
    },
    Quota(Quota),
    /// Stops at a cut with all other partitions, then hands out what it has in memory.
    Cut {
        ticket: CutTicket,
        wanted: Arc<Wanted>,
        reply: oneshot::Sender<Result<Snapshot, CopiesFull>>,
    },
    CatalogChanged(TenantId),
    /// A thread that writes a checkpoint has ended.
    CheckpointDone,
    /// Writes a checkpoint of all that came before.
    Checkpoint(oneshot::Sender<Result<(), Problem>>),
    /// Ends at once; what is queued behind it is lost, as in a crash.
    End,
    /// Writes a last checkpoint and ends.
    Shutdown(oneshot::Sender<Result<(), Problem>>),
}

/// A quota record to be written.
pub(crate) struct Quota {
    pub record: QuotaRecord,
    pub reply: Reply<Written>,
    pub ticket: Ticket,
}

/// Those events of a batch that belong to one partition.
pub(crate) struct Submit {
    pub batch: Arc<EventBatch>,
    /// Indices into the batch.
    pub picks: Vec<u32>,
    pub reply: Reply<Vec<Decision>>,
    pub ticket: Ticket,
}

/// What an owner decided about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Written at this position.
    Accepted(Position),
    /// Its name is known; `same` when the payload's hash is.
    Seen { entry: IdEntry, same: bool },
}

impl Decision {
    /// Of the record that it rests on.
    pub(crate) const fn position(&self) -> Position {
        match self {
            Self::Accepted(position) => *position,
            Self::Seen { entry, .. } => entry.position,
        }
    }
}

/// The newest record of an event, found or just written.
#[derive(Debug)]
pub(crate) struct Newest {
    pub entry: IdEntry,
    pub record: Vec<u8>,
}

/// What became of a quota record.
#[derive(Debug)]
pub(crate) enum Written {
    At(Position),
    /// The name's newest record is another.
    Occupied(IdEntry),
}
