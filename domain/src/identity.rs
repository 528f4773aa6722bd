//! Who and what: tenants, and the 128-bit names of events.

use std::hash::Hasher as _;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// A tenant's number. Every key, query and cache entry begins with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(pub u32);

impl TenantId {
    /// The tenant `default`, made at the first start: its admin keys administer tenants.
    pub const DEFAULT: Self = Self(1);
}

/// A meter's number: never reused, unique over all tenants of an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MeterId(pub u32);

/// The name of an event: a keyed 128-bit hash of (tenant, source, id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventName(pub u128);

impl EventName {
    /// The partition of this name among `partitions`. Uses the low bits; id runs are sharded by the high ones.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low bits are meant, and a remainder is below its divisor"
    )]
    pub fn partition(self, partitions: usize) -> usize {
        (self.0 as u64 % partitions.max(1) as u64) as usize
    }
}

/// The installation's secret key for names and payload hashes. Secret, because whoever knows it could make two names
/// collide; kept beside the log, because names must stay the same for as long as the log is kept.
#[derive(Clone, Copy)]
pub struct NameKey(pub [u8; 16]);

impl NameKey {
    /// The name of the event (tenant, source, id). Parts are length-prefixed, so that no two triples share a text.
    pub fn name(&self, tenant: TenantId, source: &str, id: &str) -> EventName {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write_u32(tenant.0);
        for part in [source, id] {
            hasher.write_u64(part.len() as u64);
            hasher.write(part.as_bytes());
        }
        EventName(hasher.finish128().as_u128())
    }

    /// A 64-bit hash of length-prefixed parts, for comparing payloads.
    pub fn digest(&self, parts: &[&[u8]]) -> u64 {
        let mut hasher = siphasher::sip::SipHasher13::new_with_key(&self.0);
        for part in parts {
            hasher.write_u64(part.len() as u64);
            hasher.write(part);
        }
        hasher.finish()
    }
}

impl std::fmt::Debug for NameKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NameKey(..)")
    }
}

/// What a key may do. `Admin` includes all.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Post events.
    Ingest,
    /// Ask for and take quota.
    Check,
    /// Read usage, events, customers, invoices.
    Read,
    /// Run billing, change customers and subscriptions.
    Billing,
    /// Everything.
    Admin,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_never_run_into_each_other() {
        let key = NameKey([7; 16]);
        let name = |source, id| key.name(TenantId(1), source, id);
        assert_ne!(name("a-b", "c"), name("a", "b-c"));
        assert_ne!(name("", "ab"), name("ab", ""));
        assert_ne!(name("a\0", "b"), name("a", "\0b"));
        assert_ne!(key.name(TenantId(1), "s", "i"), key.name(TenantId(2), "s", "i"));
        assert_eq!(name("s", "i"), name("s", "i"));
    }
}
