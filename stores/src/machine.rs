//! The machine's clock and randomness, the clock of tenants, and both under a test's control.
//! The only place that asks the machine itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use turnpike_domain::identity::TenantId;
use turnpike_domain::time::{Clock, Randomness, Timestamp};

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct MachineClock;

static START: OnceLock<Instant> = OnceLock::new();

impl Clock for MachineClock {
    fn now(&self, _: TenantId) -> Timestamp {
        self.machine_now()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clock"
    )]
    fn machine_now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros_clamped(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clock"
    )]
    fn monotonic_us(&self) -> u64 {
        let elapsed = START.get_or_init(Instant::now).elapsed();
        u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
    }
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct MachineRandomness;

impl Randomness for MachineRandomness {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that draws the machine's randomness"
    )]
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }

    fn new_id(&self) -> String {
        identifier(MachineClock.machine_now(), self)
    }
}

/// A UUID of version 7 for the instant `at`.
fn identifier(at: Timestamp, randomness: &dyn Randomness) -> String {
    let mut bytes = [0; 10];
    randomness.fill(&mut bytes);
    let millis = u64::try_from(at.micros() / 1_000).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &bytes)
        .into_uuid()
        .to_string()
}

/// The clock of tenants: the machine's, save for test tenants, whose own stands still until it is moved.
pub struct TenantClock {
    machine: Arc<dyn Clock>,
    tests: ArcSwap<BTreeMap<TenantId, Timestamp>>,
}

impl TenantClock {
    /// Test tenants' clocks over `machine`.
    pub fn new(machine: Arc<dyn Clock>) -> Self {
        Self {
            machine,
            tests: ArcSwap::default(),
        }
    }

    /// Sets a test tenant's clock.
    pub fn set(&self, tenant: TenantId, at: Timestamp) {
        self.tests.rcu(|tests| {
            let mut tests = BTreeMap::clone(tests);
            tests.insert(tenant, at);
            tests
        });
    }
}

impl Clock for TenantClock {
    fn now(&self, tenant: TenantId) -> Timestamp {
        self.tests
            .load()
            .get(&tenant)
            .copied()
            .unwrap_or_else(|| self.machine.machine_now())
    }

    fn machine_now(&self) -> Timestamp {
        self.machine.machine_now()
    }

    fn monotonic_us(&self) -> u64 {
        self.machine.monotonic_us()
    }
}

/// A clock that a test moves.
#[derive(Debug)]
pub struct ManualClock {
    now_us: AtomicI64,
    monotonic_us: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `at`.
    pub fn new(at: Timestamp) -> Self {
        Self {
            now_us: AtomicI64::new(at.micros()),
            monotonic_us: AtomicU64::new(0),
        }
    }

    /// Lets `us` microseconds pass.
    pub fn pass(&self, us: u64) {
        self.now_us.fetch_add(us.cast_signed(), Ordering::SeqCst);
        self.monotonic_us.fetch_add(us, Ordering::SeqCst);
    }

    /// Sets the wall clock, back if need be; the monotonic one stays.
    pub fn set(&self, at: Timestamp) {
        self.now_us.store(at.micros(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self, _: TenantId) -> Timestamp {
        self.machine_now()
    }

    fn machine_now(&self) -> Timestamp {
        Timestamp::from_micros_clamped(self.now_us.load(Ordering::SeqCst))
    }

    fn monotonic_us(&self) -> u64 {
        self.monotonic_us.load(Ordering::SeqCst)
    }
}

/// Randomness that a seed determines; identifiers carry the time of a clock.
pub struct SeededRandomness {
    clock: Arc<dyn Clock>,
    generator: Mutex<StdRng>,
}

impl SeededRandomness {
    /// The same `seed` gives the same bytes.
    pub fn new(seed: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            generator: Mutex::new(StdRng::seed_from_u64(seed)),
        }
    }
}

impl Randomness for SeededRandomness {
    fn fill(&self, bytes: &mut [u8]) {
        self.generator.lock().fill_bytes(bytes);
    }

    fn new_id(&self) -> String {
        identifier(self.clock.machine_now(), self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_tenant_has_its_own_time() {
        let machine = Arc::new(ManualClock::new(Timestamp::from_minute(100)));
        let clock = TenantClock::new(machine.clone());
        clock.set(TenantId(2), Timestamp::from_minute(7));
        machine.pass(60_000_000);
        assert_eq!(clock.now(TenantId(1)), Timestamp::from_minute(101));
        assert_eq!(clock.now(TenantId(2)), Timestamp::from_minute(7));
        assert_eq!(clock.machine_now(), Timestamp::from_minute(101));
        machine.set(Timestamp::from_minute(3));
        assert_eq!(clock.monotonic_us(), 60_000_000);
    }

    #[test]
    fn a_seed_gives_the_same_identifiers_and_time_sorts_them() {
        let clock = Arc::new(ManualClock::new(Timestamp::from_minute(100)));
        let ids = |seed| SeededRandomness::new(seed, clock.clone()).new_id();
        assert_eq!(ids(1), ids(1));
        assert_ne!(ids(1), ids(2));
        let random = SeededRandomness::new(1, clock.clone());
        let first = random.new_id();
        clock.pass(2_000);
        assert!(first < random.new_id());
    }

    #[test]
    fn the_machine_moves_on() {
        let random = MachineRandomness;
        assert_ne!(random.new_id(), random.new_id());
        assert!(MachineClock.machine_now() > Timestamp::from_minute(29_000_000));
        let before = MachineClock.monotonic_us();
        assert!(MachineClock.monotonic_us() >= before);
    }
}
