//! Sums derived from the raw log alone, for verifying what was counted on the way: a plain pass over all records that
//! shares with the incremental way only how an event is read and how cells are finished.

use turnpike_domain::identity::TenantId;
use turnpike_domain::meter::aggregate::Sample;
use turnpike_domain::meter::{Fields, Meter, TypeReader};
use turnpike_domain::port::StoreError;
use turnpike_domain::port::log::{EventLog, Only};
use turnpike_domain::port::usage::{TotalRequest, Totals};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::record::{EventRecord, Position, Record, Watermark, decode};
use turnpike_domain::time::{TimeRange, Timestamp};

use super::accumulate::{Accumulator, damaged};
use super::plan::end_minute;
use super::totals::{dimensions, on_another_thread, project, total_rows};
use super::{Plan, Projection};
use crate::Aggregator;
use crate::rows::key;

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
        let until = watermark.clone();
        let rows = on_another_thread(move || {
            let mut rows = Vec::with_capacity(plans.len());
            let projections = plans
                .iter()
                .zip(&requests)
                .map(|(plan, request)| dimensions(plan, request))
                .collect::<Result<Vec<_>, _>>()?;
            let closures: Vec<Box<Projection<'_>>> = projections
                .iter()
                .map(|at| -> Box<Projection<'_>> { Box::new(move |_, group| project(at, group)) })
                .collect();
            let mut sums = Vec::with_capacity(plans.len());
            for (plan, projection) in plans.iter().zip(&closures) {
                let reader = TypeReader::new([std::sync::Arc::clone(&plan.meter)])
                    .map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
                sums.push(Derived {
                    plan,
                    reader,
                    sums: Accumulator::new(plan, projection.as_ref()),
                });
            }
            derive(log.as_ref(), tenant, &until, &mut sums)?;
            for (derived, (plan, request)) in sums.into_iter().zip(plans.iter().zip(&requests)) {
                rows.push(total_rows(plan, request, derived.sums.finish()?)?);
            }
            Ok(rows)
        });
        Ok(Totals {
            rows: rows.await?,
            watermark,
        })
    }
}

/// One request on its way through the log.
struct Derived<'p> {
    plan: &'p Plan,
    reader: TypeReader,
    sums: Accumulator<'p>,
}

fn derive(
    log: &dyn EventLog,
    tenant: TenantId,
    until: &Watermark,
    all: &mut [Derived<'_>],
) -> Result<(), Problem> {
    let mut fields = Fields::default();
    for block in log.read(Position::START, Only::ALL) {
        let block = block?;
        if block.position >= until.highest() {
            break;
        }
        for (at, bytes) in block.block.records().enumerate() {
            let position = Position(block.position.0 + at as u64);
            let record = decode(bytes)?;
            if record.tenant() != tenant || !until.contains(block.block.partition, position) {
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
        use turnpike_domain::meter::Aggregation;
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
