//! The event log: the truth for usage.

use super::{BoxFuture, StoreError};
use crate::record::{Position, Record, encode};
use crate::time::{TimeRange, Timestamp};

/// Records that a partition owner hands over together: at most [`crate::limits::BLOCK_RECORDS_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// The partition.
    pub partition: u32,
    /// The encoded records, one behind the other.
    pub bytes: Vec<u8>,
    /// Where each record ends in `bytes`.
    pub ends: Vec<u32>,
    /// From the earliest to behind the latest time of the block's events, for skipping.
    pub times: Option<TimeRange>,
}

impl Block {
    /// The encoded records in order.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|end| *end as usize));
        starts
            .zip(&self.ends)
            .map(|(start, end)| &self.bytes[start..*end as usize])
    }

    /// Adds a record that has already been encoded.
    pub fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.end();
    }

    /// Encodes a record and adds it.
    pub fn encode(&mut self, record: &Record<'_>) {
        encode(record, &mut self.bytes);
        self.end();
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a block holds one request's events at the most: far below 4 GiB"
    )]
    fn end(&mut self) {
        self.ends.push(self.bytes.len() as u32);
    }
}

/// A block as it was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBlock {
    /// Position of its first record; record `i` has index `i`.
    pub position: Position,
    /// Position behind the block: where the next block starts at the earliest.
    pub next: Position,
    /// The records.
    pub block: Block,
}

/// Where a block was put: the position of its first record, and the position behind it.
pub type Placed = (Position, Position);

/// Blocks in the order of their positions.
pub type Blocks<'a> = Box<dyn Iterator<Item = Result<StoredBlock, StoreError>> + Send + 'a>;

/// Which blocks a reader wants; the others are skipped without being unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Only {
    /// Blocks of this partition; of any when `None`.
    pub partition: Option<u32>,
    /// Blocks whose times overlap this range. A block without times is always wanted.
    pub times: Option<TimeRange>,
}

impl Only {
    /// Every block.
    pub const ALL: Self = Self {
        partition: None,
        times: None,
    };

    /// The blocks of one partition.
    pub const fn partition(partition: u32) -> Self {
        Self {
            partition: Some(partition),
            times: None,
        }
    }

    /// Whether a block of `partition` with `times` is wanted.
    pub fn wants(&self, partition: u32, times: Option<TimeRange>) -> bool {
        let overlap = match (self.times, times) {
            (Some(wanted), Some(times)) => wanted.intersect(&times).is_some(),
            _ => true,
        };
        overlap && self.partition.is_none_or(|only| only == partition)
    }
}

/// Who is told, once, how a wait for durability ended.
pub type Told = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Whether the log takes records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogHealth {
    /// It does.
    Healthy,
    /// The disk is too full; it will take records again by itself.
    Full(String),
    /// It does, but a reading has met a part of it that is not what was written. Names the file and the offset.
    Damaged(String),
    /// A write or sync failed; it takes none until the process has started anew.
    Poisoned(String),
}

/// An append-only log, made durable by groups.
///
/// Appending assigns a position at once and returns before the block is durable; nobody may be told of a record before
/// [`EventLog::wait_durable`] has passed its position.
pub trait EventLog: Send + Sync {
    /// Hands blocks, of any partitions, to the writer as one: they become durable together or not at all, whatever
    /// stops the process. Returns for each the position of its first record and the position behind it.
    /// Blocks its caller while the bounded queue before the disk is full. An error means that none was taken.
    fn append_all(&self, blocks: Vec<Block>) -> Result<Vec<Placed>, StoreError>;

    /// The same for one block.
    fn append(&self, block: Block) -> Result<Placed, StoreError> {
        let placed = self.append_all(vec![block])?;
        let none = || StoreError::Failed("a block was given no place".to_owned());
        placed.into_iter().next().ok_or_else(none)
    }

    /// Everything before this position is durable.
    fn durable(&self) -> Position;

    /// Resolves when everything before `position` is durable, or with the failure that prevents it.
    /// A position behind [`EventLog::end`] is waited for until records reach it.
    fn wait_durable(&self, position: Position) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The same for one who is told: at once, or on the thread that writes, which must not be held up.
    fn when_durable(&self, position: Position, told: Told);

    /// The same for a thread without a runtime.
    fn wait_durable_blocking(&self, position: Position) -> Result<(), StoreError>;

    /// Durable blocks from the one at or behind `from` on, until the durable end at the time of the call.
    /// Damaged bytes end it with [`StoreError::Damaged`].
    fn read(&self, from: Position, only: Only) -> Blocks<'_>;

    /// The same, but newest first: durable blocks before `until`, for looking back.
    fn read_back(&self, until: Position, only: Only) -> Blocks<'_>;

    /// The encoded record at `position`, durable or not. [`StoreError::Gone`] where no record is kept.
    fn fetch(&self, position: Position) -> Result<Vec<u8>, StoreError>;

    /// Deletes whole segments in which every record lies before `before`, never the last segment.
    /// Returns the first position that is still kept. Every event before `before` counts for a time before `horizon`,
    /// which is kept durably before anything is deleted.
    fn retain(&self, before: Position, horizon: Timestamp) -> Result<Position, StoreError>;

    /// Events that count for a time before this may have been deleted, no others; `None` while nothing has been.
    fn horizon(&self) -> Option<Timestamp>;

    /// The first position that is still kept.
    fn first(&self) -> Position;

    /// The position behind the last block that was taken.
    fn end(&self) -> Position;

    /// Whether records are taken.
    fn health(&self) -> LogHealth;

    /// Bytes on disk.
    fn bytes(&self) -> u64;
}
