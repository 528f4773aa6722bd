use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use turnpike_domain::identity::TenantId;
use turnpike_domain::meter::Meter;
use turnpike_domain::port::usage::SubjectSpan;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::{TimeRange, Timestamp};

use super::plan::{end_minute, filtered};
use super::reach::Stretch;
use super::scan::{Splits, UsageScan, customers_for};
use super::{GroupPlace, Plan, Selection, Slot, Slots, StopOnDrop, Wanted, Windows, on_another_thread};
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
#[derive(Debug, Clone)]
pub(crate) struct UsageRow {
    pub window: TimeRange,
    /// In the order of the query's `split`.
    pub group: Vec<String>,
    /// An error where it is beyond all numbers, which the other rows need not be.
    pub value: Result<Option<Quantity>, Box<Problem>>,
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

/// A window's start, and from where on its groups are read.
pub(super) type Onward = (Timestamp, Bound<GroupPlace>);

/// Customers whose usage is looked for one by one for a page; where they give too few rows, all series are read.
const CUSTOMERS_MAX: usize = 20_000;
/// How long what has begun waits before it looks again for room.
const ROOM_LOOK: Duration = Duration::from_secs(1);
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
    /// What is behind the groups that it holds; known behind the last rows.
    rest: Option<Onward>,
    _stop: StopOnDrop,
}

impl Aggregator {
    /// The usage of a meter behind `after` (a window's start, and a place among its groups), at most `limit` rows; and whether there are more.
    /// What it rests on is that of the first of its readings.
    pub(crate) async fn usage_page(
        &self,
        of: (TenantId, Arc<Meter>),
        query: UsageQuery,
        after: Option<(Timestamp, GroupPlace)>,
        limit: usize,
    ) -> Result<(Vec<UsageRow>, UsageRead, bool), Problem> {
        let complete = self.filled(&of.1).await;
        let mut from = after.map(|(start, group)| (start, Bound::Excluded(group)));
        let mut rows: Vec<UsageRow> = Vec::new();
        let mut customers = Some(customers_for(limit + 1));
        let mut first = None;
        loop {
            let slot = self.slots.enter(of.0).await?;
            let asked = (query.clone(), from.take(), customers);
            let mut reading = self.reading_in(slot, of.clone(), complete, asked).await?;
            while rows.len() <= limit
                && let Some(more) = reading.next(limit + 1 - rows.len(), Ok).await?
            {
                rows.extend(more);
            }
            let read = *first.get_or_insert(reading.read);
            from = reading.rest.take().filter(|_| rows.len() <= limit);
            if from.is_none() {
                let more = rows.len() > limit;
                rows.truncate(limit);
                return Ok((rows, read, more));
            }
            // Few of those customers have usage: of more of them, then of all at once.
            customers = customers
                .map(|customers| customers * 8)
                .filter(|customers| *customers <= CUSTOMERS_MAX);
        }
    }

    /// Takes a cut for a query, to be read part by part.
    pub(crate) async fn usage_reading(
        &self,
        of: (TenantId, Arc<Meter>),
        query: UsageQuery,
    ) -> Result<UsageReading, Problem> {
        let complete = self.filled(&of.1).await;
        let slot = self.slots.enter(of.0).await?;
        self.reading_in(slot, of, complete, (query, None, None)).await
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
                let asked = (query.clone(), None, None);
                let mut reading = self.reading_in(slot, of, complete, asked).await?;
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

    /// Takes a cut in `slot` for a query from some place on: of all groups behind it, or of those of about so many customers.
    async fn reading_in(
        &self,
        slot: Slot,
        (tenant, meter): (TenantId, Arc<Meter>),
        complete: bool,
        (mut query, from, customers): (UsageQuery, Option<Onward>, Option<usize>),
    ) -> Result<UsageReading, Problem> {
        let span = |subject: &String| SubjectSpan {
            subject: subject.clone(),
            span: TimeRange::ALL,
        };
        let subjects: Option<Vec<_>> = query.subjects.map(|all| all.iter().map(span).collect());
        let mut plan = Plan::new(tenant, meter, Vec::new(), subjects.as_deref(), &query.filter)?;
        let splits = Splits::new(&plan.meter, &query.split)?;
        if let Some((start, _)) = &from {
            query.windows.begin_at(*start);
        }
        let range = query.windows.range();
        let from = from.filter(|(at, _)| range.is_some_and(|range| range.start == *at));
        let from = from.map_or(Bound::Unbounded, |(_, group)| group);
        let of = (self.shared.directory.as_ref(), tenant);
        let customers = customers.filter(|_| plan.subjects.is_none());
        let held = customers.and_then(|number| splits.stretch(of, &from, number));
        if let Some(held) = &held {
            plan.reach = held.reach.clone();
        }
        let share = Some(parking_lot::Mutex::new(self.copies.share(tenant)));
        let wanted = Arc::new(Wanted {
            selections: vec![selection(&plan, &query.windows, held.as_ref())],
            share,
        });
        let snapshots = self.cut(&wanted, None).await?;
        let lacks_before = self.extent_of(plan.meter.id).lacks_before;
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
            rest: None,
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
                from,
                step: None,
                held,
                rest: None,
                sparse: false,
            }),
        })
    }
}

/// What the partitions' memory is asked for: the first window where not all groups are read, else all.
fn selection(plan: &Plan, windows: &Windows, held: Option<&Stretch>) -> Selection {
    let first = held
        .filter(|held| held.is_cut())
        .and_then(|_| windows.first(1).pop());
    let range = first.or(windows.range());
    let minutes = range.map_or(0..0, |range| range.start.minute()..end_minute(range.end));
    let bounds = match first {
        Some(_) => Some([minutes.start, minutes.end].into()),
        None => windows.bounds(),
    };
    plan.selection_between(minutes, bounds)
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
        let Some(mut scan) = self.scan.take().filter(|scan| !scan.is_done()) else {
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
        self.rest.clone_from(&scan.rest);
        self.scan = Some(scan);
        Ok(Some(written))
    }
}
