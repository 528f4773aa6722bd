//! Sums derived from the raw log alone, for verifying what was counted on the way: one plain pass over all records,
//! however many sums are asked for, that shares with the incremental way only how an event is read and how cells are
//! finished.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};
use turnpike_domain::identity::MeterId;
use turnpike_domain::meter::aggregate::{Cell, Sample};
use turnpike_domain::meter::{Aggregation, Fields, Reading, TypeReader};
use turnpike_domain::port::StoreError;
use turnpike_domain::port::log::{EventLog, Only};
use turnpike_domain::port::usage::{Derivation, GroupTotal, TotalRequest, Totals, Underivable};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::record::{EventRecord, Position, Record, Watermark, decode};
use turnpike_domain::time::{TimeRange, Timestamp};

use super::accumulate::{Accumulator, damaged};
use super::plan::end_minute;
use super::totals::{dimensions, on_another_thread, project, total_rows};
use super::{Part, Plan, Projection};
use crate::Aggregator;
use crate::rows::key;

/// Where a log begins of which nothing has been deleted: at 0, or behind a header.
pub(crate) const ORIGIN_OFFSET_MAX: u64 = 64;

impl Aggregator {
    pub(crate) async fn read_totals_from_log(
        &self,
        derivations: Vec<Derivation>,
    ) -> Result<Vec<Result<Totals, Underivable>>, Problem> {
        let log = Arc::clone(&self.shared.log);
        let highest = |derivation: &Derivation| derivation.watermark.highest();
        let until = derivations.iter().map(highest).max().unwrap_or_default();
        // Nothing is waited for that may never come.
        log.wait_durable(until.min(log.end())).await?;
        let mut sums = Vec::new();
        let mut answers = Vec::with_capacity(derivations.len());
        for derivation in derivations {
            let found = self.sums_of(&derivation);
            let count = found.as_ref().map(Vec::len);
            answers.push((derivation.watermark, count.map_err(Clone::clone)));
            sums.extend(found.into_iter().flatten());
        }
        let rows = on_another_thread(move || derive(log.as_ref(), Position::START, Only::ALL, &sums));
        let mut rows = rows.await?.into_iter();
        let totals = |(watermark, count): (Watermark, Result<usize, Underivable>)| {
            let rows = rows.by_ref().take(count?).collect();
            Ok(Totals { rows, watermark })
        };
        Ok(answers.into_iter().map(totals).collect())
    }

    /// What one derivation asks of the log, or why it cannot be told.
    fn sums_of(&self, derivation: &Derivation) -> Result<Vec<Sum>, Underivable> {
        let log = self.shared.log.as_ref();
        if derivation.watermark.highest() > log.end() {
            return Err(Underivable::BehindTheEnd(log.end()));
        }
        let plans = self.plans(derivation.tenant, &derivation.requests);
        let plans = plans.map_err(Underivable::Invalid)?;
        check_kept(log, &plans, &derivation.requests)?;
        let watermark = Arc::new(derivation.watermark.clone());
        let pairs = plans.into_iter().zip(&derivation.requests);
        let sum = |(plan, request): (Plan, &TotalRequest)| {
            dimensions(&plan, request).map_err(Underivable::Invalid)?;
            Ok(Sum {
                plan,
                request: request.clone(),
                watermark: Arc::clone(&watermark),
            })
        };
        pairs.map(sum).collect()
    }
}

/// An error when a sum may need events that have been deleted. All of those counted for times before the horizon; a
/// time-weighted sum carries a value in from any time before its range.
fn check_kept(log: &dyn EventLog, plans: &[Plan], requests: &[TotalRequest]) -> Result<(), Underivable> {
    let missing = (log.first().offset() > ORIGIN_OFFSET_MAX).then_some(Timestamp::MAX);
    let Some(horizon) = log.horizon().or(missing) else {
        return Ok(());
    };
    let carried = plans
        .iter()
        .any(|plan| plan.meter.aggregation == Aggregation::TimeWeightedSum);
    if carried || requests.iter().any(|request| request.range.start < horizon) {
        let detail = format!("raw events before {horizon} have been deleted, and the sum may need them");
        return Err(Underivable::Deleted(detail));
    }
    Ok(())
}

/// One sum on its way to be derived.
pub(super) struct Sum {
    pub plan: Plan,
    pub request: TotalRequest,
    /// What it contains.
    pub watermark: Arc<Watermark>,
}

/// The rows of each sum, from the records behind `from` alone.
pub(super) fn derive(
    log: &dyn EventLog,
    from: Position,
    only: Only,
    asked: &[Sum],
) -> Result<Vec<Vec<GroupTotal>>, Problem> {
    let dimensions = asked
        .iter()
        .map(|sum| dimensions(&sum.plan, &sum.request))
        .collect::<Result<Vec<_>, _>>()?;
    let projections: Vec<Box<Projection<'_>>> = dimensions
        .iter()
        .map(|at| -> Box<Projection<'_>> { Box::new(move |_, group| project(at, group)) })
        .collect();
    let sums = asked.iter().zip(&projections);
    let mut pass = Pass {
        asked,
        index: Index::new(asked)?,
        sums: sums
            .map(|(sum, projection)| Accumulator::new(&sum.plan, projection.as_ref(), Part::default()))
            .collect(),
        fields: Fields::default(),
    };
    pass.read(log, from, only)?;
    let sums = pass.sums.into_iter().zip(asked);
    sums.map(|(sums, asked)| total_rows(&asked.plan, &asked.request, sums.finish()?.rows))
        .collect()
}

/// Which sums an event may count for: by its tenant and type, then by meter, then by subject.
struct Index<'s> {
    by_type: HashMap<(u32, &'s str), Vec<MeterSums<'s>>>,
}

/// The sums of one meter.
struct MeterSums<'s> {
    meter: MeterId,
    reader: TypeReader,
    by_subject: HashMap<&'s str, Vec<usize>>,
}

impl<'s> Index<'s> {
    fn new(asked: &'s [Sum]) -> Result<Self, Problem> {
        let mut by_type: HashMap<(u32, &str), Vec<MeterSums<'_>>> = HashMap::new();
        for (at, Sum { plan, .. }) in asked.iter().enumerate() {
            let kind = (plan.tenant.0, plan.meter.event_type.as_str());
            let meters = by_type.entry(kind).or_default();
            let known = meters.iter().position(|known| known.meter == plan.meter.id);
            let known = known.unwrap_or(meters.len());
            if known == meters.len() {
                let reader = TypeReader::new([Arc::clone(&plan.meter)])
                    .map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
                meters.push(MeterSums {
                    meter: plan.meter.id,
                    reader,
                    by_subject: HashMap::new(),
                });
            }
            for subject in plan.subjects.iter().flat_map(|all| all.keys()) {
                let sums = meters[known].by_subject.entry(subject).or_default();
                sums.push(at);
            }
        }
        Ok(Self { by_type })
    }
}

/// One pass over the log.
struct Pass<'s> {
    asked: &'s [Sum],
    index: Index<'s>,
    sums: Vec<Accumulator<'s>>,
    fields: Fields,
}

impl Pass<'_> {
    fn read(&mut self, log: &dyn EventLog, from: Position, only: Only) -> Result<(), Problem> {
        let highest = self.asked.iter().map(|sum| sum.watermark.highest()).max();
        let until = highest.unwrap_or_default();
        for block in log.read(from, only) {
            let block = block?;
            if block.position >= until {
                break;
            }
            for (at, bytes) in block.block.records().enumerate() {
                let position = Position(block.position.0 + at as u64);
                self.record(&decode(bytes)?, (block.block.partition, position))?;
            }
        }
        Ok(())
    }

    fn record(&mut self, record: &Record<'_>, at: (u32, Position)) -> Result<(), StoreError> {
        match record {
            Record::Event(event) | Record::Committed { event, .. } => self.event(event, false, at),
            Record::Void { before, .. } => self.event(before, true, at),
            Record::Amend { before, after, .. } => {
                self.event(before, true, at)?;
                self.event(after, false, at)
            }
            _ => Ok(()),
        }
    }

    fn event(
        &mut self,
        event: &EventRecord<'_>,
        taken_back: bool,
        (partition, position): (u32, Position),
    ) -> Result<(), StoreError> {
        let Some(meters) = self.index.by_type.get(&(event.tenant, event.kind)) else {
            return Ok(());
        };
        for meter in meters {
            let Some(subject) = meter.by_subject.get(event.subject) else {
                continue;
            };
            let wanted = |at: &&usize| {
                let sum = &self.asked[**at];
                sum.watermark.contains(partition, position) && sum.plan.may_count(event.time())
            };
            let wanted: Vec<usize> = subject.iter().filter(wanted).copied().collect();
            if wanted.is_empty() {
                continue;
            }
            let mut result = Ok(());
            let (asked, sums) = (self.asked, &mut self.sums);
            meter.reader.read(event, &mut self.fields, |_, reading| {
                // What the meter cannot read is a dead letter, and counts nowhere.
                let Ok(reading) = reading else { return };
                let given = Given::new(event.subject, &reading, taken_back);
                result = wanted
                    .iter()
                    .try_for_each(|at| given.add(&asked[*at].plan, &mut sums[*at]));
            });
            result?;
        }
        Ok(())
    }
}

impl Plan {
    /// Whether an event of this time can count: a time-weighted sum carries in what stood before its range.
    fn may_count(&self, time: Timestamp) -> bool {
        let carried = self.meter.aggregation == Aggregation::TimeWeightedSum;
        carried || self.windows.iter().any(|window| contains(window, time))
    }
}

/// What one event gives.
struct Given<'e> {
    subject: &'e str,
    group: Vec<u8>,
    sample: &'e Sample<'e>,
    taken_back: bool,
}

impl<'e> Given<'e> {
    fn new(subject: &'e str, reading: &'e Reading<'_, 'e>, taken_back: bool) -> Self {
        let mut group = Vec::new();
        for text in reading.group() {
            key::put_text(&mut group, &text);
        }
        Self {
            subject,
            group,
            sample: &reading.sample,
            taken_back,
        }
    }

    fn add(&self, plan: &Plan, sums: &mut Accumulator<'_>) -> Result<(), StoreError> {
        let Some(spans) = plan.subjects.as_ref().and_then(|all| all.get(self.subject)) else {
            return Ok(());
        };
        let Some(row) = sums.row(self.subject, &self.group)? else {
            return Ok(());
        };
        let aggregation = plan.meter.aggregation;
        let time = Timestamp::from_micros_clamped(self.sample.time_us);
        let mut cell = Cell::new(aggregation);
        cell.add(self.sample, self.taken_back).map_err(|_| damaged())?;
        for (at, span) in spans.iter().enumerate() {
            if !contains(span, time) {
                continue;
            }
            if aggregation == Aggregation::TimeWeightedSum {
                sums.add_points(row, (self.subject, &self.group, at), &cell)?;
                continue;
            }
            if let Some(window) = plan.windows.iter().position(|window| contains(window, time)) {
                sums.add(row, window, &cell)?;
            }
        }
        Ok(())
    }
}

/// Whether `time` lies in `range`, whose end covers its whole minute where it is the end of all time.
fn contains(range: &TimeRange, time: Timestamp) -> bool {
    range.contains(time) || (range.end == Timestamp::MAX && time.minute() < end_minute(range.end))
}
