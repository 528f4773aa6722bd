use std::sync::Arc;

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
use crate::track::{Cut, Past, Track};

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
        self.track_of(entry, &level.customer.key, meter)
    }

    /// The track of a customer over `meter`. A feature that gets another meter has a track for each until the sweep finds that
    /// nobody uses the former one: who began under the one takes nothing from who decides over the other.
    pub(crate) fn track_of(&self, entry: &Entry, customer: &str, meter: &Arc<Meter>) -> Arc<Track> {
        let customer: Arc<str> = customer.into();
        let mut tracks = self.tracks.entry((entry.tenant, customer.clone())).or_default();
        let is_it = |track: &Arc<Track>| track.feature == entry.feature && track.meter.id == meter.id;
        if let Some(track) = tracks.iter().find(|track| is_it(track)) {
            return track.clone();
        }
        let track = Track::new(entry.tenant, customer, entry.feature.clone(), meter.clone());
        tracks.push(track.clone());
        track
    }

    /// Makes the slots of `ranges` and reads what `past` used, as far as they are missing. Runs to its end even when
    /// the caller goes away, so that nobody waits for a slot that is never finished.
    pub(crate) async fn prepare(
        &self,
        track: Arc<Track>,
        ranges: Vec<TimeRange>,
        past: Option<Past>,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let me = self.me.upgrade().ok_or_else(stopping)?;
        let making = tokio::spawn(async move {
            let _making = track.making.lock().await;
            me.make(&track, ranges, past, now).await
        });
        making.await.map_err(|_| stopping())?
    }

    async fn make(
        &self,
        track: &Arc<Track>,
        mut ranges: Vec<TimeRange>,
        past: Option<Past>,
        now: Timestamp,
    ) -> Result<(), Problem> {
        ranges.retain(|range| self.slot(track, *range, now).is_none());
        let reading = past.as_ref().map_or_else(Vec::new, |past| track.missing(past));
        if track.is_retired() || (ranges.is_empty() && reading.is_empty()) {
            return Ok(());
        }
        let fine = ranges
            .iter()
            .any(|range| !range.start.is_whole_minute() || !range.end.is_whole_minute());
        let ahead = (!track.is_registered()).then(|| Ahead::new(now, fine));
        let slots = ranges
            .iter()
            .map(|range| Arc::new(Slot::new(track.meter.id, *range, 0)));
        let cut = Cut {
            slots: slots.collect(),
            past,
            reading,
        };
        let sums = match self.read_at_cut(track, &cut, ahead.as_ref()).await {
            Ok(sums) => sums,
            Err(problem) => {
                track.abandon(&cut.slots);
                return Err(problem);
            }
        };
        let (bases, sums) = sums.split_at(cut.slots.len());
        let (used, probed) = sums.split_at(cut.reading.len());
        for (slot, base) in cut.slots.iter().zip(bases) {
            slot.add(base.parts());
            self.attach_open_holds(track, slot);
        }
        let read = self.with_open_holds(track, &cut.reading, used);
        let crowded = ahead.filter(|_| probed.iter().any(|sum| !sum.is_zero()));
        track.finish(&cut, &read, crowded.map(|ahead| ahead.late), now);
        if track.is_retired() {
            self.index.remove(track);
        }
        metrics::counter!("turnpike_quota_slots_made_total").increment(cut.slots.len() as u64);
        Ok(())
    }

    /// What the track used in the slots of `cut`, in the segments that it reads, and in the stretches ahead, while from the
    /// cut on the slots are told of changes.
    async fn read_at_cut(
        &self,
        track: &Arc<Track>,
        cut: &Cut,
        ahead: Option<&Ahead>,
    ) -> Result<Vec<Quantity>, Problem> {
        let subjects = self
            .scopes
            .spans(&*self.parts.directory, track.tenant, &track.customer);
        let clock_now = self.parts.clock.now(track.tenant);
        let slots = cut
            .slots
            .iter()
            .map(|slot| vec![readable(slot.range(), clock_now)]);
        let probes = ahead.map_or(&[][..], |ahead| &ahead.probes);
        let probes = probes.iter().map(|probe| vec![readable(*probe, clock_now)]);
        let runs: Vec<_> = slots.chain(runs(&cut.reading)).chain(probes).collect();
        let requests = runs.iter().map(|run| request(track, &subjects, run)).collect();
        let known_from = ahead.map_or(Timestamp::MAX, |ahead| ahead.soon);
        let (index, told, begun) = (self.index.clone(), track.clone(), cut.clone());
        let at_cut = Box::new(move || {
            told.begin(begun, known_from);
            if !told.is_retired() {
                index.insert(&told);
            }
        });
        let usage = &self.connected()?.usage;
        let totals = usage.totals(track.tenant, requests, Some(at_cut)).await?;
        let rows = totals.rows.iter().flatten();
        let sums: Vec<_> = rows.map(|row| row.value.unwrap_or_default()).collect();
        if sums.len() != runs.iter().map(Vec::len).sum::<usize>() {
            return Err(Problem::new(
                Code::Internal,
                "usage was read for another number of windows than asked",
            ));
        }
        Ok(sums)
    }

    /// The subject of a hold's event, as things stand.
    fn subject_of(&self, hold: &Hold) -> Arc<str> {
        let reserved_by = hold.reserved_by.as_deref();
        let customer = reserved_by.and_then(|key| self.parts.directory.customer(hold.tenant, key));
        match customer {
            Some(customer) => customer.subjects.first().unwrap_or(&customer.key).as_str().into(),
            None => Arc::clone(&hold.subject),
        }
    }

    /// Whether what a hold takes is usage of a customer.
    fn counts_for(&self, hold: &Hold, customer: &str) -> bool {
        let subject = self.subject_of(hold);
        covers(&*self.parts.directory, hold.tenant, customer, &subject, hold.time)
    }

    /// Counts what is on its way, or reserved, into a slot before anybody decides on it.
    pub(crate) fn attach_open_holds(&self, track: &Arc<Track>, slot: &Arc<Slot>) {
        for hold in self.book.within(track.tenant, &track.feature, slot.range()) {
            if self.counts_for(&hold, &track.customer) {
                hold.attach(slot);
            }
        }
    }

    /// Counts an open hold into every slot that is live, once each.
    pub(crate) fn attach_to_live_slots(&self, hold: &Arc<Hold>) {
        let Some(tracks) = self.index.of_meter(hold.meter) else {
            return;
        };
        climb(
            &*self.parts.directory,
            hold.tenant,
            &self.subject_of(hold),
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
    ) -> Vec<(TimeRange, Quantity)> {
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
            return Vec::new();
        };
        let all = TimeRange::new(first.start, last.end);
        let mut held = vec![0i128; segments.len()];
        for hold in self.book.within(track.tenant, &track.feature, all) {
            let at = segments.partition_point(|segment| segment.end <= hold.time);
            let ours = segments[at].contains(hold.time) && self.counts_for(&hold, &track.customer);
            if ours && hold.watch(track) {
                held[at] = held[at].saturating_add(hold.amount);
            }
        }
        let sums = used
            .iter()
            .zip(held)
            .map(|(used, held)| used.parts().saturating_add(held));
        let sums = sums.map(|sum| Quantity::from_parts(sum).unwrap_or(Quantity::MAX));
        segments.iter().copied().zip(sums).collect()
    }
}

/// Segments that follow one another without a gap, each run read as one.
fn runs(segments: &[TimeRange]) -> impl Iterator<Item = Vec<TimeRange>> + '_ {
    segments
        .chunk_by(|one, next| one.end == next.start)
        .map(<[_]>::to_vec)
}

/// The sums of stretches that follow one another.
fn request(track: &Track, subjects: &[SubjectSpan], run: &[TimeRange]) -> TotalRequest {
    let start = run.first().map_or(Timestamp::EPOCH, |first| first.start);
    let end = run.last().map_or(start, |last| last.end);
    TotalRequest {
        meter: track.meter.key.clone(),
        subjects: subjects.to_vec(),
        range: TimeRange::new(start, end),
        cuts: run.iter().skip(1).map(|one| one.start).collect(),
        filter: Vec::new(),
        group_by: Vec::new(),
    }
}

fn stopping() -> Problem {
    Problem::new(Code::ShuttingDown, "the server is stopping")
}
