use std::collections::VecDeque;
use std::sync::Arc;

use turnpike_domain::identity::TenantId;
use turnpike_domain::meter::Meter;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::usage::SubjectSpan;
use turnpike_domain::problem::Problem;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::{TimeRange, Timestamp};

use super::plan::{dimension, filtered};
use super::totals::empty_value;
use super::{Plan, RowSum, Snapshot, add_up, on_another_thread};
use crate::Aggregator;

/// What rows are split by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Split {
    /// The customer that a subject belongs to; the subject itself where it is no customer's.
    Customer,
    /// The subject.
    Subject,
    /// A dimension of the meter.
    Dimension(String),
}

/// Usage of one meter, window by window.
#[derive(Clone)]
pub(crate) struct UsageQuery {
    pub meter: Arc<Meter>,
    /// `None`: all subjects.
    pub subjects: Option<Vec<String>>,
    pub windows: Vec<TimeRange>,
    pub filter: Vec<(String, Vec<String>)>,
    pub split: Vec<Split>,
    /// Groups that have a row in the first window even where it has no events.
    pub always: Vec<Vec<String>>,
}

impl UsageQuery {
    /// Refuses dimensions that the meter does not have.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        Splits::new(&self.meter, &self.split)?;
        self.filter
            .iter()
            .try_for_each(|(name, _)| filtered(&self.meter, name).map(drop))
    }
}

/// One row of usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsageRow {
    pub window: TimeRange,
    /// In the order of the query's `split`.
    pub group: Vec<String>,
    pub value: Option<Quantity>,
}

/// Usage as of a moment.
pub(crate) struct UsageAnswer {
    /// Ordered by window, then group; windows without events are left out, but for those that are asked for `always`.
    pub rows: Vec<UsageRow>,
    pub read: UsageRead,
}

/// What a reading of usage rests on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UsageRead {
    pub as_of: Timestamp,
    /// Whether the meter had counted all events of the past.
    pub complete: bool,
    /// Where the query reaches before it: events timed before this may be missing.
    pub lacks_before: Option<Timestamp>,
}

/// Windows that are added up at once at first; more while they give few rows, fewer while they give many.
const STEP_WINDOWS: usize = 8;
/// Rows that a step should give.
const STEP_ROWS: std::ops::Range<usize> = 2_000..20_000;

/// Usage that is added up a few windows at a time, all at one cut: what is held is bounded by the rows of a few windows,
/// however long the range is.
pub(crate) struct UsageScan {
    plan: Plan,
    splits: Splits,
    always: Vec<Vec<String>>,
    snapshots: Vec<Snapshot>,
    directory: Arc<dyn Directory>,
    /// The windows that have not been added up.
    left: VecDeque<TimeRange>,
    step: usize,
}

impl Aggregator {
    /// All usage of a query.
    pub(crate) async fn usage(&self, tenant: TenantId, query: UsageQuery) -> Result<UsageAnswer, Problem> {
        let (mut scan, read) = self.usage_scan(tenant, query).await?;
        let rows = on_another_thread(move || {
            let mut rows = Vec::new();
            while let Some(more) = scan.step()? {
                rows.extend(more);
            }
            Ok(rows)
        });
        let rows = rows.await?;
        Ok(UsageAnswer { rows, read })
    }

    /// The usage of a query behind `after` (a window's start and a group), at most `limit` rows; and whether there are more.
    pub(crate) async fn usage_page(
        &self,
        tenant: TenantId,
        query: UsageQuery,
        after: Option<(Timestamp, Vec<String>)>,
        limit: usize,
    ) -> Result<(UsageAnswer, bool), Problem> {
        let (mut scan, read) = self.usage_scan(tenant, query).await?;
        let rows = on_another_thread(move || {
            let mut rows: Vec<UsageRow> = Vec::new();
            let behind = |row: &UsageRow| {
                after
                    .as_ref()
                    .is_none_or(|(start, group)| (row.window.start, &row.group) > (*start, group))
            };
            while rows.len() <= limit
                && let Some(more) = scan.step()?
            {
                rows.extend(more.into_iter().filter(behind));
            }
            Ok(rows)
        });
        let mut rows = rows.await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        Ok((UsageAnswer { rows, read }, more))
    }

    /// Takes a cut for a query, to be added up step by step.
    pub(crate) async fn usage_scan(
        &self,
        tenant: TenantId,
        query: UsageQuery,
    ) -> Result<(UsageScan, UsageRead), Problem> {
        let span = |subject: &String| SubjectSpan {
            subject: subject.clone(),
            span: TimeRange::ALL,
        };
        let subjects: Option<Vec<_>> = query.subjects.map(|all| all.iter().map(span).collect());
        let plan = Plan::new(
            tenant,
            query.meter,
            query.windows,
            subjects.as_deref(),
            &query.filter,
        )?;
        let splits = Splits::new(&plan.meter, &query.split)?;
        let complete = self.filled(&plan.meter).await;
        let start = plan.windows.iter().map(|window| window.start).min();
        let lacks_before = self
            .extent_of(plan.meter.id)
            .lacks_before
            .filter(|lacks| start.is_some_and(|start| start < *lacks));
        let snapshots = self.cut(vec![plan.selection()], None).await?;
        let read = UsageRead {
            as_of: self.shared.clock.now(tenant),
            complete,
            lacks_before,
        };
        let scan = UsageScan {
            left: plan.windows.iter().copied().collect(),
            step: STEP_WINDOWS,
            plan,
            splits,
            always: query.always,
            snapshots,
            directory: Arc::clone(&self.shared.directory),
        };
        Ok((scan, read))
    }
}

impl UsageScan {
    /// The rows of the next few windows; `None` behind the last. Reads the disk.
    pub(crate) fn step(&mut self) -> Result<Option<Vec<UsageRow>>, Problem> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let windows = self.left.drain(..self.step.min(self.left.len()));
        self.plan.windows = windows.collect();
        let (splits, tenant) = (&self.splits, self.plan.tenant);
        let directory = self.directory.as_ref();
        let project = |subject: &str, group: &[String]| splits.of(directory, tenant, subject, group);
        let sums = add_up(&self.plan, 0, &self.snapshots, &project)?;
        // They belong to the first window.
        let sums = with_empty(sums, &self.plan, std::mem::take(&mut self.always))?;
        if sums.len() < STEP_ROWS.start {
            self.step *= 2;
        } else if sums.len() > STEP_ROWS.end {
            self.step = (self.step / 2).max(1);
        }
        let row = |sum: RowSum| UsageRow {
            window: self.plan.windows[sum.window],
            group: sum.group,
            value: sum.value,
        };
        Ok(Some(sums.into_iter().map(row).collect()))
    }
}

/// Adds a row without events for each group of `always` that has none.
fn with_empty(mut sums: Vec<RowSum>, plan: &Plan, always: Vec<Vec<String>>) -> Result<Vec<RowSum>, Problem> {
    if plan.windows.is_empty() || always.is_empty() {
        return Ok(sums);
    }
    let value = empty_value(plan)?;
    for group in always {
        if !sums.iter().any(|sum| sum.window == 0 && sum.group == group) {
            let window = 0;
            sums.push(RowSum { window, group, value });
        }
    }
    sums.sort_unstable();
    Ok(sums)
}

enum SplitAt {
    Customer,
    Subject,
    Dimension(usize),
}

struct Splits(Vec<SplitAt>);

impl Splits {
    fn new(meter: &Meter, split: &[Split]) -> Result<Self, Problem> {
        let at = |split: &Split| match split {
            Split::Customer => Ok(SplitAt::Customer),
            Split::Subject => Ok(SplitAt::Subject),
            Split::Dimension(name) => Ok(SplitAt::Dimension(dimension(meter, "/group_by", name)?)),
        };
        split.iter().map(at).collect::<Result<_, Problem>>().map(Self)
    }

    fn of(
        &self,
        directory: &dyn Directory,
        tenant: TenantId,
        subject: &str,
        group: &[String],
    ) -> Vec<String> {
        let text = |split: &SplitAt| match split {
            SplitAt::Customer => directory
                .customer_of_subject(tenant, subject)
                .map_or_else(|| subject.to_owned(), |customer| customer.key.clone()),
            SplitAt::Subject => subject.to_owned(),
            SplitAt::Dimension(at) => group.get(*at).cloned().unwrap_or_default(),
        };
        self.0.iter().map(text).collect()
    }
}
