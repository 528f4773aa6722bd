//! Ranges finer than a minute, for limits per second: read from the log's tail.
//!
//! An event may be at most 5 minutes ahead of the clock, so one that counts for the last two minutes arrived within the
//! last seven. A timeline remembers where the log stood then; from there on the blocks whose times touch the range are
//! read, the others are skipped by their headers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use turnpike_domain::identity::TenantId;
use turnpike_domain::limits::EVENT_FUTURE_US_MAX;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::log::{EventLog, Only};
use turnpike_domain::port::usage::{GroupTotal, TotalRequest};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::record::{Position, Record, Watermark, decode};
use turnpike_domain::time::{MINUTE_US, TimeRange};

use super::from_log::{Sum, derive};
use super::{Plan, on_another_thread};
use crate::Aggregator;

/// How far back a fine range may begin, in microseconds.
const REACH_US: i64 = 2 * MINUTE_US;
/// How far back the timeline reaches, with a minute to spare.
const KEPT_US: i64 = REACH_US + EVENT_FUTURE_US_MAX + MINUTE_US;
/// Between marks of the timeline, in microseconds.
const STEP_US: i64 = 10_000_000;

/// Where the log stood at moments of the last minutes.
pub(crate) struct Timeline {
    marks: Mutex<VecDeque<(i64, Position)>>,
    next_us: AtomicI64,
}

impl Timeline {
    /// Reads the tail of the log until a record that is old enough.
    pub(crate) fn open(log: &dyn EventLog, directory: &dyn Directory, now_us: i64) -> Result<Self, Problem> {
        let mut mark = (i64::MIN, log.first());
        for block in log.read_back(log.end(), Only::ALL) {
            let block = block?;
            let mut received = None;
            for bytes in block.block.records() {
                let record = decode(bytes)?;
                // The clock of a test tenant says nothing about when its events came.
                if !is_test(directory, record.tenant()) {
                    received = received.max(Some(received_us(&record)));
                }
            }
            if received.is_some_and(|us| us < now_us - KEPT_US) {
                mark = (now_us - KEPT_US, block.next);
                break;
            }
        }
        Ok(Self {
            marks: Mutex::new(VecDeque::from([mark])),
            next_us: AtomicI64::new(0),
        })
    }

    /// Notes where the log stands, now and then.
    pub(crate) fn touch(&self, log: &dyn EventLog, now_us: i64) {
        if now_us < self.next_us.load(Ordering::Relaxed) {
            return;
        }
        self.next_us.store(now_us + STEP_US, Ordering::Relaxed);
        let mut marks = self.marks.lock();
        // A clock that was set back starts anew: what came since the oldest mark is still behind it.
        if marks.back().is_some_and(|(us, _)| *us > now_us) {
            marks.truncate(1);
            if let Some(first) = marks.front_mut() {
                first.0 = i64::MIN;
            }
        }
        marks.push_back((now_us, log.end()));
        while marks.get(1).is_some_and(|(us, _)| *us <= now_us - KEPT_US) {
            marks.pop_front();
        }
    }

    /// Everything that arrived in the last minutes is behind this position.
    fn start(&self, now_us: i64) -> Position {
        let marks = self.marks.lock();
        let old = marks.iter().rev().find(|(us, _)| *us <= now_us - KEPT_US);
        old.or_else(|| marks.front())
            .map_or(Position::START, |(_, position)| *position)
    }
}

fn is_test(directory: &dyn Directory, tenant: TenantId) -> bool {
    directory.tenant(tenant).is_some_and(|tenant| tenant.test)
}

/// When a record came, in microseconds; the beginning of time where it does not say.
pub(crate) fn received_us(record: &Record<'_>) -> i64 {
    match record {
        Record::Event(event) | Record::Committed { event, .. } => event.received_us,
        Record::Void { at_us, .. } | Record::Amend { at_us, .. } | Record::Released { at_us, .. } => *at_us,
        Record::Rejected(rejected) => rejected.received_us,
        Record::Reserved(reservation) => reservation.made_us,
        Record::Resolved { .. } => i64::MIN,
    }
}

/// Whether a range is finer than minutes.
pub(super) fn is_fine(range: &TimeRange) -> bool {
    let whole = |at: turnpike_domain::time::Timestamp| at.is_whole_minute() || at == TimeRange::ALL.end;
    !(whole(range.start) && whole(range.end))
}

impl Aggregator {
    /// Notes where the log stands.
    pub(crate) fn mark_time(&self) {
        let now_us = self.shared.clock.machine_now().micros();
        self.timeline.touch(self.shared.log.as_ref(), now_us);
    }

    /// The sums of fine ranges up to `watermark`, which is durable.
    pub(super) async fn fine_totals(
        &self,
        tenant: TenantId,
        asked: Vec<(Plan, TotalRequest)>,
        watermark: Watermark,
    ) -> Result<Vec<Vec<GroupTotal>>, Problem> {
        let now = self.shared.clock.now(tenant);
        let hull = asked
            .iter()
            .map(|(_, request)| request.range)
            .reduce(|a, b| TimeRange::new(a.start.min(b.start), a.end.max(b.end)));
        let Some(hull) = hull else {
            return Ok(Vec::new());
        };
        let test = is_test(self.shared.directory.as_ref(), tenant);
        if !test && hull.start < now.plus_micros(-REACH_US) {
            let detail = "a range that is not on whole minutes must lie in the last two minutes";
            return Err(Problem::new(Code::Invalid, detail));
        }
        let from = if test {
            self.shared.log.first()
        } else {
            self.timeline.start(self.shared.clock.machine_now().micros())
        };
        let (log, watermark) = (Arc::clone(&self.shared.log), Arc::new(watermark));
        on_another_thread(move || {
            let only = Only {
                times: Some(hull),
                ..Only::ALL
            };
            let asked: Vec<Sum> = asked
                .into_iter()
                .map(|(plan, request)| Sum {
                    plan,
                    request,
                    watermark: Arc::clone(&watermark),
                })
                .collect();
            derive(log.as_ref(), from, only, &asked)
        })
        .await
    }
}
