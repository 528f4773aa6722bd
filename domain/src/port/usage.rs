//! Usage as the quota engine and billing see it.

use std::sync::Arc;

use super::BoxFuture;
use super::intake::Hold;
use crate::identity::{MeterId, TenantId};
use crate::problem::Problem;
use crate::quantity::Quantity;
use crate::record::{Position, Watermark};
use crate::time::{TimeRange, Timestamp};

/// A subject over the time in which its events count for the one who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SubjectSpan {
    /// The subject.
    pub subject: String,
    /// From when until when.
    pub span: TimeRange,
}

/// One sum to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TotalRequest {
    /// The meter's key.
    pub meter: String,
    /// Whose events.
    pub subjects: Vec<SubjectSpan>,
    /// Which time. On whole minutes; a range inside the last two minutes may be finer.
    pub range: TimeRange,
    /// Whole minutes inside the range, ascending, at which it is cut: each part has one row, in their order. One that is
    /// cut cannot be split by groups.
    pub cuts: Vec<Timestamp>,
    /// Group-by dimension → the values that are taken.
    pub filter: Vec<(String, Vec<String>)>,
    /// Dimensions to split by; none gives one row.
    pub group_by: Vec<String>,
}

impl TotalRequest {
    /// The parts of its range, ascending; none where the range is empty.
    pub fn parts(&self) -> Vec<TimeRange> {
        let starts = std::iter::once(self.range.start).chain(self.cuts.iter().copied());
        let ends = self.cuts.iter().copied().chain([self.range.end]);
        let parts = starts.zip(ends).map(|(start, end)| TimeRange::new(start, end));
        parts.filter(|part| part.start < part.end).collect()
    }
}

/// One row of a sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupTotal {
    /// Values of `group_by`, in its order. An event without the dimension has an empty text.
    pub group: Vec<String>,
    /// The meter's value; `None` for an empty window of a meter that has no zero.
    pub value: Option<Quantity>,
}

/// Sums that all belong to one moment of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Per request its rows. Without `group_by` there is always exactly one, of each part of the range.
    pub rows: Vec<Vec<GroupTotal>>,
    /// What they contain. Durable when told.
    pub watermark: Watermark,
}

/// Sums to derive from the raw log, all at one watermark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation {
    /// The tenant.
    pub tenant: TenantId,
    /// The sums.
    pub requests: Vec<TotalRequest>,
    /// What they contain.
    pub watermark: Watermark,
}

/// Why the raw log cannot give sums.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Underivable {
    /// Raw events that they may need have been deleted.
    #[error("{0}")]
    Deleted(String),
    /// The log ends before the watermark.
    #[error("the log ends at {}", .0.0)]
    BehindTheEnd(Position),
    /// What is asked for does not fit the meter, or there is no such meter.
    #[error(transparent)]
    Invalid(Problem),
}

/// Reads sums of meters.
pub trait UsageReader: Send + Sync {
    /// The sums as of now. `at_cut` runs at the very moment that the sums are cut at: each change applied earlier is in
    /// the sums, each later one is told to the [`UsageListener`] after it ran.
    fn totals(
        &self,
        tenant: TenantId,
        requests: Vec<TotalRequest>,
        at_cut: Option<Box<dyn FnOnce() + Send>>,
    ) -> BoxFuture<'_, Result<Totals, Problem>>;

    /// Sums at earlier watermarks, derived from the raw log alone and by one pass over it: for each derivation its
    /// totals, or why it has none. A [`Problem`] when the log cannot be read.
    fn totals_from_log(
        &self,
        derivations: Vec<Derivation>,
    ) -> BoxFuture<'_, Result<Vec<Result<Totals, Underivable>>, Problem>>;

    /// The open reservations of all tenants, encoded [`crate::record::Record::Reserved`] each, for the quota engine's start.
    fn open_reservations(&self) -> BoxFuture<'_, Result<Vec<Vec<u8>>, Problem>>;
}

/// One change of a `sum` or `count` meter, as it is applied.
pub struct UsageChange<'a> {
    /// The tenant.
    pub tenant: TenantId,
    /// The meter.
    pub meter: MeterId,
    /// The event's subject.
    pub subject: &'a str,
    /// The time that it counts for.
    pub time: Timestamp,
    /// What is added; negative for what is taken back.
    pub amount: Quantity,
    /// Quota that was taken for it beforehand.
    pub hold: Option<&'a Hold>,
}

/// Who wants to know of changes: the quota engine. Called by partition owners, in their order; must be quick.
pub trait UsageListener: Send + Sync {
    /// Changes that have just been applied.
    fn applied(&self, changes: &[UsageChange<'_>]);
}

/// Nobody listens.
pub struct NoListener;

impl UsageListener for NoListener {
    fn applied(&self, _: &[UsageChange<'_>]) {}
}

/// A listener that is told after the engine was built.
pub type SharedListener = Arc<dyn UsageListener>;
