use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::identity::{Scope, TenantId};
use crate::time::Timestamp;

/// A tenant of the installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its number.
    pub id: TenantId,
    /// Its key.
    pub key: String,
    /// Its name for people.
    pub name: String,
    /// Whether it has its own clock.
    pub test: bool,
    /// Its clock, for a test tenant.
    pub clock: Option<Timestamp>,
    /// Whether its calls are refused.
    pub suspended: bool,
    /// Its IANA time zone.
    pub timezone: String,
    /// Calls per second at the most; none: no limit of its own.
    pub calls_per_second: Option<u32>,
}

/// An API key. Only its hash is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id, for lists and revocation.
    pub id: String,
    /// The tenant it belongs to.
    pub tenant: TenantId,
    /// Its name for people.
    pub name: String,
    /// Keyed or plain hash of the whole key.
    pub hash: [u8; 32],
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// The id of the key that was made in its place.
    pub replaced_by: Option<String>,
    /// Calls per second at the most; none: no limit of its own.
    pub calls_per_second: Option<u32>,
}
