use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use hashbrown::HashTable;
use parking_lot::Mutex;
use turnpike_domain::catalog::{Grant, LimitMode, LimitPeriod};
use turnpike_domain::identity::{MeterId, TenantId};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::quota::{Figures, GrantPlan, LevelCourse, Reason, Standing};
use turnpike_domain::time::{TimeRange, Timestamp};

use crate::slot::Slot;
use crate::track::Track;

/// How many numbers there are for the directories of tenants. Two that share one are compiled once more than they need to.
const GENERATIONS: usize = 4_096;

/// Counts up with each change of a tenant's directory; what was compiled under an older number is compiled anew.
pub(crate) struct Generations(Box<[AtomicU64]>);

impl Generations {
    pub(crate) fn new() -> Self {
        // Each engine of a process counts from elsewhere: no row of one, left at a place that another uses now, is good there.
        static ENGINES: AtomicU64 = AtomicU64::new(0);
        let first = ENGINES.fetch_add(1, Ordering::Relaxed) << 40;
        Self((0..GENERATIONS).map(|_| AtomicU64::new(first)).collect())
    }

    #[inline]
    pub(crate) fn of(&self, tenant: TenantId) -> u64 {
        self.number(tenant).load(Ordering::SeqCst)
    }

    pub(crate) fn changed(&self, tenant: TenantId) {
        self.number(tenant).fetch_add(1, Ordering::SeqCst);
    }

    #[inline]
    fn number(&self, tenant: TenantId) -> &AtomicU64 {
        &self.0[tenant.0 as usize % GENERATIONS]
    }
}

/// A (tenant, customer, feature) that decisions were asked for.
pub(crate) struct Entry {
    pub(crate) tenant: TenantId,
    pub(crate) customer: Arc<str>,
    pub(crate) feature: Arc<str>,
    pub(crate) resolved: ArcSwapOption<Resolved>,
    /// The coarse second of its last use, for dropping what is idle.
    seen: AtomicU32,
}

/// What decisions on an entry count against, compiled from the directory for a stretch of time.
pub(crate) struct Resolved {
    pub(crate) generation: u64,
    pub(crate) valid: TimeRange,
    pub(crate) verdict: Verdict,
    /// The slots, each once, with the most that each takes.
    pub(crate) cells: Box<[Cell]>,
    pub(crate) limits: Box<[LimitCell]>,
    /// Tracks whose past usage decides what is left of grants, with the epoch that was compiled in.
    pub(crate) watched: Box<[(Arc<Track>, u64)]>,
    /// The grants that raise limits, by level.
    pub(crate) pools: Box<[Pool]>,
    /// Plans and add-ons that a refusal may name.
    pub(crate) options: crate::upgrade::Options,
}

/// The grants of one level, with what decides how much of them is left.
pub(crate) struct Pool {
    /// Whose limits they raise.
    pub(crate) customer: Arc<str>,
    pub(crate) grants: Arc<GrantPlan<LevelCourse>>,
    /// What the plan's past segments left of them.
    pub(crate) standing: Standing,
    /// In the minute of a change, what the pool used in it that held before.
    pub(crate) held: Option<Arc<Slot>>,
    /// The cell of the window whose limits they raise.
    pub(crate) cell: usize,
}

pub(crate) enum Verdict {
    Denied(Reason),
    Entitled(Option<String>),
    Metered(Metering),
}

/// The meter behind a feature.
pub(crate) struct Metering {
    pub(crate) meter: MeterId,
    /// The subject that granted events have.
    pub(crate) subject: Arc<str>,
}

pub(crate) struct Cell {
    pub(crate) slot: Arc<Slot>,
    pub(crate) ceiling: i128,
}

/// One limit, over a cell.
pub(crate) struct LimitCell {
    pub(crate) cell: usize,
    pub(crate) customer: Arc<str>,
    pub(crate) period: LimitPeriod,
    pub(crate) mode: LimitMode,
    /// `None`: no limit, only counted.
    pub(crate) limit: Option<i128>,
    pub(crate) ceiling: Option<i128>,
    /// By how much grants raised both.
    pub(crate) raised: i128,
    pub(crate) resets_us: i64,
}

impl LimitCell {
    pub(crate) fn figures(&self, total: i128, reserved: i128) -> Figures {
        Figures {
            mode: self.mode,
            limit: self.limit,
            ceiling: self.ceiling,
            total,
            reserved,
            resets_us: self.resets_us,
        }
    }
}

impl Resolved {
    /// Whether it still says what is so at `now`.
    pub(crate) fn stands(&self, generation: u64, now: Timestamp) -> bool {
        self.valid.contains(now)
            && self.generation == generation
            && self
                .watched
                .iter()
                .all(|(track, epoch)| track.history_epoch() == *epoch && !track.is_retired())
    }

    /// What is left now of a pool's grants, in the order of drawing.
    pub(crate) fn left(&self, pool: &Pool) -> Vec<(Arc<Grant>, Quantity)> {
        let (total, held) = self.totals(pool);
        pool.grants.left(&pool.standing, total, held)
    }

    /// By how much a pool's grants would raise a limit of a window that began at `start` and has used `since`, of which at
    /// most `ceiling` is granted without them.
    pub(crate) fn extra_of(
        &self,
        pool: &Pool,
        start: Timestamp,
        since: Quantity,
        ceiling: Quantity,
    ) -> Quantity {
        let (total, held) = self.totals(pool);
        let window = (start, since, ceiling);
        pool.grants.extra_of(&pool.standing, window, total, held)
    }

    /// What was used and is held in the window that a pool's grants raise, and in the minute of a change where it was before.
    fn totals(&self, pool: &Pool) -> (Quantity, Quantity) {
        let total = |slot: &Slot| Quantity::from_parts(slot.total()).unwrap_or(Quantity::MAX);
        let held = pool.held.as_deref().map_or(Quantity::ZERO, total);
        (total(&self.cells[pool.cell].slot), held)
    }

    /// Whether the limits of a customer admit `amount` more as they stand.
    pub(crate) fn admits_for(&self, customer: &str, amount: Quantity) -> bool {
        let limits = self.limits.iter().zip(self.figures());
        let mut ours = limits.filter(|(limit, _)| *limit.customer == *customer);
        ours.all(|(_, figures)| figures.admits(amount.parts()))
    }

    /// The figures of all limits as they stand.
    pub(crate) fn figures(&self) -> impl Iterator<Item = Figures> + '_ {
        self.limits.iter().map(|limit| {
            let counts = self.cells[limit.cell].slot.counts();
            limit.figures(counts.total, counts.reserved)
        })
    }
}

impl Entry {
    /// Notes that it was used in coarse second `now_s`.
    pub(crate) fn see(&self, now_s: u32) {
        // Written at most once a second, for a line that every decision writes to would be shared by all.
        if self.seen.load(Ordering::Relaxed) != now_s {
            self.seen.store(now_s, Ordering::Relaxed);
        }
    }
}

const SHARDS: usize = 1024;

/// Entries by name: shards that are read without a lock and replaced as a whole when an entry is new.
pub(crate) struct EntryTable {
    hasher: foldhash::fast::RandomState,
    shards: Box<[Shard]>,
}

struct Shard {
    table: ArcSwap<HashTable<(u64, Arc<Entry>)>>,
    writing: Mutex<()>,
}

impl EntryTable {
    pub(crate) fn new() -> Self {
        let shard = |_| Shard {
            table: ArcSwap::from_pointee(HashTable::new()),
            writing: Mutex::new(()),
        };
        Self {
            hasher: foldhash::fast::RandomState::default(),
            shards: (0..SHARDS).map(shard).collect(),
        }
    }

    fn hash(&self, tenant: TenantId, customer: &str, feature: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(u64::from(tenant.0) << 32 | customer.len() as u64);
        hasher.write(customer.as_bytes());
        hasher.write(feature.as_bytes());
        hasher.finish()
    }

    fn shard(&self, hash: u64) -> &Shard {
        // The table inside uses the low and the highest bits.
        let [_, _, high, low, ..] = hash.to_be_bytes();
        &self.shards[usize::from(u16::from_be_bytes([high, low])) % SHARDS]
    }

    /// Runs `read` on the entry of that name, if there is one.
    pub(crate) fn with<R>(
        &self,
        tenant: TenantId,
        customer: &str,
        feature: &str,
        read: impl FnOnce(&Arc<Entry>) -> R,
    ) -> Option<R> {
        let hash = self.hash(tenant, customer, feature);
        let table = self.shard(hash).table.load();
        let found = table.find(hash, |(_, entry)| {
            entry.tenant == tenant && *entry.customer == *customer && *entry.feature == *feature
        });
        found.map(|(_, entry)| read(entry))
    }

    /// The entry of that name, made if there is none.
    pub(crate) fn get_or_insert(&self, tenant: TenantId, customer: &str, feature: &str) -> Arc<Entry> {
        let hash = self.hash(tenant, customer, feature);
        let shard = self.shard(hash);
        let _writing = shard.writing.lock();
        if let Some(entry) = self.with(tenant, customer, feature, Arc::clone) {
            return entry;
        }
        let entry = Arc::new(Entry {
            tenant,
            customer: customer.into(),
            feature: feature.into(),
            resolved: ArcSwapOption::empty(),
            seen: AtomicU32::new(0),
        });
        let mut table = HashTable::clone(&shard.table.load());
        table.insert_unique(hash, (hash, entry.clone()), |(hash, _)| *hash);
        shard.table.store(Arc::new(table));
        entry
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.table.load().len()).sum()
    }

    /// Drops entries that were not used since coarse second `horizon_s`; returns how many stay.
    pub(crate) fn sweep(&self, horizon_s: u32) -> usize {
        let mut kept = 0;
        for shard in &self.shards {
            let idle = |entry: &Entry| entry.seen.load(Ordering::Relaxed) < horizon_s;
            let table = shard.table.load();
            if !table.iter().any(|(_, entry)| idle(entry)) {
                kept += table.len();
                continue;
            }
            let _writing = shard.writing.lock();
            let mut table = HashTable::clone(&shard.table.load());
            table.retain(|(_, entry)| {
                let idle = idle(entry);
                if idle {
                    // A handle may keep the entry: what it compiled goes, so that its slots can.
                    entry.resolved.store(None);
                }
                !idle
            });
            kept += table.len();
            shard.table.store(Arc::new(table));
        }
        kept
    }
}
