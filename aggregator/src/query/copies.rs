use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use turnpike_domain::identity::TenantId;

use crate::budget::MemoryUse;

/// How many bytes readings of usage may hold of what they copied of the partitions' memory, over all and for each tenant.
///
/// Each tenant may hold as much as is still free for all others, as requests in flight do. One reading of each tenant is let in
/// whatever is in use, however large: so no tenant keeps another from its usage, and what is larger than the bound can still
/// be read. What such a reading holds beyond half of the bound takes no room from others.
pub(crate) struct Copies {
    bytes_max: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// Of each tenant that holds any.
    tenants: HashMap<TenantId, usize>,
    used: usize,
    /// The same, with no tenant's part above half of the bound.
    counted: usize,
}

/// What one reading holds; given back when dropped.
pub(crate) struct CopyShare {
    copies: Arc<Copies>,
    tenant: TenantId,
    bytes: usize,
}

impl Copies {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            held: Mutex::default(),
        })
    }

    /// A share of no bytes for a reading of `tenant`.
    pub(crate) fn share(self: &Arc<Self>, tenant: TenantId) -> CopyShare {
        CopyShare {
            copies: Arc::clone(self),
            tenant,
            bytes: 0,
        }
    }

    pub(crate) fn in_use(&self) -> MemoryUse {
        MemoryUse {
            used_bytes: self.held.lock().used as u64,
            max_bytes: self.bytes_max as u64,
        }
    }

    /// What a tenant's part counts as.
    fn counted(&self, bytes: usize) -> usize {
        bytes.min(self.bytes_max / 2)
    }

    /// Takes `more` bytes for `tenant` and gives `fewer` back. What it holds then, and whether that is at most what is free.
    fn change(&self, tenant: TenantId, more: usize, fewer: usize) -> (usize, bool) {
        let mut held = self.held.lock();
        let part = held.tenants.entry(tenant).or_default();
        let before = *part;
        let now = (before + more).saturating_sub(fewer);
        *part = now;
        if now == 0 {
            held.tenants.remove(&tenant);
        }
        held.used = (held.used + more).saturating_sub(fewer);
        held.counted = (held.counted + self.counted(now)).saturating_sub(self.counted(before));
        (now, now <= self.bytes_max.saturating_sub(held.counted))
    }
}

impl CopyShare {
    /// Makes it `bytes` larger, and says whether it may be: it is the only one of its tenant that holds any, or its tenant
    /// holds no more than what is still free.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        let (of_tenant, fits) = self.copies.change(self.tenant, bytes, 0);
        fits || of_tenant == self.bytes
    }

    /// Gives `bytes` of it back.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.copies.change(self.tenant, 0, bytes);
    }
}

impl Drop for CopyShare {
    fn drop(&mut self) {
        self.copies.change(self.tenant, 0, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_holds_as_much_as_it_leaves_free_and_one_reading_of_any_size() {
        let copies = Copies::new(100);
        let [one, other, third] = [1, 2, 3].map(TenantId);
        let (mut large, mut late) = (copies.share(one), copies.share(one));
        assert!(large.grow(1_000), "the only one of its tenant");
        assert!(!late.grow(1), "no longer the only one");
        assert!(!large.grow(1), "nor is the other");
        drop(late);
        let (mut first, mut second) = (copies.share(other), copies.share(other));
        assert!(
            first.grow(10) && second.grow(15),
            "a half is left, and a half of that"
        );
        assert!(!second.grow(1));
        first.shrink(9);
        assert!(second.grow(4) && first.grow(4), "what was given back is free");
        let mut alone = copies.share(third);
        assert!(alone.grow(90), "the first of a tenant always");
        assert_eq!(copies.in_use().used_bytes, 1_000 + 1 + 25 + 90);
        drop((large, first, second, alone));
        assert_eq!(copies.in_use().used_bytes, 0);
        assert!(copies.held.lock().tenants.is_empty() && copies.held.lock().counted == 0);
    }

    #[test]
    fn the_readings_of_one_tenant_come_to_half_of_the_bound() {
        let copies = Copies::new(100);
        let (mut one, mut other) = (copies.share(TenantId(1)), copies.share(TenantId(1)));
        assert!(one.grow(30) && other.grow(20) && !other.grow(1));
        drop(other);
        assert!(one.grow(1_000), "the only one again");
    }
}
