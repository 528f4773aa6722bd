use std::sync::{Arc, OnceLock};

use turnpike_domain::identity::{NameKey, TenantId};
use turnpike_domain::port::BoxFuture;
use turnpike_domain::port::control::DueWork;
use turnpike_domain::port::directory::{Directory, DirectoryChange, DirectoryListener};
use turnpike_domain::port::intake::Intake;
use turnpike_domain::port::usage::{UsageChange, UsageListener, UsageReader};
use turnpike_domain::problem::Problem;
use turnpike_domain::time::{Clock, Timestamp};

/// What the quota engine is made from.
pub struct EnforcerParts {
    /// Who and what there is.
    pub directory: Arc<dyn Directory>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The secret of names and payload hashes.
    pub key: NameKey,
}

/// The quota engine. Made first, told to the partition owners as their listener, then connected to them.
pub struct Enforcer {
    parts: EnforcerParts,
    connected: OnceLock<Connected>,
}

struct Connected {
    intake: Arc<dyn Intake>,
    usage: Arc<dyn UsageReader>,
}

impl Enforcer {
    /// A quota engine that is not connected yet: its routes answer 503.
    pub fn new(parts: EnforcerParts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            connected: OnceLock::new(),
        })
    }

    /// Connects it to the partition owners and restores open reservations; afterwards it decides.
    pub async fn connect(&self, intake: Arc<dyn Intake>, usage: Arc<dyn UsageReader>) -> Result<(), Problem> {
        let _ = self.connected.set(Connected { intake, usage });
        Ok(())
    }

    /// What is due: reservations that ended, each by its tenant's clock, and memory that is no longer needed. The
    /// wiring calls it about once a second.
    pub async fn tick(&self) -> Result<(), Problem> {
        Ok(())
    }
}

impl UsageListener for Enforcer {
    fn applied(&self, _changes: &[UsageChange<'_>]) {}
}

impl DirectoryListener for Enforcer {
    fn changed(&self, _change: &DirectoryChange) {}
}

impl DueWork for Enforcer {
    fn next_due(&self, _: TenantId, _: Timestamp) -> BoxFuture<'_, Result<Option<Timestamp>, Problem>> {
        Box::pin(async { Ok(None) })
    }

    fn run_due(&self, _: TenantId, _: Timestamp) -> BoxFuture<'_, Result<(), Problem>> {
        Box::pin(async { Ok(()) })
    }
}
