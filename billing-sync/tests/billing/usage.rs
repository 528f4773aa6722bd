//! A log of usage in memory: simple enough to be right by looking at it.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::BoxFuture;
use turnpike_domain::port::history::{Backfill, DeadLetterPage, EventPage, EventQuery, History};
use turnpike_domain::port::usage::{Derivation, GroupTotal, TotalRequest, Totals, Underivable, UsageReader};
use turnpike_domain::problem::Problem;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::record::{Position, Watermark};
use turnpike_domain::time::Timestamp;

/// One record: an amount at a time. What is taken back is another record with a negative amount.
#[derive(Debug, Clone)]
struct Record {
    meter: String,
    subject: String,
    time: Timestamp,
    amount: Quantity,
    region: String,
}

#[derive(Default)]
pub(crate) struct FakeUsage {
    records: Mutex<Vec<Record>>,
    pub(crate) deleted: Mutex<bool>,
    /// Meters that there are no more.
    pub(crate) gone: Mutex<Vec<String>>,
    /// How often the log was read from its beginning.
    pub(crate) passes: AtomicUsize,
    /// How often sums were asked for.
    pub(crate) reads: AtomicUsize,
    /// What happens, once, while sums are read.
    pub(crate) meanwhile: Mutex<Option<BoxFuture<'static, ()>>>,
}

/// Nothing to look at, and no meter.
impl History for FakeUsage {
    fn events(&self, _: TenantId, _: EventQuery) -> BoxFuture<'_, Result<EventPage, Problem>> {
        Box::pin(async { Ok(EventPage::default()) })
    }

    fn dead_letters(
        &self,
        _: TenantId,
        _: usize,
        _: Option<String>,
    ) -> BoxFuture<'_, Result<DeadLetterPage, Problem>> {
        Box::pin(async { Ok(DeadLetterPage::default()) })
    }

    fn backfill(&self, _: TenantId, _: &str) -> Option<Backfill> {
        None
    }
}

impl FakeUsage {
    pub(crate) fn add(&self, subject: &str, time: &str, amount: &str) {
        self.add_in(subject, time, amount, "");
    }

    pub(crate) fn add_in(&self, subject: &str, time: &str, amount: &str, region: &str) {
        self.records.lock().push(Record {
            meter: "tokens".to_owned(),
            subject: subject.to_owned(),
            time: Timestamp::parse(time).unwrap(),
            amount: Quantity::parse(amount).unwrap(),
            region: region.to_owned(),
        });
    }

    fn sums(&self, requests: &[TotalRequest], records: usize) -> Totals {
        let all = self.records.lock();
        let rows = requests
            .iter()
            .map(|request| rows(&all[..records], request))
            .collect();
        Totals {
            rows,
            watermark: Watermark(vec![Position::new(records as u64, 0)]),
        }
    }
}

fn rows(records: &[Record], request: &TotalRequest) -> Vec<GroupTotal> {
    let mut groups: Vec<GroupTotal> = Vec::new();
    if request.group_by.is_empty() {
        groups.push(GroupTotal {
            group: vec![],
            value: Some(Quantity::ZERO),
        });
    }
    for record in records.iter().filter(|record| record.meter == request.meter) {
        let owned = |span: &turnpike_domain::port::usage::SubjectSpan| {
            span.subject == record.subject && span.span.contains(record.time)
        };
        let taken = request
            .filter
            .iter()
            .all(|(_, values)| values.contains(&record.region));
        if !request.range.contains(record.time) || !request.subjects.iter().any(owned) || !taken {
            continue;
        }
        let group: Vec<String> = request.group_by.iter().map(|_| record.region.clone()).collect();
        let at = groups
            .iter()
            .position(|row| row.group == group)
            .unwrap_or_else(|| {
                groups.push(GroupTotal {
                    group,
                    value: Some(Quantity::ZERO),
                });
                groups.len() - 1
            });
        groups[at].value = groups[at].value.unwrap().checked_add(record.amount);
    }
    groups
}

impl UsageReader for FakeUsage {
    fn totals(
        &self,
        _: TenantId,
        requests: Vec<TotalRequest>,
        at_cut: Option<Box<dyn FnOnce() + Send>>,
    ) -> BoxFuture<'_, Result<Totals, Problem>> {
        assert!(at_cut.is_none());
        self.reads.fetch_add(1, Ordering::Relaxed);
        let records = self.records.lock().len();
        let gone = self.gone.lock();
        if let Some(request) = requests.iter().find(|request| gone.contains(&request.meter)) {
            let problem = Problem::not_found("meter", &request.meter);
            return Box::pin(async move { Err(problem) });
        }
        drop(gone);
        let totals = self.sums(&requests, records);
        let meanwhile = self.meanwhile.lock().take();
        Box::pin(async move {
            if let Some(meanwhile) = meanwhile {
                meanwhile.await;
            }
            Ok(totals)
        })
    }

    fn totals_from_log(
        &self,
        derivations: Vec<Derivation>,
    ) -> BoxFuture<'_, Result<Vec<Result<Totals, Underivable>>, Problem>> {
        self.passes.fetch_add(1, Ordering::Relaxed);
        let derive = |derivation: &Derivation| {
            if *self.deleted.lock() {
                return Err(Underivable::Deleted("raw events were deleted".to_owned()));
            }
            let kept = self.records.lock().len() as u64;
            let end = derivation.watermark.0[0].offset();
            if end > kept {
                return Err(Underivable::BehindTheEnd(Position::new(kept, 0)));
            }
            Ok(self.sums(&derivation.requests, end as usize))
        };
        let derived = derivations.iter().map(derive).collect();
        Box::pin(async move { Ok(derived) })
    }

    fn open_reservations(&self) -> BoxFuture<'_, Result<Vec<Vec<u8>>, Problem>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}
