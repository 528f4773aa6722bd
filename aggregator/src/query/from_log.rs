//! Sums derived from the raw log alone, for verifying what was counted on the way: a plain pass over all records that
//! shares with the incremental way only how an event is read and how cells are finished.

use turnpike_domain::identity::TenantId;
use turnpike_domain::meter::aggregate::Sample;
use turnpike_domain::meter::{Aggregation, Fields, Meter, TypeReader};
use turnpike_domain::port::StoreError;
use turnpike_domain::port::log::{EventLog, Only};
use turnpike_domain::port::usage::{GroupTotal, TotalRequest, Totals};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::record::{EventRecord, Position, Record, Watermark, decode};
use turnpike_domain::time::{TimeRange, Timestamp};

use super::accumulate::{Accumulator, damaged};
use super::plan::end_minute;
use super::totals::{dimensions, on_another_thread, project, total_rows};
use super::{Plan, Projection};
use crate::Aggregator;
use crate::rows::key;

/// Where a log begins of which nothing has been deleted: at 0, or behind a header.
pub(crate) const ORIGIN_OFFSET_MAX: u64 = 64;

impl Aggregator {
    pub(crate) async fn read_totals_from_log(
        &self,
        tenant: TenantId,
        requests: Vec<TotalRequest>,
        watermark: Watermark,
    ) -> Result<Totals, Problem> {
        let plans = self.plans(tenant, &requests)?;
        self.shared.log.wait_durable(watermark.highest()).await?;
        let log = std::sync::Arc::clone(&self.shared.log);
        check_kept(log.as_ref(), &plans, &requests)?;
        let span = Span {
            tenant,
            from: Position::START,
            until: watermark.clone(),
            only: Only::ALL,
        };
        let asked: Vec<_> = plans.into_iter().zip(requests).collect();
        let rows = on_another_thread(move || derive_rows(log.as_ref(), &span, &asked));
        Ok(Totals {
            rows: rows.await?,
            watermark,
        })
    }
}

/// An error when a sum may need events that have been deleted. All of those counted for times before the horizon; a
/// time-weighted sum carries a value in from any time before its range.
fn check_kept(log: &dyn EventLog, plans: &[Plan], requests: &[TotalRequest]) -> Result<(), Problem> {
    let missing = (log.first().offset() > ORIGIN_OFFSET_MAX).then_some(Timestamp::MAX);
    let Some(horizon) = log.horizon().or(missing) else {
        return Ok(());
    };
    let carried = plans
        .iter()
        .any(|plan| plan.meter.aggregation == Aggregation::TimeWeightedSum);
    if carried || requests.iter().any(|request| request.range.start < horizon) {
        let detail = format!("raw events before {horizon} have been deleted, and the sum may need them");
        return Err(Problem::new(Code::NotFound, detail));
    }
    Ok(())
}

/// Which records a derivation reads.
pub(super) struct Span {
    pub tenant: TenantId,
    pub from: Position,
    pub until: Watermark,
    pub only: Only,
}

/// The rows of each request, from the records in `span` alone.
pub(super) fn derive_rows(
    log: &dyn EventLog,
    span: &Span,
    asked: &[(Plan, TotalRequest)],
) -> Result<Vec<Vec<GroupTotal>>, Problem> {
    let dimensions = asked
        .iter()
        .map(|(plan, request)| dimensions(plan, request))
        .collect::<Result<Vec<_>, _>>()?;
    let projections: Vec<Box<Projection<'_>>> = dimensions
        .iter()
        .map(|at| -> Box<Projection<'_>> { Box::new(move |_, group| project(at, group)) })
        .collect();
    let mut all = Vec::with_capacity(asked.len());
    for ((plan, _), projection) in asked.iter().zip(&projections) {
        let reader = TypeReader::new([std::sync::Arc::clone(&plan.meter)])
            .map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        let sums = Accumulator::new(plan, projection.as_ref());
        all.push(Derived { plan, reader, sums });
    }
    derive(log, span, &mut all)?;
    let rows = all.into_iter().zip(asked);
    rows.map(|(derived, (plan, request))| total_rows(plan, request, derived.sums.finish()?))
        .collect()
}

/// One request on its way through the log.
struct Derived<'p> {
    plan: &'p Plan,
    reader: TypeReader,
    sums: Accumulator<'p>,
}

fn derive(log: &dyn EventLog, span: &Span, all: &mut [Derived<'_>]) -> Result<(), Problem> {
    let mut fields = Fields::default();
    for block in log.read(span.from, span.only) {
        let block = block?;
        if block.position >= span.until.highest() {
            break;
        }
        for (at, bytes) in block.block.records().enumerate() {
            let position = Position(block.position.0 + at as u64);
            let record = decode(bytes)?;
            if record.tenant() != span.tenant || !span.until.contains(block.block.partition, position) {
                continue;
            }
            for derived in all.iter_mut() {
                derived.record(&record, &mut fields)?;
            }
        }
    }
    Ok(())
}

impl Derived<'_> {
    fn record(&mut self, record: &Record<'_>, fields: &mut Fields) -> Result<(), StoreError> {
        match record {
            Record::Event(event) | Record::Committed { event, .. } => self.event(event, false, fields),
            Record::Void { before, .. } => self.event(before, true, fields),
            Record::Amend { before, after, .. } => {
                self.event(before, true, fields)?;
                self.event(after, false, fields)
            }
            _ => Ok(()),
        }
    }

    fn event(
        &mut self,
        event: &EventRecord<'_>,
        taken_back: bool,
        fields: &mut Fields,
    ) -> Result<(), StoreError> {
        if event.kind != self.plan.meter.event_type {
            return Ok(());
        }
        let Some(spans) = self.plan.subjects.as_ref().and_then(|all| all.get(event.subject)) else {
            return Ok(());
        };
        let mut result = Ok(());
        let (plan, sums) = (self.plan, &mut self.sums);
        self.reader.read(event, fields, |meter, reading| {
            if let Ok(reading) = reading {
                let mut group = Vec::new();
                reading
                    .group
                    .iter()
                    .for_each(|text| key::put_text(&mut group, text));
                let given = Given {
                    subject: event.subject,
                    group: &group,
                    sample: &reading.sample,
                    taken_back,
                };
                result = given.add(plan, meter, spans, sums);
            }
        });
        result
    }
}

/// What one event gives.
struct Given<'e> {
    subject: &'e str,
    group: &'e [u8],
    sample: &'e Sample<'e>,
    taken_back: bool,
}

impl Given<'_> {
    fn add(
        &self,
        plan: &Plan,
        meter: &Meter,
        spans: &[TimeRange],
        sums: &mut Accumulator<'_>,
    ) -> Result<(), StoreError> {
        use turnpike_domain::meter::aggregate::Cell;
        let Some(row) = sums.row(self.subject, self.group)? else {
            return Ok(());
        };
        let time = Timestamp::from_micros_clamped(self.sample.time_us);
        let mut cell = Cell::new(meter.aggregation);
        cell.add(self.sample, self.taken_back).map_err(|_| damaged())?;
        for (at, span) in spans.iter().enumerate() {
            if !contains(span, time) {
                continue;
            }
            if meter.aggregation == Aggregation::TimeWeightedSum {
                sums.add_points(row, (self.subject, self.group, at), &cell)?;
                continue;
            }
            if plan.windows.first().is_some_and(|window| contains(window, time)) {
                sums.add(row, 0, &cell)?;
            }
        }
        Ok(())
    }
}

/// Whether `time` lies in `range`, whose end covers its whole minute where it is the end of all time.
fn contains(range: &TimeRange, time: Timestamp) -> bool {
    range.contains(time) || (range.end == Timestamp::MAX && time.minute() < end_minute(range.end))
}
