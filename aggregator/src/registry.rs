//! The meters of a partition: compiled for reading, and how far each has filled itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use bincode::{Decode, Encode};
use foldhash::HashMap;
use parking_lot::RwLock;
use turnpike_domain::identity::{MeterId, TenantId};
use turnpike_domain::meter::{Meter, Readers};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::record::Position;
use turnpike_domain::time::Timestamp;

/// Which records a meter counts in this partition: all before `next`, and all from `since` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where the partition noticed the meter: from here on it counts as records arrive.
    pub since: Position,
    /// How far the backfill has come; `since` when it is complete.
    pub next: Position,
    /// Raw events timed before this had been deleted when the meter was made: it may lack them, for ever.
    pub lacks_before: Option<Timestamp>,
}

impl Extent {
    pub(crate) fn is_complete(&self) -> bool {
        self.next >= self.since
    }
}

/// What other threads may know of the extents of a partition.
pub(crate) type SharedExtents = Arc<RwLock<HashMap<MeterId, Extent>>>;

/// The meters of all tenants, as one partition counts them.
#[derive(Default)]
pub(crate) struct Registry {
    tenants: HashMap<TenantId, TenantMeters>,
    extents: SharedExtents,
}

#[derive(Default)]
struct TenantMeters {
    readers: Readers,
    meters: Vec<Arc<Meter>>,
}

/// The extents as they stand in a checkpoint.
#[derive(Encode, Decode, Default)]
struct Meta {
    version: u32,
    /// Meter, since, next.
    extents: Vec<(u32, u64, u64)>,
}

/// The same where meters were made after raw events had been deleted; written only then.
#[derive(Encode, Decode, Default)]
struct CutMeta {
    version: u32,
    extents: Vec<(u32, u64, u64)>,
    /// Meter, and the time in microseconds before which it may lack events.
    lacks: Vec<(u32, i64)>,
}

const META_VERSION: u32 = 1;
const CUT_META_VERSION: u32 = 2;

impl CutMeta {
    fn read(meta: &[u8]) -> Result<Self, Problem> {
        let standard = bincode::config::standard();
        let damaged = |error: bincode::error::DecodeError| {
            Problem::new(
                Code::Internal,
                format!("the views' meters cannot be read: {error}"),
            )
        };
        let (version, _): (u32, usize) = bincode::decode_from_slice(meta, standard).map_err(damaged)?;
        match version {
            META_VERSION => {
                let (meta, _): (Meta, usize) = bincode::decode_from_slice(meta, standard).map_err(damaged)?;
                Ok(Self {
                    version,
                    extents: meta.extents,
                    lacks: Vec::new(),
                })
            }
            CUT_META_VERSION => Ok(bincode::decode_from_slice(meta, standard).map_err(damaged)?.0),
            newer => {
                let detail = format!(
                    "the views' meters have version {newer}, this program knows up to {CUT_META_VERSION}"
                );
                Err(Problem::new(Code::Internal, detail))
            }
        }
    }
}

impl Registry {
    /// The extents of the last checkpoint, before any meter is known.
    pub(crate) fn restore(meta: &[u8]) -> Result<Self, Problem> {
        let registry = Self::default();
        if meta.is_empty() {
            return Ok(registry);
        }
        let meta = CutMeta::read(meta)?;
        let mut extents = registry.extents.write();
        for (meter, since, next) in meta.extents {
            let extent = Extent {
                since: Position(since),
                next: Position(next),
                lacks_before: None,
            };
            extents.insert(MeterId(meter), extent);
        }
        for (meter, before_us) in meta.lacks {
            if let Some(extent) = extents.get_mut(&MeterId(meter)) {
                extent.lacks_before = Some(Timestamp::from_micros_clamped(before_us));
            }
        }
        drop(extents);
        Ok(registry)
    }

    /// The extents, for a checkpoint.
    pub(crate) fn meta(&self) -> Vec<u8> {
        let sorted: BTreeMap<_, _> = self
            .extents
            .read()
            .iter()
            .map(|(id, extent)| (*id, *extent))
            .collect();
        let lacks: Vec<_> = sorted
            .iter()
            .filter_map(|(id, extent)| Some((id.0, extent.lacks_before?.micros())))
            .collect();
        let extents = sorted
            .into_iter()
            .map(|(id, extent)| (id.0, extent.since.0, extent.next.0))
            .collect();
        let standard = bincode::config::standard();
        let encoded = if lacks.is_empty() {
            let version = META_VERSION;
            bincode::encode_to_vec(Meta { version, extents }, standard)
        } else {
            let meta = CutMeta {
                version: CUT_META_VERSION,
                extents,
                lacks,
            };
            bincode::encode_to_vec(meta, standard)
        };
        // Writing to a vector cannot fail.
        encoded.unwrap_or_default()
    }

    pub(crate) fn extents(&self) -> SharedExtents {
        Arc::clone(&self.extents)
    }

    /// Takes over a tenant's meters as they are declared now. A new one counts from `at` on; `first` is the first
    /// position of the log, where its backfill begins, and events before the time `deleted` may be missing there.
    /// Returns the meters that are gone.
    pub(crate) fn refresh(
        &mut self,
        directory: &dyn Directory,
        tenant: TenantId,
        (first, deleted): (Position, Option<Timestamp>),
        at: Position,
    ) -> Result<Vec<MeterId>, Problem> {
        let meters: Vec<Arc<Meter>> = directory.catalog(tenant).meters.values().cloned().collect();
        let readers = Readers::new(meters.iter().cloned())
            .map_err(|error| Problem::new(Code::Internal, format!("a meter's path {error}")))?;
        let known = self.tenants.entry(tenant).or_default();
        let is_declared = |id: &MeterId| meters.iter().any(|meter| meter.id == *id);
        let gone: Vec<MeterId> = known
            .meters
            .iter()
            .map(|meter| meter.id)
            .filter(|id| !is_declared(id))
            .collect();
        let mut extents = self.extents.write();
        for meter in &meters {
            let next = first.min(at);
            extents.entry(meter.id).or_insert(Extent {
                since: at,
                next,
                lacks_before: deleted,
            });
        }
        for id in &gone {
            extents.remove(id);
        }
        drop(extents);
        *known = TenantMeters { readers, meters };
        Ok(gone)
    }

    /// Forgets extents of meters that no tenant declares.
    pub(crate) fn keep_declared(&mut self) {
        let declared: Vec<MeterId> = self
            .tenants
            .values()
            .flat_map(|t| t.meters.iter().map(|m| m.id))
            .collect();
        self.extents.write().retain(|id, _| declared.contains(id));
    }

    pub(crate) fn readers(&self, tenant: TenantId) -> Option<&Readers> {
        self.tenants.get(&tenant).map(|known| &known.readers)
    }

    /// The next backfill: a range of the log, and readers of the meters that have all come to its beginning.
    pub(crate) fn backfill(&self) -> Option<BackfillTask> {
        let extents = self.extents.read();
        let open = || extents.iter().filter(|(_, extent)| !extent.is_complete());
        let from = open().map(|(_, extent)| extent.next).min()?;
        let members = || open().filter(|(_, extent)| extent.next == from);
        // Meters that are further on join when the others have come to them.
        let others = open().map(|(_, extent)| extent.next).filter(|next| *next > from);
        let until = members().map(|(_, extent)| extent.since).chain(others).min()?;
        let meters: Vec<MeterId> = members().map(|(id, _)| *id).collect();
        Some(BackfillTask { meters, from, until })
    }

    /// Readers of only these meters, by tenant.
    pub(crate) fn readers_of(&self, wanted: &[MeterId]) -> HashMap<TenantId, Readers> {
        let of = |known: &TenantMeters| {
            known
                .meters
                .iter()
                .filter(|m| wanted.contains(&m.id))
                .cloned()
                .collect::<Vec<_>>()
        };
        self.tenants
            .iter()
            .map(|(tenant, known)| (*tenant, of(known)))
            .filter(|(_, meters)| !meters.is_empty())
            // Their paths were read when the tenant was refreshed.
            .filter_map(|(tenant, meters)| Some((tenant, Readers::new(meters).ok()?)))
            .collect()
    }

    /// Notes that events before the time `deleted` were gone before the meters of a backfill came to them.
    pub(crate) fn note_lack(&self, meters: &[MeterId], deleted: Option<Timestamp>) {
        let mut extents = self.extents.write();
        for id in meters {
            if let Some(extent) = extents.get_mut(id) {
                extent.lacks_before = extent.lacks_before.max(deleted);
            }
        }
    }

    /// The position from which on open backfills have yet to read.
    pub(crate) fn unread(extents: &SharedExtents) -> Option<Position> {
        let extents = extents.read();
        let open = extents.values().filter(|extent| !extent.is_complete());
        open.map(|extent| extent.next).min()
    }

    /// Notes that the meters of a backfill have come to `next`.
    pub(crate) fn advance(&self, meters: &[MeterId], next: Position) {
        let mut extents = self.extents.write();
        for id in meters {
            if let Some(extent) = extents.get_mut(id) {
                extent.next = next.min(extent.since);
            }
        }
    }
}

/// A stretch of the log that some meters have yet to count.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BackfillTask {
    pub meters: Vec<MeterId>,
    pub from: Position,
    pub until: Position,
}
