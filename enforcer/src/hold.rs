use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use parking_lot::Mutex;
use turnpike_domain::identity::{MeterId, TenantId};
use turnpike_domain::time::{TimeRange, Timestamp};

use crate::slot::Slot;
use crate::track::Track;

/// An amount that was taken from slots, for an event that is on its way to the log or for a reservation.
///
/// Whatever becomes of it, it ends once: settled when its event is applied, or given back; at the latest when nobody
/// knows it any more. So neither a failed write nor a caller that went away can leave anything taken.
pub(crate) struct Hold {
    pub(crate) tenant: TenantId,
    pub(crate) feature: Arc<str>,
    pub(crate) meter: MeterId,
    /// The subject that its event has, as things stand.
    pub(crate) subject: Arc<str>,
    /// For a reservation: the customer. The event of its commit has the subject that is the customer's first by then.
    pub(crate) reserved_by: Option<Arc<str>>,
    /// The time that its event counts for.
    pub(crate) time: Timestamp,
    pub(crate) amount: i128,
    parts: Mutex<Parts>,
}

#[derive(Default)]
pub(crate) struct Parts {
    closed: bool,
    slots: Vec<Arc<Slot>>,
    /// Tracks that counted this hold into what earlier segments used.
    watchers: Vec<Arc<Track>>,
}

impl Hold {
    /// Takes `amount` from `slot`, or tells the total that stood against it.
    pub(crate) fn take(&self, slot: &Arc<Slot>, ceiling: i128) -> Result<(), i128> {
        let mut parts = self.parts.lock();
        slot.take(self.amount, ceiling)?;
        parts.slots.push(slot.clone());
        Ok(())
    }

    /// Counts an open hold into a slot that was made after it was granted.
    pub(crate) fn attach(&self, slot: &Arc<Slot>) {
        let mut parts = self.parts.lock();
        if !parts.closed && !parts.slots.iter().any(|one| Arc::ptr_eq(one, slot)) {
            slot.hold(self.amount);
            parts.slots.push(slot.clone());
        }
    }

    /// Whether it is open; then `track` is told when it ends without an event.
    pub(crate) fn watch(&self, track: &Arc<Track>) -> bool {
        let mut parts = self.parts.lock();
        if !parts.closed && !parts.watchers.iter().any(|one| Arc::ptr_eq(one, track)) {
            parts.watchers.push(track.clone());
        }
        !parts.closed
    }

    /// Gives everything back, unless it has ended.
    pub(crate) fn give_back(&self) {
        let mut parts = self.parts.lock();
        if parts.closed {
            return;
        }
        parts.closed = true;
        for slot in parts.slots.drain(..) {
            slot.settle(self.amount, 0);
        }
        let watchers = std::mem::take(&mut parts.watchers);
        drop(parts);
        for track in watchers {
            track.touch(self.time);
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.parts.lock().closed
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// What stands behind the record of one event: a hold, and for a commit of more than was reserved a second one.
pub(crate) struct Holds {
    pub(crate) holds: Vec<Arc<Hold>>,
    /// The meter that the event is written for. Where the feature had another one when it was held, or gets another one
    /// meanwhile, slots of that one were taken from too.
    pub(crate) meter: MeterId,
}

impl Holds {
    /// Ends the holds, for their event is being applied to its meter. From here on no new slot counts them; what they took
    /// stays taken until [`ClosedHolds::settle`].
    pub(crate) fn close(&self) -> ClosedHolds {
        let mut held: Vec<(Arc<Slot>, i128)> = Vec::new();
        let mut watchers = Vec::new();
        for hold in &self.holds {
            let mut parts = hold.parts.lock();
            parts.closed = true;
            // Those over the event's meter are told of it as it is noted.
            let others = parts
                .watchers
                .drain(..)
                .filter(|track| track.meter.id != self.meter);
            watchers.extend(others.map(|track| (track, hold.time)));
            for slot in parts.slots.drain(..) {
                match held.iter_mut().find(|(one, _)| Arc::ptr_eq(one, &slot)) {
                    Some((_, amount)) => *amount += hold.amount,
                    None => held.push((slot, hold.amount)),
                }
            }
        }
        for (track, time) in watchers {
            track.touch(time);
        }
        ClosedHolds {
            held,
            meter: self.meter,
        }
    }

    /// Gives everything back that has not ended.
    pub(crate) fn give_back(&self) {
        for hold in &self.holds {
            hold.give_back();
        }
    }
}

/// What ended holds had taken, and the meter of their event.
pub(crate) struct ClosedHolds {
    held: Vec<(Arc<Slot>, i128)>,
    meter: MeterId,
}

impl ClosedHolds {
    /// Turns what was taken into what was `used` of the event's meter. Slots among `matching` that were not taken from get the
    /// whole amount; those of another meter get everything back.
    pub(crate) fn settle(self, used: i128, matching: &[Arc<Slot>]) {
        for (slot, amount) in &self.held {
            let used = if slot.meter() == self.meter { used } else { 0 };
            slot.settle(*amount, used);
        }
        for slot in matching {
            if !self.held.iter().any(|(one, _)| Arc::ptr_eq(one, slot)) {
                slot.add(used);
            }
        }
    }
}

/// All open holds, for slots that are made after they were granted.
#[derive(Default)]
pub(crate) struct HoldBook {
    features: DashMap<(TenantId, Arc<str>), Arc<Mutex<OpenHolds>>, foldhash::fast::RandomState>,
    next: AtomicU64,
}

#[derive(Default)]
struct OpenHolds {
    by_time: BTreeMap<(Timestamp, u64), Weak<Hold>>,
    sweep_at: usize,
}

impl HoldBook {
    /// A hold that has taken nothing yet, entered before it takes: a slot made from now on will count it.
    pub(crate) fn enter(&self, draft: HoldDraft) -> Arc<Hold> {
        let hold = Arc::new(Hold {
            tenant: draft.tenant,
            feature: draft.feature,
            meter: draft.meter,
            subject: draft.subject,
            reserved_by: draft.reserved_by,
            time: draft.time,
            amount: draft.amount,
            parts: Mutex::default(),
        });
        let key = (hold.tenant, hold.feature.clone());
        let open = self.features.entry(key).or_default().clone();
        let mut open = open.lock();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        open.by_time.insert((hold.time, number), Arc::downgrade(&hold));
        if open.by_time.len() >= open.sweep_at {
            open.by_time.retain(|_, hold| hold.strong_count() > 0);
            open.sweep_at = open.by_time.len() * 2 + 64;
        }
        hold
    }

    /// The open holds of a feature with times in `range`.
    pub(crate) fn within(&self, tenant: TenantId, feature: &Arc<str>, range: TimeRange) -> Vec<Arc<Hold>> {
        let open = self
            .features
            .get(&(tenant, feature.clone()))
            .map(|open| open.clone());
        let Some(open) = open else {
            return Vec::new();
        };
        let bounds = (range.start, 0)..(range.end, 0);
        let mut holds: Vec<_> = open
            .lock()
            .by_time
            .range(bounds)
            .filter_map(|(_, hold)| hold.upgrade())
            .collect();
        holds.retain(|hold| hold.is_open());
        holds
    }
}

/// What a hold is made from.
pub(crate) struct HoldDraft {
    pub(crate) tenant: TenantId,
    pub(crate) feature: Arc<str>,
    pub(crate) meter: MeterId,
    pub(crate) subject: Arc<str>,
    pub(crate) reserved_by: Option<Arc<str>>,
    pub(crate) time: Timestamp,
    pub(crate) amount: i128,
}
