use std::ops::Bound;
use std::sync::Arc;

use turnpike_domain::identity::TenantId;
use turnpike_domain::meter::{Aggregation, Meter};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::Timestamp;

use super::accumulate::Place;
use super::plan::dimension;
use super::reach::Stretch;
use super::totals::{self, empty_value};
use super::usage::{Onward, PART_ROWS, Split, UsageRow};
use super::{
    CopiesFull, GroupPlace, Part, Plan, Reach, RowSum, Rows, Snapshot, Wanted, Windows, add_up, settle,
};

/// Windows that are added up at once at the least at first; more while they give few rows, fewer while they give many.
const STEP_WINDOWS: usize = 8;
/// Windows that are added up at once at the most.
const STEP_WINDOWS_MAX: usize = 20_000;
/// Rows that a step should give.
const STEP_ROWS: std::ops::Range<usize> = 2_000..PART_ROWS;
/// Where fewer customers than one of so many have usage, all series are read rather than those of so many customers.
const SPARSE: usize = 16;

/// What is read, without who waits for it.
pub(super) struct UsageScan {
    pub plan: Plan,
    pub splits: Splits,
    /// Groups that are still to have a row without events.
    pub always: Vec<Vec<String>>,
    pub snapshots: Vec<Snapshot>,
    /// Whether they are ready to be read.
    pub settled: bool,
    /// What the snapshots hold, and their share of the memory.
    pub wanted: Arc<Wanted>,
    pub directory: Arc<dyn Directory>,
    /// The windows that have not been added up.
    pub left: Windows,
    /// Of the first of them only the groups from here on.
    pub from: Bound<GroupPlace>,
    pub step: Option<usize>,
    /// The groups that the snapshots hold; `None`: all.
    pub held: Option<Stretch>,
    /// What is behind them.
    pub rest: Option<Onward>,
    /// Whether few customers have usage.
    pub sparse: bool,
}

impl UsageScan {
    /// Makes the snapshots ready to be read, once.
    pub(super) fn settle(&mut self) -> Result<(), CopiesFull> {
        if std::mem::replace(&mut self.settled, true) {
            return Ok(());
        }
        settle(&mut self.snapshots, &self.wanted)
    }

    /// Whether there are no windows any more.
    pub(super) fn is_done(&self) -> bool {
        self.left.range().is_none()
    }

    /// The rows of the next few windows; `None` behind the last. Reads the disk.
    pub(super) fn step(&mut self, rows_max: usize) -> Result<Option<Vec<UsageRow>>, Problem> {
        let stretch = self.next_stretch(rows_max);
        // Behind a group, series are found at once where there is but one window.
        let is_cut = stretch.as_ref().is_some_and(Stretch::is_cut);
        let one = is_cut || self.from != Bound::Unbounded;
        let step = self.step.unwrap_or_else(|| self.first_step(rows_max));
        self.plan.windows = self.left.first(if one { 1 } else { step });
        if self.plan.windows.is_empty() {
            return Ok(None);
        }
        self.settle()?;
        let before = stretch.as_ref().and_then(|stretch| stretch.before.clone());
        match stretch {
            Some(stretch) => self.plan.reach = stretch.reach,
            None if self.plan.subjects.is_none() => self.plan.reach = Reach::all(),
            None => {}
        }
        let part = Part {
            from: std::mem::replace(&mut self.from, Bound::Unbounded),
            before: before.clone(),
            rows_max: Some(rows_max),
        };
        let Rows { mut rows, until } = self.add_up(part.clone())?;
        self.add_empty(&mut rows, &part, until.as_ref())?;
        if !one {
            self.step = Some(next_step(step, rows.len(), until.is_some()));
        }
        self.sparse = until.is_none() && (self.sparse || before.is_some() && rows.len() < rows_max / SPARSE);
        let row = |sum: RowSum| UsageRow {
            window: self.plan.windows[sum.window],
            value: totals::value(&self.plan, &sum).map_err(Box::new),
            group: sum.group,
        };
        let rows = rows.into_iter().map(row).collect();
        self.go_on(until, before);
        Ok(Some(rows))
    }

    fn add_up(&self, part: Part) -> Result<Rows, Problem> {
        let (splits, tenant) = (&self.splits, self.plan.tenant);
        let directory = self.directory.as_ref();
        let project = |subject: &str, group: &[String]| splits.of(directory, tenant, subject, group);
        add_up(&self.plan, part, (0, &self.snapshots), &project)
    }

    /// The groups that the next step is to read, where they have an order in which a part of them can be found.
    fn next_stretch(&self, rows_max: usize) -> Option<Stretch> {
        match &self.held {
            Some(held) => Some(held.clone()),
            None if self.sparse || self.plan.subjects.is_some() => None,
            None => {
                let number = customers_for(rows_max);
                let of = (self.directory.as_ref(), self.plan.tenant);
                self.splits.stretch(of, &self.from, number)
            }
        }
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

    /// Leaves out what was read: all up to `until`, else all groups before `before`, else all windows.
    fn go_on(&mut self, until: Option<Place>, before: Option<String>) {
        let is_full = until.is_some();
        let first = self
            .plan
            .windows
            .first()
            .map_or(Timestamp::MAX, |first| first.start);
        let (next, from) = match (until, before) {
            (Some((window, group)), _) => (self.plan.windows[window].start, Bound::Excluded(group)),
            (None, Some(before)) => (first, Bound::Included(GroupPlace::of(&[before]))),
            (None, None) => {
                let last = self.plan.windows.last();
                (last.map_or(Timestamp::MAX, |last| last.end), Bound::Unbounded)
            }
        };
        self.left.begin_at(next);
        self.from = from;
        match &self.held {
            None => self.release(),
            Some(held) if !is_full && held.is_cut() => {
                let left = std::mem::replace(&mut self.left, Windows::NONE);
                self.rest = left.range().map(|range| (range.start, self.from.clone()));
            }
            Some(_) => {}
        }
    }

    /// Lets go of what no further row is added up from, so that others of the tenant have room meanwhile.
    fn release(&mut self) {
        // A time-weighted sum needs the last value before a window, wherever it is.
        let carried = self.plan.meter.aggregation == Aggregation::TimeWeightedSum;
        let minute = self.left.range().map_or(u32::MAX, |range| range.start.minute());
        let (directory, tenant) = (self.directory.as_ref(), self.plan.tenant);
        let (splits, reach) = (&self.splits, &self.plan.reach);
        let last_window = self.left.first(2).len() < 2;
        let next = match &self.from {
            Bound::Included(group) | Bound::Excluded(group) if last_window => group.first(),
            _ => None,
        };
        let is_done = |subject: &str| {
            next.is_some_and(|next| {
                let first = splits.first_text(directory, tenant, subject);
                reach.contains(subject) && first.is_some_and(|first| *first < *next)
            })
        };
        for snapshot in &mut self.snapshots {
            let freed = snapshot.retain(0, |series| {
                if !carried {
                    series.forget_before(minute);
                }
                !series.cells.is_empty() && !is_done(&series.subject)
            });
            self.wanted.give_back(freed);
        }
    }

    /// Adds a row without events for each group of `always` that has none. They belong to the first window.
    fn add_empty(
        &mut self,
        rows: &mut Vec<RowSum>,
        part: &Part,
        until: Option<&Place>,
    ) -> Result<(), Problem> {
        if self.always.is_empty() {
            return Ok(());
        }
        let value = empty_value(&self.plan)?;
        let window = 0;
        let behind = |group: &Vec<String>| {
            until.is_some_and(|(last, place)| window > *last || place.order_of(group).is_gt())
        };
        let (later, now) = std::mem::take(&mut self.always).into_iter().partition(behind);
        self.always = later;
        for group in now {
            let known = rows.iter().any(|row| row.window == window && row.group == group);
            if part.is_from(&group) && !known {
                rows.push(RowSum {
                    window,
                    group,
                    value: Ok(value),
                });
            }
        }
        rows.sort_unstable_by(RowSum::order);
        Ok(())
    }
}

/// How many customers to read for so many rows: a few more, for not all may have usage.
pub(super) const fn customers_for(rows: usize) -> usize {
    rows + rows / 4 + 16
}

/// How many windows to add up next, where `step` windows gave so many rows, and perhaps not all of theirs.
fn next_step(step: usize, rows: usize, is_full: bool) -> usize {
    match rows {
        few if few < STEP_ROWS.start && !is_full => (step * 2).min(STEP_WINDOWS_MAX),
        many if many >= STEP_ROWS.end || is_full => (step / 2).max(1),
        _ => step,
    }
}

pub(super) enum SplitAt {
    Customer,
    Subject,
    Dimension(usize),
}

/// What rows are split by, found in the meter.
pub(super) struct Splits(Vec<SplitAt>);

impl Splits {
    pub(super) fn new(meter: &Meter, split: &[Split]) -> Result<Self, Problem> {
        let at = |split: &Split| match split {
            Split::Customer => Ok(SplitAt::Customer),
            Split::Subject => Ok(SplitAt::Subject),
            Split::Dimension(name) => Ok(SplitAt::Dimension(dimension(meter, "/group_by", name)?)),
        };
        split.iter().map(at).collect::<Result<_, Problem>>().map(Self)
    }

    /// The next groups in their order, where they have one: of about `number` customers.
    pub(super) fn stretch(
        &self,
        (directory, tenant): (&dyn Directory, TenantId),
        from: &Bound<GroupPlace>,
        number: usize,
    ) -> Option<Stretch> {
        match self.0.first()? {
            SplitAt::Subject => Some(Stretch::of_subjects(from)),
            SplitAt::Customer => Some(Stretch::of_customers(directory, tenant, from, number)),
            SplitAt::Dimension(_) => None,
        }
    }

    /// The first text of the groups of a subject, where it is not a dimension's.
    fn first_text(&self, directory: &dyn Directory, tenant: TenantId, subject: &str) -> Option<String> {
        match self.0.first()? {
            SplitAt::Customer => Some(customer_of(directory, tenant, subject)),
            SplitAt::Subject => Some(subject.to_owned()),
            SplitAt::Dimension(_) => None,
        }
    }

    fn of(
        &self,
        directory: &dyn Directory,
        tenant: TenantId,
        subject: &str,
        group: &[String],
    ) -> Vec<String> {
        let text = |split: &SplitAt| match split {
            SplitAt::Customer => customer_of(directory, tenant, subject),
            SplitAt::Subject => subject.to_owned(),
            SplitAt::Dimension(at) => group.get(*at).cloned().unwrap_or_default(),
        };
        self.0.iter().map(text).collect()
    }
}

/// The customer that a subject belongs to; the subject itself where it is no customer's.
fn customer_of(directory: &dyn Directory, tenant: TenantId, subject: &str) -> String {
    let customer = directory.customer_of_subject(tenant, subject);
    customer.map_or_else(|| subject.to_owned(), |customer| customer.key.clone())
}
