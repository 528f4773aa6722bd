use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;
use turnpike_domain::identity::{EventName, TenantId};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::record::{GrantRecord, Position, ReservationRecord};
use turnpike_domain::time::Timestamp;

use crate::hold::Hold;

/// An open reservation.
#[derive(Clone)]
pub(crate) struct Reservation {
    pub(crate) tenant: TenantId,
    pub(crate) name: EventName,
    pub(crate) id: String,
    pub(crate) customer: String,
    pub(crate) feature: String,
    pub(crate) amount: Quantity,
    pub(crate) properties: String,
    pub(crate) reason: String,
    pub(crate) digest: u64,
    pub(crate) made: Timestamp,
    pub(crate) expires: Timestamp,
    /// Where its record stands; of a restored one it is looked up.
    pub(crate) position: Option<Position>,
    /// What it holds; nothing when its feature is gone.
    pub(crate) hold: Option<Arc<Hold>>,
}

impl Reservation {
    pub(crate) fn record(&self) -> ReservationRecord<'_> {
        ReservationRecord {
            tenant: self.tenant.0,
            id: &self.id,
            made_us: self.made.micros(),
            expires_us: self.expires.micros(),
            properties: &self.properties,
            grant: GrantRecord {
                customer: &self.customer,
                feature: &self.feature,
                amount: self.amount.parts(),
                reason: &self.reason,
                body_digest: self.digest,
            },
        }
    }
}

/// All open reservations, and when they end.
#[derive(Default)]
pub(crate) struct Reservations {
    by_name: DashMap<EventName, Arc<Reservation>, foldhash::fast::RandomState>,
    due: Mutex<BTreeMap<TenantId, BTreeSet<(Timestamp, EventName)>>>,
    open: AtomicUsize,
}

impl Reservations {
    pub(crate) fn len(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn get(&self, name: EventName) -> Option<Arc<Reservation>> {
        self.by_name.get(&name).map(|one| one.clone())
    }

    pub(crate) fn insert(&self, reservation: Reservation) -> Arc<Reservation> {
        let reservation = Arc::new(reservation);
        let key = (reservation.expires, reservation.name);
        self.due.lock().entry(reservation.tenant).or_default().insert(key);
        if self
            .by_name
            .insert(reservation.name, reservation.clone())
            .is_none()
        {
            self.open.fetch_add(1, Ordering::Relaxed);
        }
        reservation
    }

    /// Forgets a reservation that was closed. What it held ends by its event, or is given back by the caller.
    pub(crate) fn remove(&self, reservation: &Reservation) {
        if self.by_name.remove(&reservation.name).is_some() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        let mut due = self.due.lock();
        if let Some(of_tenant) = due.get_mut(&reservation.tenant) {
            of_tenant.remove(&(reservation.expires, reservation.name));
            if of_tenant.is_empty() {
                due.remove(&reservation.tenant);
            }
        }
    }

    /// The tenants that have reservations.
    pub(crate) fn tenants(&self) -> Vec<TenantId> {
        self.due.lock().keys().copied().collect()
    }

    /// The names of reservations that end at or before `now`, earliest first, at most `most`.
    pub(crate) fn due(&self, tenant: TenantId, now: Timestamp, most: usize) -> Vec<EventName> {
        let due = self.due.lock();
        let of_tenant = due.get(&tenant).into_iter().flatten();
        of_tenant
            .take_while(|(expires, _)| *expires <= now)
            .take(most)
            .map(|(_, name)| *name)
            .collect()
    }

    /// Those that come after a place in the order of when they end, at most `most`: when each ends, and its name.
    pub(crate) fn after(
        &self,
        tenant: TenantId,
        place: (Timestamp, EventName),
        most: usize,
    ) -> Vec<(Timestamp, EventName)> {
        let due = self.due.lock();
        let Some(of_tenant) = due.get(&tenant) else {
            return Vec::new();
        };
        let behind = of_tenant.range((Bound::Excluded(place), Bound::Unbounded));
        behind.take(most).copied().collect()
    }

    /// When the next one after `after` ends.
    pub(crate) fn next_due(&self, tenant: TenantId, after: Timestamp) -> Option<Timestamp> {
        let behind = Bound::Excluded((after, EventName(u128::MAX)));
        let due = self.due.lock();
        due.get(&tenant)?
            .range((behind, Bound::Unbounded))
            .next()
            .map(|(expires, _)| *expires)
    }
}
