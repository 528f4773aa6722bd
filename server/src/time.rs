//! The machine's clock and its randomness: the only place of the program that reads them.

use std::sync::{Arc, OnceLock};

use rand::Rng as _;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::time::{Clock, Randomness, Timestamp};

/// The machine's clocks.
#[derive(Debug)]
pub struct MachineClock {
    start: std::time::Instant,
}

impl MachineClock {
    /// Starts the monotonic clock at 0.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that is injected everywhere else"
    )]
    pub fn start() -> Self {
        Self {
            start: std::time::Instant::now(),
        }
    }
}

impl Clock for MachineClock {
    fn now(&self, _: TenantId) -> Timestamp {
        self.machine_now()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that is injected everywhere else"
    )]
    fn machine_now(&self) -> Timestamp {
        let since_1970 = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_micros_clamped(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX))
    }

    fn monotonic_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

/// The operating system's randomness, by a generator per thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct MachineRandomness;

impl Randomness for MachineRandomness {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the randomness that is injected everywhere else"
    )]
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }

    #[expect(clippy::disallowed_methods, reason = "this is where identifiers come from")]
    fn new_id(&self) -> String {
        uuid::Uuid::now_v7().to_string()
    }
}

/// A clock under which each test tenant has its own time, as the directory tells it.
pub struct TenantClock {
    machine: Arc<dyn Clock>,
    directory: OnceLock<Arc<dyn Directory>>,
}

impl TenantClock {
    /// All tenants are on `machine` time until there is a directory.
    pub fn new(machine: Arc<dyn Clock>) -> Self {
        Self {
            machine,
            directory: OnceLock::new(),
        }
    }

    /// Where test tenants and their times are found from now on. Only the first call counts.
    pub fn follow(&self, directory: Arc<dyn Directory>) {
        let _ = self.directory.set(directory);
    }
}

impl Clock for TenantClock {
    fn now(&self, tenant: TenantId) -> Timestamp {
        let own = self
            .directory
            .get()
            .and_then(|directory| directory.tenant(tenant))
            .and_then(|tenant| tenant.clock);
        own.unwrap_or_else(|| self.machine.now(tenant))
    }

    fn machine_now(&self) -> Timestamp {
        self.machine.machine_now()
    }

    fn monotonic_us(&self) -> u64 {
        self.machine.monotonic_us()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_clock_runs() {
        let clock = MachineClock::start();
        let (wall, steady) = (clock.machine_now(), clock.monotonic_us());
        std::thread::sleep(std::time::Duration::from_millis(3));
        assert!(clock.machine_now() > wall && clock.monotonic_us() >= steady + 3_000);
        assert!(wall > Timestamp::parse("2024-01-01T00:00:00Z").unwrap());
    }

    #[test]
    fn randomness_does_not_repeat() {
        let (mut a, mut b) = ([0; 16], [0; 16]);
        MachineRandomness.fill(&mut a);
        MachineRandomness.fill(&mut b);
        assert_ne!(a, b);
        let ids: Vec<_> = (0..100).map(|_| MachineRandomness.new_id()).collect();
        let mut sorted = ids.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(ids, sorted, "identifiers sort by their making");
    }
}
