use super::Timestamp;
use crate::identity::TenantId;

/// Where every part takes the time from.
pub trait Clock: Send + Sync {
    /// The wall clock of a tenant: the machine's, or a test tenant's own.
    fn now(&self, tenant: TenantId) -> Timestamp;

    /// The machine's wall clock.
    fn machine_now(&self) -> Timestamp;

    /// Microseconds of a clock that never steps back, from an arbitrary start.
    fn monotonic_us(&self) -> u64;
}

/// Where every part takes randomness from.
pub trait Randomness: Send + Sync {
    /// Fills `bytes` with unpredictable bytes.
    fn fill(&self, bytes: &mut [u8]);

    /// A new identifier: a UUID of version 7, as text, so that identifiers sort by their making.
    fn new_id(&self) -> String;
}
