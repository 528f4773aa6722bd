//! Ranges finer than a minute, for limits per second: read from the log's tail.
//!
//! An event may be at most 5 minutes ahead of the clock, so one that counts for the last two minutes arrived within the
//! last seven. A timeline remembers where the log stood then; from there on the blocks whose times touch the range are
//! read, the others are skipped by their headers.

use std::collections::VecDeque;
use std::ops::Range;
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

/// How far before the end the log is first probed for what came earlier, in bytes; then twice as far each time.
const PROBE_BYTES: u64 = 4 * 1024 * 1024;
/// Blocks that are read at a place before it is said to tell nothing.
const PROBED_BLOCKS: usize = 16;

/// Where the log stood at moments of the last minutes.
pub(crate) struct Timeline {
    /// Never empty.
    marks: Mutex<VecDeque<(i64, Position)>>,
    next_us: AtomicI64,
}

impl Timeline {
    /// Begins where the log stands. Where it stood before is looked for when it is first asked for, so that a start does not
    /// wait for that.
    pub(crate) fn open(log: &dyn EventLog, now_us: i64) -> Self {
        Self {
            marks: Mutex::new(VecDeque::from([(now_us, log.end())])),
            next_us: AtomicI64::new(0),
        }
    }

    /// Notes where the log stands, now and then.
    pub(crate) fn touch(&self, log: &dyn EventLog, now_us: i64) {
        let next_us = self.next_us.load(Ordering::Relaxed);
        if (next_us - STEP_US..next_us).contains(&now_us) {
            return;
        }
        self.next_us.store(now_us + STEP_US, Ordering::Relaxed);
        let mut marks = self.marks.lock();
        // Where the clock was set back, marks of times that are to come again say nothing.
        marks.retain(|(us, _)| *us <= now_us);
        marks.push_back((now_us, log.end()));
        while marks.get(1).is_some_and(|(us, _)| *us <= now_us - KEPT_US) {
            marks.pop_front();
        }
    }

    /// Everything that arrived in the last minutes is behind this position.
    fn start(
        &self,
        log: &dyn EventLog,
        is_test: &dyn Fn(TenantId) -> bool,
        now_us: i64,
    ) -> Result<Position, Problem> {
        let since_us = now_us - KEPT_US;
        let earliest = {
            let marks = self.marks.lock();
            let old = marks.iter().rev().find(|(us, _)| *us <= since_us);
            match (old, marks.front()) {
                (Some((_, position)), _) => return Ok(*position),
                (None, front) => front.map_or_else(|| log.end(), |(_, position)| *position),
            }
        };
        let found = before(log, is_test, earliest, since_us)?;
        let mut marks = self.marks.lock();
        if marks.front().is_none_or(|(us, _)| *us > since_us) {
            marks.push_front((since_us, found));
        }
        Ok(found)
    }
}

/// A position before `end` behind which everything stands that came since `since_us`. Probes a few places, each twice as far
/// from the end as the one before.
fn before(
    log: &dyn EventLog,
    is_test: &dyn Fn(TenantId) -> bool,
    end: Position,
    since_us: i64,
) -> Result<Position, Problem> {
    let first = log.first();
    let mut back = PROBE_BYTES;
    loop {
        let offset = end.offset().saturating_sub(back);
        if offset <= first.offset() {
            return Ok(first);
        }
        if let Some(found) = old_at(log, is_test, Position::new(offset, 0)..end, since_us)? {
            return Ok(found);
        }
        back = back.saturating_mul(2);
    }
}

/// The position of a block at the beginning of `place` that came before `since_us`.
fn old_at(
    log: &dyn EventLog,
    is_test: &dyn Fn(TenantId) -> bool,
    place: Range<Position>,
    since_us: i64,
) -> Result<Option<Position>, Problem> {
    for block in log.read(place.start, Only::ALL).take(PROBED_BLOCKS) {
        let block = block?;
        if block.position >= place.end {
            break;
        }
        let mut received = None;
        for bytes in block.block.records() {
            let record = decode(bytes)?;
            // The clock of a test tenant says nothing about when its events came.
            if !is_test(record.tenant()) {
                received = received.max(Some(received_us(&record)));
            }
        }
        if let Some(received_us) = received {
            return Ok((received_us < since_us).then_some(block.position));
        }
    }
    Ok(None)
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
        let (shared, timeline) = (Arc::clone(&self.shared), Arc::clone(&self.timeline));
        let watermark = Arc::new(watermark);
        on_another_thread(move || {
            let log = shared.log.as_ref();
            let is_test = |tenant| is_test(shared.directory.as_ref(), tenant);
            let from = if test {
                log.first()
            } else {
                timeline.start(log, &is_test, shared.clock.machine_now().micros())?
            };
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
            derive(log, from, only, &asked)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use turnpike_domain::port::log::Block;
    use turnpike_domain::record::{EventRecord, encode};
    use turnpike_stores::memory::MemoryLog;

    use super::*;

    const MIB: usize = 1024 * 1024;
    const TEST: TenantId = TenantId(9);

    /// Appends blocks of a MiB each, of an event that came then. Answers where they begin.
    fn append(log: &MemoryLog, mib: usize, (tenant, received_us): (TenantId, i64)) -> Position {
        let begin = log.end();
        let record = Record::Event(EventRecord {
            tenant: tenant.0,
            source: "s",
            id: "e",
            kind: "t",
            subject: "a",
            time_us: received_us,
            time_sent: true,
            received_us,
            data: &"x".repeat(MIB),
            extensions: "",
            grant: None,
        });
        let mut bytes = Vec::new();
        encode(&record, &mut bytes);
        let mut block = Block::default();
        block.push(&bytes);
        for _ in 0..mib {
            log.append(block.clone()).unwrap();
        }
        begin
    }

    fn start(timeline: &Timeline, log: &MemoryLog, now_us: i64) -> Result<Position, Problem> {
        timeline.start(log, &|tenant| tenant == TEST, now_us)
    }

    #[test]
    fn the_last_minutes_are_found_without_reading_the_whole_log() {
        let (log, now) = (MemoryLog::new(), 100 * KEPT_US);
        let mut unreadable = Block::default();
        unreadable.push(&vec![0xff; MIB]);
        for _ in 0..30 {
            log.append(unreadable.clone()).unwrap();
        }
        let old = append(&log, 6, (TenantId(1), now - KEPT_US - 1));
        let young = append(&log, 2, (TenantId(1), now - KEPT_US));
        append(&log, 3, (TEST, 0));
        // Blocks that cannot be read lie behind those that are old enough: a start reads none, and the search none of those.
        let timeline = Timeline::open(&log, now);
        let found = start(&timeline, &log, now).unwrap();
        assert!(found >= old && found <= young, "{old:?} {found:?} {young:?}");
        assert_eq!(start(&timeline, &log, now).unwrap(), found);
        // Once the timeline itself reaches far enough nothing is looked for.
        let later = now + KEPT_US;
        let end = log.end();
        append(&log, 1, (TenantId(1), later));
        timeline.touch(&log, later);
        assert_eq!(start(&timeline, &log, later).unwrap(), end);
    }

    #[test]
    fn a_log_without_anything_old_is_read_from_its_first_block() {
        let (log, now) = (MemoryLog::new(), 100 * KEPT_US);
        append(&log, 20, (TEST, 0));
        append(&log, 2, (TenantId(1), now));
        let timeline = Timeline::open(&log, now);
        assert_eq!(start(&timeline, &log, now).unwrap(), log.first());
    }

    #[test]
    fn a_clock_that_was_set_back_looks_for_what_came_at_that_time() {
        let (log, now) = (MemoryLog::new(), 100 * KEPT_US);
        let old = append(&log, 9, (TenantId(1), now - 9 * KEPT_US));
        let timeline = Timeline::open(&log, now - 8 * KEPT_US);
        let then = append(&log, 6, (TenantId(1), now - 4 * KEPT_US));
        for passed in -30..=0 {
            timeline.touch(&log, now + passed * KEPT_US / 4);
        }
        append(&log, 6, (TenantId(1), now));
        let back = now - 4 * KEPT_US;
        timeline.touch(&log, back);
        let found = start(&timeline, &log, back).unwrap();
        assert!(found >= old && found <= then, "{old:?} {found:?} {then:?}");
    }
}
