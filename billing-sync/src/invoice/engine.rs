use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::control::Change;
use turnpike_domain::problem::Problem;

use super::options::BillingParts;

/// Billing: closes periods, makes invoices, verifies them.
pub struct BillingSync {
    pub(super) parts: BillingParts,
    /// One at a time per tenant.
    turns: Mutex<HashMap<TenantId, Arc<tokio::sync::Mutex<()>>>>,
    checking: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl BillingSync {
    /// Goes on with runs that were interrupted, and looks for periods that ended, as often as the options say. Call it
    /// inside a runtime.
    pub fn start(parts: BillingParts) -> Arc<Self> {
        let billing = Arc::new(Self {
            parts,
            turns: Mutex::default(),
            checking: Mutex::default(),
        });
        let checking = tokio::spawn(check_on(Arc::downgrade(&billing)));
        *billing.checking.lock() = Some(checking);
        billing
    }

    /// See [`super::BillingOptions::late_days`].
    pub fn late_days(&self) -> u32 {
        self.parts.options.late_days()
    }

    /// Stops looking for periods that ended. A step under way comes to its end.
    pub async fn stop(&self) {
        let checking = self.checking.lock().take();
        if let Some(checking) = checking {
            checking.abort();
            let _ = checking.await;
        }
    }

    /// Waits for the tenant's turn.
    pub(super) async fn turn(&self, tenant: TenantId) -> OwnedMutexGuard<()> {
        let turn = self.turns.lock().entry(tenant).or_default().clone();
        turn.lock_owned().await
    }

    /// A change that billing makes by itself.
    pub(super) fn own_change(&self, tenant: TenantId) -> Change {
        Change {
            tenant,
            actor: "billing".into(),
            request_id: "".into(),
            at: self.parts.clock.now(tenant),
            recorded_at: self.parts.clock.machine_now(),
            idempotency: None,
        }
    }

    pub(super) fn is_test(&self, tenant: TenantId) -> bool {
        self.parts
            .directory
            .tenant(tenant)
            .is_some_and(|tenant| tenant.test)
    }

    /// The tenant's grace time in microseconds.
    pub(super) fn grace_us(&self, tenant: TenantId) -> i64 {
        let options = &self.parts.options;
        let seconds = if self.is_test(tenant) {
            options.test_grace_s
        } else {
            options.grace_s
        };
        i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
    }

    /// One look at all tenants: interrupted work, and periods that ended by the machine's clock.
    async fn check(&self) {
        for tenant in self.parts.directory.tenants() {
            if let Err(problem) = self.check_tenant(tenant.id).await {
                tracing::error!(tenant = tenant.id.0, %problem, "billing could not look for what is due; it tries again");
                metrics::counter!("turnpike_billing_check_failures_total").increment(1);
            }
        }
    }

    async fn check_tenant(&self, tenant: TenantId) -> Result<(), Problem> {
        self.drain(tenant).await?;
        self.resume(tenant).await?;
        if self.parts.options.check_interval_s > 0 && !self.is_test(tenant) {
            // What could not be billed was told one by one.
            let undone = self.bill_due(tenant).await?;
            metrics::counter!("turnpike_billing_check_failures_total").increment(undone.failed);
        }
        Ok(())
    }
}

/// Looks once at the start, and then as often as the options say, while somebody holds the engine.
async fn check_on(billing: std::sync::Weak<BillingSync>) {
    loop {
        let Some(strong) = billing.upgrade() else { return };
        strong.check().await;
        let seconds = strong.parts.options.check_interval_s;
        drop(strong);
        if seconds == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}
