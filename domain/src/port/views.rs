//! The durable views of one partition: the ids that it has seen, and ordered rows (windows, open reservations, dead
//! letters). Views carry the log position that they contain and can be dropped and rebuilt from the log.

use std::ops::Range;
use std::sync::Arc;

use super::StoreError;
use crate::identity::EventName;
use crate::record::Position;

/// What is remembered of an event's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdEntry {
    /// Hash of the first payload.
    pub digest: u64,
    /// Position of the newest record about the event: the event itself, its last amendment, its void, its reservation.
    pub position: Position,
}

/// One row of a view. Keys are ordered as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: Vec<u8>,
    /// The value, or one summand of it: values of equal keys are merged by [`MergeRows`].
    pub value: Vec<u8>,
}

/// Rows to be written. Handed out one by one from borrowed bytes, for a checkpoint may have millions.
pub trait RowSource {
    /// Gives key and value of each row to `take`, ascending by key.
    ///
    /// # Errors
    /// The first one of `take`, behind which nothing more is given.
    fn each(&self, take: &mut TakeRow<'_>) -> Result<(), StoreError>;
}

/// Takes the key and the value of a row.
pub type TakeRow<'t> = dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError> + 't;

impl RowSource for Vec<Row> {
    fn each(&self, take: &mut TakeRow<'_>) -> Result<(), StoreError> {
        self.iter().try_for_each(|row| take(&row.key, &row.value))
    }
}

/// How values of equal keys are added. Must be commutative and associative, so that no result depends on the order of
/// arrival, on flushes or on merges.
pub trait MergeRows: Send + Sync {
    /// The sum of two values of `key`; `None` when nothing is left of them. Nothing must be neutral: added to any value it is
    /// that value, for it is no longer kept when further ones come.
    fn merge(&self, key: &[u8], a: &[u8], b: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
}

/// Rows in the order of their keys.
pub type RowIter = Box<dyn Iterator<Item = Result<Row, StoreError>> + Send>;

/// Names with what is remembered of each, in the order of the names.
pub type IdIter = Box<dyn Iterator<Item = Result<(EventName, IdEntry), StoreError>> + Send>;

/// The rows of a partition at one moment: immutable, readable without a lock while checkpoints go on.
pub trait Rows: Send + Sync {
    /// Merged rows with keys in `keys`, ascending. A row of which nothing is left is not shown.
    fn scan(&self, keys: Range<Vec<u8>>) -> RowIter;

    /// The same, descending.
    fn scan_back(&self, keys: Range<Vec<u8>>) -> RowIter;

    /// Gives key and value of each row with a key in `keys` to `take`, as they are kept: in one ascending sequence or several,
    /// one behind the other, and the values of equal keys not added up, also where nothing is left of them. For who adds up
    /// anyway: it costs a fraction of [`Rows::scan`].
    ///
    /// # Errors
    /// The first one of `take`, behind which nothing more is given.
    fn summands(&self, keys: Range<&[u8]>, take: &mut TakeSummand<'_>) -> Result<(), StoreError>;
}

/// Takes the key and the value of a row, and says which row of the same sequence comes next.
pub type TakeSummand<'t> = dyn FnMut(&[u8], &[u8]) -> Result<Next, StoreError> + 't;

/// Which row of a sequence comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The one behind this.
    Row,
    /// The first at or behind this key, which is behind this row's.
    At(Vec<u8>),
    /// None any more.
    End,
}

/// The durable views of one partition. Written by one owner thread; read by any.
pub trait Views: Send + Sync {
    /// Everything of this partition before this log position is contained in the last finished checkpoint.
    fn position(&self) -> Position;

    /// What the owner stored with the last finished checkpoint; empty at first.
    fn meta(&self) -> Vec<u8>;

    /// Looks names up, in the order asked.
    fn probe(&self, names: &[EventName]) -> Result<Vec<Option<IdEntry>>, StoreError>;

    /// Remembers names; an entry replaces an earlier one of its name.
    fn remember(&self, entries: &[(EventName, IdEntry)]) -> Result<(), StoreError>;

    /// Every name of the last finished checkpoint with its newest entry.
    fn ids(&self) -> IdIter;

    /// The rows of the last finished checkpoint.
    fn rows(&self) -> Arc<dyn Rows>;

    /// Whether the table of new ids is full enough that a checkpoint should start.
    fn wants_checkpoint(&self) -> bool;

    /// Freezes the ids remembered so far; quick. Those that come later belong to the next checkpoint.
    fn begin_checkpoint(&self) -> Result<(), StoreError>;

    /// Writes the frozen ids, adds `rows` (ascending keys; values of equal keys are added) to the rows, and publishes both
    /// with `position` and `meta` in one step. `rows` are read once and never held as a whole. Slow; called from a background
    /// thread. After an error the old checkpoint stands, the frozen ids are still known, and the next call writes them too:
    /// it must bring the rows of both.
    ///
    /// # Errors
    /// After [`StoreError::Poisoned`] it is unknown which checkpoint the next start will find, and none is taken any more until
    /// then; after other errors a retry may help.
    fn finish_checkpoint(
        &self,
        position: Position,
        rows: &dyn RowSource,
        meta: Vec<u8>,
    ) -> Result<(), StoreError>;

    /// Bytes of memory for ids that no finished checkpoint holds yet: what a checkpoint gives back.
    fn unwritten_bytes(&self) -> usize;

    /// Ids remembered, bytes in memory and bytes on disk, for metrics.
    fn stats(&self) -> ViewStats;
}

/// Sizes of a partition's views.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ViewStats {
    /// Names remembered (names replaced in a later run count twice until runs are merged).
    pub ids: u64,
    /// Bytes of tables and filters in memory.
    pub memory_bytes: u64,
    /// Bytes of runs on disk.
    pub disk_bytes: u64,
}
