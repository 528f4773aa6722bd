use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use turnpike_domain::identity::TenantId;
use turnpike_domain::meter::Meter;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::usage::SubjectSpan;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::{TimeRange, Timestamp};

use super::accumulate::Place;
use super::plan::{dimension, end_minute, filtered};
use super::totals::empty_value;
use super::{
    CopiesFull, Part, Plan, RowSum, Rows, Slot, Slots, Snapshot, StopOnDrop, Wanted, Windows, add_up,
    on_another_thread, settle,
};
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

/// Which usage of a meter to read, window by window.
#[derive(Debug, Clone)]
pub(crate) struct UsageQuery {
    /// `None`: all subjects.
    pub subjects: Option<BTreeSet<String>>,
    pub windows: Windows,
    pub filter: Vec<(String, Vec<String>)>,
    pub split: Vec<Split>,
    /// Groups that have a row in the first window even where it has no events.
    pub always: Vec<Vec<String>>,
}

impl UsageQuery {
    /// Refuses dimensions that the meter does not have.
    pub(crate) fn check(&self, meter: &Meter) -> Result<(), Problem> {
        Splits::new(meter, &self.split)?;
        self.filter
            .iter()
            .try_for_each(|(name, _)| filtered(meter, name).map(drop))
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

/// What a reading of usage rests on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UsageRead {
    pub as_of: Timestamp,
    /// Whether the meter had counted all events of the past.
    pub complete: bool,
    /// Where the query reaches before it: events timed before this may be missing.
    pub lacks_before: Option<Timestamp>,
}

/// Windows that are added up at once at the least at first; more while they give few rows, fewer while they give many.
const STEP_WINDOWS: usize = 8;
/// Windows that are added up at once at the most.
const STEP_WINDOWS_MAX: usize = 20_000;
/// Rows that a step should give.
const STEP_ROWS: std::ops::Range<usize> = 2_000..PART_ROWS;
/// How long what has begun waits before it looks again for room.
const ROOM_LOOK: Duration = Duration::from_millis(250);
/// Rows of a part of an answer that is sent as it is read.
pub(crate) const PART_ROWS: usize = 20_000;

/// Usage that is read part by part on other threads, all at one cut. What is held is bounded by the rows of a part, and by what
/// was in memory at the cut, which counts against a bound that all readings share. Dropped, it stops.
pub(crate) struct UsageReading {
    slots: Arc<Slots>,
    tenant: TenantId,
    /// The slot of the cut, for the first part.
    slot: Option<Slot>,
    /// Empty after a failure.
    scan: Option<UsageScan>,
    /// What it rests on.
    pub read: UsageRead,
    _stop: StopOnDrop,
}

/// What is read, without who waits for it.
struct UsageScan {
    plan: Plan,
    splits: Splits,
    /// Groups that are still to have a row without events.
    always: Vec<Vec<String>>,
    snapshots: Vec<Snapshot>,
    /// Whether they are ready to be read.
    settled: bool,
    /// What the snapshots hold, and their share of the memory.
    wanted: Arc<Wanted>,
    directory: Arc<dyn Directory>,
    /// The windows that have not been added up.
    left: Windows,
    /// Of the first of them only the groups behind this.
    after: Option<Vec<String>>,
    step: Option<usize>,
}

impl Aggregator {
    /// The usage of a meter behind `after` (a window's start and a group), at most `limit` rows; and whether there are more.
    pub(crate) async fn usage_page(
        &self,
        (tenant, meter): (TenantId, Arc<Meter>),
        query: UsageQuery,
        after: Option<(Timestamp, Vec<String>)>,
        limit: usize,
    ) -> Result<(Vec<UsageRow>, UsageRead, bool), Problem> {
        let mut reading = self.usage_reading((tenant, meter), query, after).await?;
        let mut rows: Vec<UsageRow> = Vec::new();
        while rows.len() <= limit
            && let Some(more) = reading.next(limit + 1 - rows.len(), Ok).await?
        {
            rows.extend(more);
        }
        let more = rows.len() > limit;
        rows.truncate(limit);
        Ok((rows, reading.read, more))
    }

    /// Takes a cut for a query, to be read behind `after` part by part.
    pub(crate) async fn usage_reading(
        &self,
        (tenant, meter): (TenantId, Arc<Meter>),
        query: UsageQuery,
        after: Option<(Timestamp, Vec<String>)>,
    ) -> Result<UsageReading, Problem> {
        let complete = self.filled(&meter).await;
        let slot = self.slots.enter(tenant).await?;
        self.reading_in(slot, (tenant, meter), complete, query, after)
            .await
    }

    /// The same as a further part of an answer that has begun: waits until there is room for it, however long it takes.
    pub(crate) async fn further_reading(
        &self,
        (tenant, meter): (TenantId, Arc<Meter>),
        query: &UsageQuery,
    ) -> Result<UsageReading, Problem> {
        let complete = self.filled(&meter).await;
        loop {
            let slot = self.slots.wait(tenant).await?;
            let of = (tenant, Arc::clone(&meter));
            let reading = async {
                let mut reading = self.reading_in(slot, of, complete, query.clone(), None).await?;
                reading.settle().await?;
                Ok(reading)
            };
            match reading.await {
                Err(Problem {
                    code: Code::Overloaded,
                    ..
                }) => tokio::time::sleep(ROOM_LOOK).await,
                ended => return ended,
            }
        }
    }

    async fn reading_in(
        &self,
        slot: Slot,
        (tenant, meter): (TenantId, Arc<Meter>),
        complete: bool,
        mut query: UsageQuery,
        after: Option<(Timestamp, Vec<String>)>,
    ) -> Result<UsageReading, Problem> {
        let span = |subject: &String| SubjectSpan {
            subject: subject.clone(),
            span: TimeRange::ALL,
        };
        let subjects: Option<Vec<_>> = query.subjects.map(|all| all.iter().map(span).collect());
        let plan = Plan::new(tenant, meter, Vec::new(), subjects.as_deref(), &query.filter)?;
        let splits = Splits::new(&plan.meter, &query.split)?;
        if let Some((start, _)) = &after {
            query.windows.begin_at(*start);
        }
        let range = query.windows.range();
        let after = after.filter(|(at, _)| range.is_some_and(|range| range.start == *at));
        let lacks_before = self.extent_of(plan.meter.id).lacks_before;
        let minutes = range.map_or(0..0, |range| range.start.minute()..end_minute(range.end));
        let wanted = Arc::new(Wanted {
            selections: vec![plan.selection_between(minutes, query.windows.bounds())],
            share: Some(parking_lot::Mutex::new(self.copies.share(tenant))),
        });
        let snapshots = self.cut(&wanted, None).await?;
        let read = UsageRead {
            as_of: self.shared.clock.now(tenant),
            complete,
            lacks_before: lacks_before.filter(|lacks| range.is_some_and(|range| range.start < *lacks)),
        };
        Ok(UsageReading {
            slots: Arc::clone(&self.slots),
            tenant,
            slot: Some(slot),
            read,
            _stop: plan.stop.on_drop(),
            scan: Some(UsageScan {
                plan,
                splits,
                always: query.always,
                snapshots,
                settled: false,
                wanted,
                directory: Arc::clone(&self.shared.directory),
                left: query.windows,
                after: after.map(|(_, group)| group),
                step: None,
            }),
        })
    }
}

impl UsageReading {
    /// Makes all that was in memory at the cut ready, for which there may be no room. Waits for its turn.
    async fn settle(&mut self) -> Result<(), Problem> {
        let (Some(mut scan), Some(slot)) = (self.scan.take(), self.slot.take()) else {
            return Ok(());
        };
        let settled = on_another_thread(move || {
            scan.settle()?;
            Ok((scan, slot))
        });
        let (scan, slot) = settled.await?;
        (self.scan, self.slot) = (Some(scan), Some(slot));
        Ok(())
    }

    /// The next rows as `write` makes them, at most about `rows_max`; `None` behind the last. Waits for its turn.
    pub(crate) async fn next<T: Send + 'static>(
        &mut self,
        rows_max: usize,
        write: impl FnOnce(Vec<UsageRow>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Option<T>, Problem> {
        let Some(mut scan) = self.scan.take() else {
            return Ok(None);
        };
        let slot = match self.slot.take() {
            Some(slot) => slot,
            None => self.slots.wait(self.tenant).await?,
        };
        let read = on_another_thread(move || {
            let _slot = slot;
            let Some(rows) = scan.step(rows_max)? else {
                return Ok(None);
            };
            Ok(Some((write(rows)?, scan)))
        });
        let Some((written, scan)) = read.await? else {
            return Ok(None);
        };
        self.scan = Some(scan);
        Ok(Some(written))
    }
}

impl UsageScan {
    /// Makes the snapshots ready to be read, once.
    fn settle(&mut self) -> Result<(), CopiesFull> {
        if std::mem::replace(&mut self.settled, true) {
            return Ok(());
        }
        settle(&mut self.snapshots, &self.wanted)
    }

    /// The rows of the next few windows; `None` behind the last. Reads the disk.
    fn step(&mut self, rows_max: usize) -> Result<Option<Vec<UsageRow>>, Problem> {
        // Behind a group, series are found at once where there is but one window.
        let step = self.step.unwrap_or_else(|| self.first_step(rows_max));
        self.plan.windows = self.left.first(if self.after.is_some() { 1 } else { step });
        if self.plan.windows.is_empty() {
            return Ok(None);
        }
        self.settle()?;
        let part = Part {
            after: self.after.take(),
            rows_max: Some(rows_max),
            by_subject: matches!(self.splits.0.first(), Some(SplitAt::Subject)),
        };
        let (splits, tenant) = (&self.splits, self.plan.tenant);
        let directory = self.directory.as_ref();
        let project = |subject: &str, group: &[String]| splits.of(directory, tenant, subject, group);
        let Rows { mut rows, until } = add_up(&self.plan, part.clone(), (0, &self.snapshots), &project)?;
        self.add_empty(&mut rows, part.after.as_ref(), until.as_ref())?;
        self.step = Some(match rows.len() {
            few if few < STEP_ROWS.start && until.is_none() => (step * 2).min(STEP_WINDOWS_MAX),
            many if many >= STEP_ROWS.end || until.is_some() => (step / 2).max(1),
            _ => step,
        });
        let row = |sum: RowSum| UsageRow {
            window: self.plan.windows[sum.window],
            group: sum.group,
            value: sum.value,
        };
        let rows = rows.into_iter().map(row).collect();
        self.go_on(until);
        Ok(Some(rows))
    }

    /// As many windows as give about the rows that are wanted, where that is known beforehand.
    fn first_step(&self, rows_max: usize) -> usize {
        let of_dimension = self
            .splits
            .0
            .iter()
            .any(|split| matches!(split, SplitAt::Dimension(_)));
        let rows_per_window = match &self.plan.subjects {
            _ if self.splits.0.is_empty() => 1,
            Some(subjects) if !of_dimension => subjects.len().max(1),
            _ => return STEP_WINDOWS,
        };
        (rows_max.min(STEP_ROWS.start) / rows_per_window).max(STEP_WINDOWS)
    }

    /// Leaves out what was read.
    fn go_on(&mut self, until: Option<Place>) {
        let next = match &until {
            Some((window, _)) => self.plan.windows[*window].start,
            None => self.plan.windows.last().map_or(Timestamp::MAX, |last| last.end),
        };
        self.left.begin_at(next);
        self.after = until.map(|(_, group)| group);
    }

    /// Adds a row without events for each group of `always` that has none. They belong to the first window.
    fn add_empty(
        &mut self,
        rows: &mut Vec<RowSum>,
        after: Option<&Vec<String>>,
        until: Option<&Place>,
    ) -> Result<(), Problem> {
        if self.always.is_empty() {
            return Ok(());
        }
        let value = empty_value(&self.plan)?;
        let window = 0;
        let behind = |group: &Vec<String>| until.is_some_and(|until| (window, group) > (until.0, &until.1));
        let (later, now) = std::mem::take(&mut self.always).into_iter().partition(behind);
        self.always = later;
        for group in now {
            let before = after.is_some_and(|after| group <= *after);
            if !before && !rows.iter().any(|row| row.window == window && row.group == group) {
                rows.push(RowSum { window, group, value });
            }
        }
        rows.sort_unstable();
        Ok(())
    }
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
