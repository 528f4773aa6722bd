use std::sync::Arc;

use turnpike_domain::catalog::Customer;
use turnpike_domain::hierarchy::climb;
use turnpike_domain::meter::Meter;
use turnpike_domain::port::usage::{SubjectSpan, TotalRequest};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::quota::Level;
use turnpike_domain::time::{MINUTE_US, TimeRange, Timestamp};

use crate::Enforcer;
use crate::entry::Entry;
use crate::hold::Hold;
use crate::scope::covers;
use crate::slot::Slot;
use crate::track::Track;

/// Minutes ahead that are looked at for events of the future: they lie at most 5 ahead of the clock.
const MINUTES_AHEAD: i64 = 6;

/// Where the changes that a new track is told of become all there is.
struct Ahead {
    /// The stretches that hold events of the future, if there are any.
    probes: Vec<TimeRange>,
    /// If there are none: from here on the track knows everything.
    soon: Timestamp,
    /// If there are some: from here on.
    late: Timestamp,
}

impl Ahead {
    fn new(now: Timestamp, fine: bool) -> Self {
        let minute = now.floor_minute().plus_micros(MINUTE_US);
        let second = now.plus_micros(1_000_000 - now.micros() % 1_000_000);
        let next = |n: i64| minute.plus_micros(n * MINUTE_US);
        // With limits per second, the rest of this minute too: each of its seconds has to begin from something.
        let rest = (fine && second < minute).then(|| TimeRange::new(second, minute));
        let minutes = (0..MINUTES_AHEAD).map(|n| TimeRange::new(next(n), next(n + 1)));
        Self {
            probes: rest.into_iter().chain(minutes).collect(),
            soon: if fine { second } else { minute },
            late: next(MINUTES_AHEAD),
        }
    }
}

/// How old a second may be that is still read exactly: usage keeps them for two minutes, and reading takes its time.
const FINE_REACH_US: i64 = 100_000_000;

/// What is read for `range`: itself, or the whole minutes that it lies in where it is a second that usage no longer
/// keeps. Only a commit beyond an older reservation asks for such a one, and is told too much rather than too little.
fn readable(range: TimeRange, now: Timestamp) -> TimeRange {
    if range.start >= now.plus_micros(-FINE_REACH_US) {
        return range;
    }
    let end = if range.end.is_whole_minute() {
        range.end
    } else {
        range.end.floor_minute().plus_micros(MINUTE_US)
    };
    TimeRange::new(range.start.floor_minute(), end)
}

impl Enforcer {
    /// The track of one level of an entry.
    pub(crate) fn track(&self, entry: &Entry, level: &Level, meter: &Arc<Meter>) -> Arc<Track> {
        self.track_of(entry, &level.customer, meter)
    }

    pub(crate) fn track_of(&self, entry: &Entry, customer: &Customer, meter: &Arc<Meter>) -> Arc<Track> {
        let customer: Arc<str> = customer.key.as_str().into();
        let mut tracks = self.tracks.entry((entry.tenant, customer.clone())).or_default();
        let found = tracks.iter().position(|track| track.feature == entry.feature);
        if let Some(at) = found {
            if tracks[at].meter.id == meter.id && !tracks[at].is_retired() {
                return tracks[at].clone();
            }
            let old = tracks.swap_remove(at);
            old.retire();
            self.index.remove(&old);
        }
        let track = Track::new(entry.tenant, customer, entry.feature.clone(), meter.clone());
        tracks.push(track.clone());
        track
    }

    /// Makes the slots of `ranges` and reads what `segments` used, as far as they are missing. Runs to its end even when
    /// the caller goes away, so that nobody waits for a slot that is never finished.
    pub(crate) async fn prepare(
        &self,
        track: Arc<Track>,
        ranges: Vec<TimeRange>,
        segments: Vec<TimeRange>,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let me = self.me.upgrade().ok_or_else(stopping)?;
        let making = tokio::spawn(async move {
            let _making = track.making.lock().await;
            me.make(&track, ranges, segments, now).await
        });
        making.await.map_err(|_| stopping())?
    }

    async fn make(
        &self,
        track: &Arc<Track>,
        mut ranges: Vec<TimeRange>,
        mut segments: Vec<TimeRange>,
        now: Timestamp,
    ) -> Result<(), Problem> {
        ranges.retain(|range| self.slot(track, *range, now).is_none());
        if segments.is_empty() || track.history(&segments).is_some() {
            segments.clear();
        }
        if track.is_retired() || (ranges.is_empty() && segments.is_empty()) {
            return Ok(());
        }
        let fine = ranges
            .iter()
            .any(|range| !range.start.is_whole_minute() || !range.end.is_whole_minute());
        let ahead = (!track.is_registered()).then(|| Ahead::new(now, fine));
        let probes = ahead.as_ref().map_or(&[][..], |ahead| &ahead.probes);
        let read: Vec<_> = ranges.iter().chain(&segments).chain(probes).copied().collect();
        let slots: Vec<_> = ranges
            .iter()
            .map(|range| Arc::new(Slot::new(*range, 0)))
            .collect();
        let soon = ahead.as_ref().map_or(Timestamp::MAX, |ahead| ahead.soon);
        let sums = match self
            .read_at_cut(track, &read, slots.clone(), segments.clone(), soon)
            .await
        {
            Ok(sums) => sums,
            Err(problem) => {
                track.abandon(&slots);
                return Err(problem);
            }
        };
        for (slot, base) in slots.iter().zip(&sums) {
            slot.add(base.parts());
            self.attach_open_holds(track, slot);
        }
        let (used, probed) = sums[ranges.len()..].split_at(segments.len());
        let used = (!segments.is_empty()).then(|| self.with_open_holds(track, &segments, used));
        let crowded = ahead.filter(|_| probed.iter().any(|sum| !sum.is_zero()));
        track.finish(&slots, used, crowded.map(|ahead| ahead.late), now);
        if track.is_retired() {
            self.index.remove(track);
        }
        metrics::counter!("turnpike_quota_slots_made_total").increment(slots.len() as u64);
        Ok(())
    }

    /// The sums of the track's usage over `ranges`, while from the cut on the slots are told of changes.
    async fn read_at_cut(
        &self,
        track: &Arc<Track>,
        ranges: &[TimeRange],
        slots: Vec<Arc<Slot>>,
        segments: Vec<TimeRange>,
        known_from: Timestamp,
    ) -> Result<Vec<Quantity>, Problem> {
        let subjects = self
            .scopes
            .spans(&*self.parts.directory, track.tenant, &track.customer);
        let clock_now = self.parts.clock.now(track.tenant);
        let requests = ranges
            .iter()
            .map(|range| request(track, &subjects, readable(*range, clock_now)))
            .collect();
        let (index, cut) = (self.index.clone(), track.clone());
        let at_cut = Box::new(move || {
            cut.begin(slots, segments, known_from);
            if !cut.is_retired() {
                index.insert(&cut);
            }
        });
        let usage = &self.connected()?.usage;
        let totals = usage.totals(track.tenant, requests, Some(at_cut)).await?;
        let sums: Vec<_> = totals
            .rows
            .iter()
            .map(|rows| rows.first().and_then(|row| row.value))
            .collect();
        if sums.len() != ranges.len() {
            return Err(Problem::new(
                Code::Internal,
                "usage was read for another number of windows than asked",
            ));
        }
        Ok(sums.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Counts what is on its way, or reserved, into a slot before anybody decides on it.
    pub(crate) fn attach_open_holds(&self, track: &Arc<Track>, slot: &Arc<Slot>) {
        for hold in self.book.within(track.tenant, &track.feature, slot.range()) {
            if covers(
                &*self.parts.directory,
                track.tenant,
                &track.customer,
                &hold.subject,
                hold.time,
            ) {
                hold.attach(slot);
            }
        }
    }

    /// Counts a hold that was found in the log into every slot that is live.
    pub(crate) fn attach_to_live_slots(&self, hold: &Arc<Hold>) {
        let Some(tracks) = self.index.of_meter(hold.meter) else {
            return;
        };
        climb(
            &*self.parts.directory,
            hold.tenant,
            &hold.subject,
            hold.time,
            |customer| {
                tracks.of_customer(&customer.key, |track| {
                    if track.feature == hold.feature {
                        track.attach(hold);
                        track.touch(hold.time);
                    }
                });
            },
        );
    }

    /// What segments used, with what is held in them: it counts for them once its event comes.
    fn with_open_holds(
        &self,
        track: &Arc<Track>,
        segments: &[TimeRange],
        used: &[Quantity],
    ) -> Vec<Quantity> {
        let sums = segments.iter().zip(used).map(|(segment, used)| {
            let holds = self.book.within(track.tenant, &track.feature, *segment);
            let ours = holds.iter().filter(|hold| {
                covers(
                    &*self.parts.directory,
                    track.tenant,
                    &track.customer,
                    &hold.subject,
                    hold.time,
                ) && hold.watch(track)
            });
            let held = ours.fold(used.parts(), |sum, hold| sum.saturating_add(hold.amount));
            Quantity::from_parts(held).unwrap_or(Quantity::MAX)
        });
        sums.collect()
    }
}

fn request(track: &Track, subjects: &[SubjectSpan], range: TimeRange) -> TotalRequest {
    TotalRequest {
        meter: track.meter.key.clone(),
        subjects: subjects.to_vec(),
        range,
        filter: Vec::new(),
        group_by: Vec::new(),
    }
}

fn stopping() -> Problem {
    Problem::new(Code::ShuttingDown, "the server is stopping")
}
