use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use dashmap::DashMap;
use parking_lot::Mutex;
use turnpike_domain::identity::{MeterId, TenantId};
use turnpike_domain::meter::Meter;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::quota::{GrantPlan, LevelCourse, Pools};
use turnpike_domain::time::{TimeRange, Timestamp};

use crate::history::Histories;
use crate::hold::Hold;
use crate::slot::Slot;

/// Seconds of which a track remembers what was added, so that the next window can begin without reading anything.
const AHEAD_SECONDS_MAX: usize = 600;
/// What is kept of them when there are more: longer than an event's time may lie ahead.
const AHEAD_KEPT_US: i64 = 360_000_000;

/// The usage of one feature by one customer and its descendants, as it goes on: its live slots, and what is needed to
/// begin the slots that follow.
pub(crate) struct Track {
    pub(crate) tenant: TenantId,
    pub(crate) customer: Arc<str>,
    pub(crate) feature: Arc<str>,
    pub(crate) meter: Arc<Meter>,
    /// One maker at a time; who finds it taken waits and looks again.
    pub(crate) making: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// Locked last: a hold may end, and touch this, while any other lock is held.
    history: Mutex<Histories>,
    history_epoch: AtomicU64,
    plan: ArcSwapOption<MadePlan>,
    /// In the minute of a change: the least that was told to have been covered before it. Locked alone.
    covered: Mutex<Option<(TimeRange, Quantity)>>,
    retired: AtomicBool,
}

#[derive(Default)]
struct State {
    registered: bool,
    ready: Vec<Arc<Slot>>,
    /// Registered, but without their base.
    filling: Vec<Arc<Slot>>,
    /// Second → what was added to it since the track was registered; complete from `known_from` on.
    ahead: BTreeMap<i64, i128>,
    known_from: Timestamp,
    used_at: Timestamp,
}

/// A plan of grants with the number of the directory that it was last made of.
struct MadePlan {
    generation: u64,
    /// In which it was made.
    minute: Timestamp,
    /// `None`: no grant decides anything in that minute.
    plan: Option<Arc<GrantPlan<LevelCourse>>>,
}

impl MadePlan {
    /// Whether it may say what is so at `now`.
    fn is_of(&self, now: Timestamp) -> bool {
        match &self.plan {
            Some(plan) => plan.is_of(now),
            None => self.minute == now.floor_minute(),
        }
    }
}

/// Past segments of a track that another, or it itself, follows.
#[derive(Clone)]
pub(crate) struct Past {
    /// The track whose grants they decide about.
    pub(crate) reader: Arc<Track>,
    pub(crate) segments: Vec<TimeRange>,
}

/// What is read at one cut.
#[derive(Clone)]
pub(crate) struct Cut {
    pub(crate) slots: Vec<Arc<Slot>>,
    /// The past that is followed from then on.
    pub(crate) past: Option<Past>,
    /// The segments of it that are read.
    pub(crate) reading: Vec<TimeRange>,
}

impl std::fmt::Debug for Track {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Track({}, {})", self.customer, self.feature)
    }
}

impl Track {
    pub(crate) fn new(
        tenant: TenantId,
        customer: Arc<str>,
        feature: Arc<str>,
        meter: Arc<Meter>,
    ) -> Arc<Self> {
        Arc::new(Self {
            tenant,
            customer,
            feature,
            meter,
            making: tokio::sync::Mutex::new(()),
            state: Mutex::default(),
            history: Mutex::default(),
            history_epoch: AtomicU64::new(0),
            plan: ArcSwapOption::empty(),
            covered: Mutex::default(),
            retired: AtomicBool::new(false),
        })
    }

    /// Takes in what was added at `time`, and collects the slots that it belongs to.
    pub(crate) fn note(&self, time: Timestamp, amount: i128, slots: &mut Vec<Arc<Slot>>) {
        let mut state = self.state.lock();
        if time >= state.known_from {
            let sum = state.ahead.entry(time.micros() / 1_000_000).or_default();
            *sum = sum.wrapping_add(amount);
            if state.ahead.len() > AHEAD_SECONDS_MAX {
                state.forget_behind();
            }
        }
        self.touch(time);
        let State { ready, filling, .. } = &*state;
        slots.extend(
            ready
                .iter()
                .chain(filling)
                .filter(|slot| slot.range().contains(time))
                .cloned(),
        );
    }

    /// The same for usage without a hold, added at once.
    pub(crate) fn add(&self, time: Timestamp, amount: i128, slots: &mut Vec<Arc<Slot>>) {
        self.note(time, amount, slots);
        for slot in slots.drain(..) {
            slot.add(amount);
        }
        if amount < 0 && (*self.covered.lock()).is_some_and(|(minute, _)| minute.contains(time)) {
            self.history_epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The least that was told to have been covered in `minute` by what held before a change in it: as it was at the
    /// change, for later usage counts against what holds now. What is taken back of it lowers it.
    pub(crate) fn least_covered(&self, minute: TimeRange, covered: Quantity) -> Quantity {
        let mut known = self.covered.lock();
        let before = known.filter(|(range, _)| range.start == minute.start);
        let least = before.map_or(covered, |(_, least)| least.min(covered));
        // A commit for an older minute takes nothing from what is known of the newest.
        if known.is_none_or(|(range, _)| range.start <= minute.start) {
            *known = Some((minute, least));
        }
        least
    }

    /// What was counted as used at `time` may no longer be.
    pub(crate) fn touch(&self, time: Timestamp) {
        let mut history = self.history.lock();
        if history.touch(time) {
            self.history_epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Counts an open hold into the slots that are live: also into those that wait for their base, for their maker may have
    /// looked for open holds already.
    pub(crate) fn attach(&self, hold: &Hold) {
        let State { ready, filling, .. } = &*self.state.lock();
        let live = ready.iter().chain(filling);
        for slot in live.filter(|slot| slot.range().contains(hold.time)) {
            hold.attach(slot);
        }
    }

    /// Counts up with each change of what past segments used.
    pub(crate) fn history_epoch(&self) -> u64 {
        self.history_epoch.load(Ordering::Acquire)
    }

    /// The slot of `range`: one that is there, or one that can begin from what is remembered. `attach` counts open
    /// holds into a new one before anybody sees it.
    pub(crate) fn slot(
        &self,
        range: TimeRange,
        now: Timestamp,
        attach: &dyn Fn(&Arc<Slot>),
    ) -> Option<Arc<Slot>> {
        let mut state = self.state.lock();
        state.used_at = state.used_at.max(now);
        if let Some(slot) = state.ready.iter().find(|slot| slot.range() == range) {
            return Some(slot.clone());
        }
        if !state.registered || range.start < state.known_from {
            return None;
        }
        let seconds = range.start.micros() / 1_000_000..range.end.micros() / 1_000_000;
        let total = state
            .ahead
            .range(seconds)
            .fold(0i128, |sum, (_, amount)| sum.wrapping_add(*amount));
        let slot = Arc::new(Slot::new(self.meter.id, range, total));
        attach(&slot);
        state.drop_old(now);
        state.ready.push(slot.clone());
        Some(slot)
    }

    /// The plan of grants at `now` by the directory of `generation`: the one that was made last, where it still says so, for
    /// much may have to be followed.
    pub(crate) fn grant_plan(
        &self,
        generation: u64,
        now: Timestamp,
        pools: impl FnOnce() -> Pools<LevelCourse>,
    ) -> Option<Arc<GrantPlan<LevelCourse>>> {
        let made = self.plan.load_full().filter(|made| made.is_of(now));
        if let Some(made) = made.as_deref().filter(|made| made.generation == generation) {
            return made.plan.clone();
        }
        let pools = pools();
        let standing = made.and_then(|made| made.plan.clone());
        let plan = match standing.filter(|plan| plan.stands(&pools, now)) {
            Some(plan) => Some(plan),
            None => GrantPlan::new(pools, now).map(Arc::new),
        };
        self.plan.store(Some(Arc::new(MadePlan {
            generation,
            minute: now.floor_minute(),
            plan: plan.clone(),
        })));
        plan
    }

    /// What `past` used here, if that is known and still stands, with the epoch to watch.
    pub(crate) fn history(&self, past: &Past) -> Option<(Vec<Quantity>, u64)> {
        // Under the lock no change can come between what is known and its epoch's number.
        let history = self.history.lock();
        let used = match history.of(&past.reader) {
            _ if past.segments.is_empty() => Vec::new(),
            Some(history) => history.used(&past.segments)?,
            None => return None,
        };
        Some((used, self.history_epoch()))
    }

    /// The segments of `past` whose usage here has to be read.
    pub(crate) fn missing(&self, past: &Past) -> Vec<TimeRange> {
        match self.history.lock().of(&past.reader) {
            Some(history) => history.missing(&past.segments),
            None => past.segments.clone(),
        }
    }

    /// Whether it is told of changes.
    pub(crate) fn is_registered(&self) -> bool {
        self.state.lock().registered
    }

    /// The cut: from here on changes reach these slots. `known_from` is set at the first time only.
    pub(crate) fn begin(&self, cut: Cut, known_from: Timestamp) {
        let mut state = self.state.lock();
        if !state.registered {
            state.registered = true;
            state.known_from = known_from;
        }
        state.filling.extend(cut.slots);
        if let Some(past) = cut.past.filter(|_| !cut.reading.is_empty()) {
            let mut history = self.history.lock();
            history.begin(&past.reader, past.segments, &cut.reading);
        }
    }

    /// The bases of a cut, and what was `read` of its past, are in: its slots may be decided on.
    pub(crate) fn finish(
        &self,
        cut: &Cut,
        read: &[(TimeRange, Quantity)],
        known_from: Option<Timestamp>,
        now: Timestamp,
    ) {
        let mut state = self.state.lock();
        state.used_at = state.used_at.max(now);
        if let Some(known_from) = known_from {
            state.known_from = state.known_from.max(known_from);
        }
        if let Some(past) = &cut.past {
            self.history.lock().finish(&past.reader, read);
        }
        state.drop_old(now);
        state
            .filling
            .retain(|slot| !cut.slots.iter().any(|one| Arc::ptr_eq(one, slot)));
        state.ready.extend_from_slice(&cut.slots);
    }

    /// The making failed: its slots are forgotten.
    pub(crate) fn abandon(&self, slots: &[Arc<Slot>]) {
        let mut state = self.state.lock();
        state
            .filling
            .retain(|slot| !slots.iter().any(|one| Arc::ptr_eq(one, slot)));
    }

    /// Whether nobody refers to it or its slots, save the engine's own lists, and nobody asked for them since `horizon`.
    pub(crate) fn is_idle(self: &Arc<Self>, horizon: Timestamp) -> bool {
        let state = self.state.lock();
        state.used_at < horizon
            && Arc::strong_count(self) <= 1 + usize::from(state.registered)
            && state.filling.is_empty()
            && state.ready.iter().all(|slot| Arc::strong_count(slot) == 1)
            && self.making.try_lock().is_ok()
    }

    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }
}

impl State {
    fn forget_behind(&mut self) {
        let Some((last, _)) = self.ahead.last_key_value() else {
            return;
        };
        let from = last - AHEAD_KEPT_US / 1_000_000;
        self.ahead = self.ahead.split_off(&from);
        self.known_from = self
            .known_from
            .max(Timestamp::from_micros_clamped(from * 1_000_000));
    }

    /// Drops slots whose window is over, unless somebody still holds them.
    fn drop_old(&mut self, now: Timestamp) {
        self.ready
            .retain(|slot| slot.range().end > now || Arc::strong_count(slot) > 1);
    }
}

/// Which tracks a change concerns: by meter, then by customer.
#[derive(Default)]
pub(crate) struct TrackIndex {
    meters: ArcSwap<std::collections::HashMap<MeterId, Arc<MeterTracks>>>,
}

/// The tracks over one meter.
#[derive(Default)]
pub(crate) struct MeterTracks {
    by_customer: DashMap<Arc<str>, Vec<Arc<Track>>, foldhash::fast::RandomState>,
}

impl TrackIndex {
    pub(crate) fn of_meter(&self, meter: MeterId) -> Option<Arc<MeterTracks>> {
        self.meters.load().get(&meter).cloned()
    }

    pub(crate) fn insert(&self, track: &Arc<Track>) {
        let meter = track.meter.id;
        if self.of_meter(meter).is_none() {
            self.meters.rcu(|meters| {
                let mut meters = std::collections::HashMap::clone(meters);
                meters.entry(meter).or_default();
                meters
            });
        }
        if let Some(tracks) = self.of_meter(meter) {
            let mut of_customer = tracks.by_customer.entry(track.customer.clone()).or_default();
            if !of_customer.iter().any(|one| Arc::ptr_eq(one, track)) {
                of_customer.push(track.clone());
            }
        }
    }

    pub(crate) fn remove(&self, track: &Arc<Track>) {
        let Some(tracks) = self.of_meter(track.meter.id) else {
            return;
        };
        tracks
            .by_customer
            .remove_if_mut(&track.customer, |_, of_customer| {
                of_customer.retain(|one| !Arc::ptr_eq(one, track));
                of_customer.is_empty()
            });
    }
}

impl MeterTracks {
    /// Runs `visit` on the tracks of a customer.
    pub(crate) fn of_customer(&self, customer: &str, mut visit: impl FnMut(&Arc<Track>)) {
        if let Some(tracks) = self.by_customer.get(customer) {
            tracks.iter().for_each(&mut visit);
        }
    }
}
