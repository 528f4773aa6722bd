//! Who may read at once: so few that intake and quota checks go on beside them, and never one tenant alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::StoreError;
use turnpike_domain::problem::{Code, Problem};

/// How long a call waits to begin.
const WAIT: Duration = Duration::from_secs(10);

/// Threads that read for callers. Those who wait are let in in the order in which they came.
pub(crate) struct Slots {
    all: Arc<Semaphore>,
    /// One tenant may have all but one, so that the long readings of one never keep all others waiting.
    of_tenant: usize,
    tenants: Mutex<HashMap<TenantId, Weak<Semaphore>>>,
}

/// A slot that is taken; given back when dropped. It goes with the work, not with the one who asked for it.
pub(crate) struct Slot {
    _of_tenant: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Slots {
    pub(crate) fn new(number: usize) -> Arc<Self> {
        let number = number.max(1);
        Arc::new(Self {
            all: Arc::new(Semaphore::new(number)),
            of_tenant: (number - 1).max(1),
            tenants: Mutex::default(),
        })
    }

    /// A slot to begin with; [`Code::Overloaded`] when none was free for 10 seconds.
    pub(crate) async fn enter(&self, tenant: TenantId) -> Result<Slot, Problem> {
        let waited = tokio::time::timeout(WAIT, self.wait(tenant)).await;
        waited.unwrap_or_else(|_| {
            metrics::counter!("turnpike_usage_queries_refused_total", "reason" => "queue").increment(1);
            let detail = "too many readings of usage and events are under way (engine.queries_max)";
            Err(Problem::new(Code::Overloaded, detail))
        })
    }

    /// A slot to go on with, however long it takes.
    pub(crate) async fn wait(&self, tenant: TenantId) -> Result<Slot, Problem> {
        let ended = |_| Problem::new(Code::ShuttingDown, "the partitions have ended");
        let of_tenant = self.of(tenant).acquire_owned().await.map_err(ended)?;
        let of_all = Arc::clone(&self.all).acquire_owned().await.map_err(ended)?;
        Ok(Slot {
            _of_tenant: of_tenant,
            _of_all: of_all,
        })
    }

    fn of(&self, tenant: TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock();
        if let Some(known) = tenants.get(&tenant).and_then(Weak::upgrade) {
            return known;
        }
        tenants.retain(|_, slots| slots.strong_count() > 0);
        let new = Arc::new(Semaphore::new(self.of_tenant));
        tenants.insert(tenant, Arc::downgrade(&new));
        new
    }
}

/// Tells work on another thread that nobody waits for it any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

/// Stops work when dropped: with the call that asked for it.
pub(crate) struct StopOnDrop(Stop);

impl Stop {
    /// An error once it was told to stop. It reaches nobody.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.0.load(Ordering::Relaxed) {
            return Err(StoreError::Failed("nobody waits for this reading".to_owned()));
        }
        Ok(())
    }

    pub(crate) fn on_drop(&self) -> StopOnDrop {
        StopOnDrop(self.clone())
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_tenant_never_has_all_and_waits_for_a_while_only() {
        let slots = Slots::new(3);
        let (one, other) = (TenantId(1), TenantId(2));
        let first = slots.enter(one).await.unwrap();
        let _second = slots.enter(one).await.unwrap();
        let refused = slots.enter(one).await.map(drop).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_s), (Code::Overloaded, Some(1)));
        let others = slots.enter(other).await.unwrap();
        let refused = slots.enter(other).await.map(drop).unwrap_err();
        assert_eq!(refused.code, Code::Overloaded, "all are taken");
        drop(first);
        assert!(slots.enter(other).await.is_ok());
        drop(others);
        assert!(slots.enter(one).await.is_ok());
    }

    #[tokio::test]
    async fn a_single_slot_is_anyones() {
        let slots = Slots::new(1);
        drop(slots.enter(TenantId(1)).await.unwrap());
        assert!(slots.enter(TenantId(2)).await.is_ok());
        let known = slots.tenants.lock().len();
        assert!(known <= 2, "tenants that have none are forgotten");
    }
}
