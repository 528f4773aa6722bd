use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use dashmap::DashMap;
use turnpike_domain::catalog::Customer;
use turnpike_domain::hierarchy::climb;
use turnpike_domain::identity::{MeterId, NameKey, TenantId};
use turnpike_domain::port::BoxFuture;
use turnpike_domain::port::control::{DueWork, Undone};
use turnpike_domain::port::directory::{Directory, DirectoryChange, DirectoryListener};
use turnpike_domain::port::intake::Intake;
use turnpike_domain::port::usage::{UsageChange, UsageListener, UsageReader};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{Clock, Timestamp};

use crate::entry::{Entry, EntryTable, Generations};
use crate::hold::{HoldBook, Holds};
use crate::inflight::InFlight;
use crate::reservations::Reservations;
use crate::rows::Rows;
use crate::scope::Scopes;
use crate::tally::Tally;
use crate::track::{Track, TrackIndex};
use crate::writer::Writer;

/// What the quota engine is made from.
pub struct EnforcerParts {
    /// Who and what there is.
    pub directory: Arc<dyn Directory>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The secret of names and payload hashes.
    pub key: NameKey,
}

/// Tracks by customer: at most one per feature.
type Tracks = DashMap<(TenantId, Arc<str>), Vec<Arc<Track>>, foldhash::fast::RandomState>;

/// The quota engine. Made first, told to the partition owners as their listener, then connected to them.
pub struct Enforcer {
    pub(crate) me: Weak<Self>,
    pub(crate) parts: EnforcerParts,
    connected: OnceLock<Connected>,
    pub(crate) table: EntryTable,
    pub(crate) rows: Rows,
    pub(crate) generations: Generations,
    pub(crate) tracks: Tracks,
    pub(crate) index: Arc<TrackIndex>,
    pub(crate) book: HoldBook,
    pub(crate) scopes: Scopes,
    pub(crate) reservations: Reservations,
    pub(crate) in_flight: InFlight,
    pub(crate) tally: Tally,
    /// Writers of granted events, one per meter.
    pub(crate) writers: DashMap<MeterId, Arc<Writer>, foldhash::fast::RandomState>,
    /// Seconds by the monotonic clock, as of the last tick.
    pub(crate) coarse_s: AtomicU32,
}

pub(crate) struct Connected {
    pub(crate) intake: Arc<dyn Intake>,
    pub(crate) usage: Arc<dyn UsageReader>,
}

/// What the quota engine holds in memory: for what was asked for in the last quarter of an hour or is still held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Customers' features that were asked about.
    pub entries: usize,
    /// Those of them that are decided on in one go, from a row.
    pub rows: usize,
    /// Running counts of a customer's feature.
    pub tracks: usize,
    /// Customers whose place in the hierarchy those counts depend on.
    pub places: usize,
}

/// Seconds after which what nobody asked for is dropped from memory.
const IDLE_S: u32 = 900;

/// A count for a gauge, which has none beyond 32 bits.
fn shown(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

impl Enforcer {
    /// A quota engine that is not connected yet: it answers 503.
    pub fn new(parts: EnforcerParts) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            parts,
            connected: OnceLock::new(),
            table: EntryTable::new(),
            rows: Rows::default(),
            generations: Generations::new(),
            tracks: Tracks::default(),
            index: Arc::default(),
            book: HoldBook::default(),
            scopes: Scopes::default(),
            reservations: Reservations::default(),
            in_flight: InFlight::default(),
            tally: Tally::default(),
            writers: DashMap::default(),
            coarse_s: AtomicU32::new(0),
        })
    }

    /// Connects it to the partition owners and restores open reservations; afterwards it decides.
    pub async fn connect(&self, intake: Arc<dyn Intake>, usage: Arc<dyn UsageReader>) -> Result<(), Problem> {
        let open = usage.open_reservations().await?;
        self.restore(&open)?;
        let again = self.connected.set(Connected { intake, usage }).is_err();
        if again {
            return Err(Problem::new(
                Code::Internal,
                "the quota engine was connected twice",
            ));
        }
        Ok(())
    }

    pub(crate) fn connected(&self) -> Result<&Connected, Problem> {
        self.connected
            .get()
            .ok_or_else(|| Problem::new(Code::Unavailable, "the quota engine is starting"))
    }

    /// The customer, for whom something is decided: 404 if there is none, or if it was erased.
    pub(crate) fn known_customer(&self, tenant: TenantId, key: &str) -> Result<Arc<Customer>, Problem> {
        let customer = self.parts.directory.customer(tenant, key);
        customer
            .filter(|customer| customer.erased_at.is_none())
            .ok_or_else(|| Problem::not_found("customer", key))
    }

    /// The entry of a customer's feature; 404 unless both exist.
    pub(crate) fn entry(
        &self,
        tenant: TenantId,
        customer: &str,
        feature: &str,
    ) -> Result<Arc<Entry>, Problem> {
        if let Some(entry) = self.table.with(tenant, customer, feature, Arc::clone) {
            return Ok(entry);
        }
        self.known_customer(tenant, customer)?;
        if !self
            .parts
            .directory
            .catalog(tenant)
            .features
            .contains_key(feature)
        {
            return Err(Problem::not_found("feature", feature));
        }
        let entry = self.table.get_or_insert(tenant, customer, feature);
        entry.see(self.coarse_s.load(Ordering::Relaxed));
        Ok(entry)
    }

    /// What is due: reservations that ended, each by its tenant's clock, and memory that is no longer needed. The
    /// wiring calls it about ten times a second.
    pub async fn tick(&self) -> Result<(), Problem> {
        let now_s = u32::try_from(self.parts.clock.monotonic_us() / 1_000_000).unwrap_or(u32::MAX);
        let before = self.coarse_s.swap(now_s, Ordering::Relaxed);
        if now_s / 60 != before / 60 {
            self.sweep(now_s);
        }
        metrics::gauge!("turnpike_quota_reservations_open").set(shown(self.reservations.len()));
        self.expire_due().await
    }

    /// Drops entries and tracks that nobody used for a while, and what only they needed. Their slots can be made again from
    /// usage; those with holds are kept.
    fn sweep(&self, now_s: u32) {
        let entries = self.table.sweep(now_s.saturating_sub(IDLE_S));
        metrics::gauge!("turnpike_quota_entries").set(shown(entries));
        let mut kept = 0;
        self.tracks.retain(|(tenant, _), tracks| {
            let horizon = self
                .parts
                .clock
                .now(*tenant)
                .plus_micros(-i64::from(IDLE_S) * 1_000_000);
            tracks.retain(|track| {
                let idle = track.is_idle(horizon);
                if idle {
                    track.retire();
                    self.index.remove(track);
                }
                !idle
            });
            kept += tracks.len();
            !tracks.is_empty()
        });
        metrics::gauge!("turnpike_quota_tracks").set(shown(kept));
        let tracked = |tenant, customer: &str| self.tracks.contains_key(&(tenant, customer.into()));
        let places = self.scopes.sweep(&*self.parts.directory, tracked);
        metrics::gauge!("turnpike_quota_places").set(shown(places));
    }

    /// What stands in memory of all tenants.
    pub fn held(&self) -> Held {
        Held {
            entries: self.table.len(),
            rows: self.rows.len(),
            tracks: self.tracks.iter().map(|tracks| tracks.len()).sum(),
            places: self.scopes.len(),
        }
    }

    fn retire_tracks(&self, tenant: TenantId, customer: &str) {
        let removed = self.tracks.remove(&(tenant, customer.into()));
        for track in removed.into_iter().flat_map(|(_, tracks)| tracks) {
            track.retire();
            self.index.remove(&track);
        }
    }

    fn apply(&self, change: &UsageChange<'_>) {
        let tracks = self.index.of_meter(change.meter);
        let holds = change.hold.and_then(|hold| hold.downcast_ref::<Holds>());
        let holds = holds.filter(|holds| holds.meter == change.meter);
        let directory = &*self.parts.directory;
        let amount = change.amount.parts();
        let mut slots = Vec::new();
        let Some(holds) = holds else {
            let Some(tracks) = tracks else { return };
            climb(
                directory,
                change.tenant,
                change.subject,
                change.time,
                |customer| {
                    tracks.of_customer(&customer.key, |track| track.add(change.time, amount, &mut slots));
                },
            );
            return;
        };
        // Closed before it is noted: a slot made in between must not count it both as held and as used.
        let closed = holds.close();
        if let Some(tracks) = tracks {
            climb(
                directory,
                change.tenant,
                change.subject,
                change.time,
                |customer| {
                    tracks.of_customer(&customer.key, |track| track.note(change.time, amount, &mut slots));
                },
            );
        }
        closed.settle(amount, &slots);
    }
}

impl UsageListener for Enforcer {
    fn applied(&self, changes: &[UsageChange<'_>]) {
        for change in changes {
            self.apply(change);
        }
    }
}

impl DirectoryListener for Enforcer {
    fn changed(&self, change: &DirectoryChange) {
        let tenant = match change {
            DirectoryChange::Tenant(tenant) | DirectoryChange::Catalog(tenant) => *tenant,
            DirectoryChange::Customer(tenant, customer) => {
                for concerned in self.scopes.changed(&*self.parts.directory, *tenant, customer) {
                    self.retire_tracks(*tenant, &concerned);
                }
                *tenant
            }
        };
        // Last, so that what is compiled under the new number sees no retired track.
        self.generations.changed(tenant);
    }
}

impl DueWork for Enforcer {
    fn next_due(
        &self,
        tenant: TenantId,
        after: Timestamp,
    ) -> BoxFuture<'_, Result<Option<Timestamp>, Problem>> {
        let next = self.reservations.next_due(tenant, after);
        Box::pin(async move { Ok(next) })
    }

    fn run_due(&self, tenant: TenantId, now: Timestamp) -> BoxFuture<'_, Result<Undone, Problem>> {
        Box::pin(async move {
            self.expire(tenant, now).await?;
            Ok(Undone::default())
        })
    }
}
