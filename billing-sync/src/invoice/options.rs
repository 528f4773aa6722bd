use std::sync::Arc;

use turnpike_domain::port::billing::BillingStore;
use turnpike_domain::port::control::ControlStore;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::usage::UsageReader;
use turnpike_domain::time::{Clock, Randomness};

/// What [`crate::BillingSync`] is built from.
#[derive(Clone)]
pub struct BillingParts {
    /// Tenants, catalog, customers, subscriptions.
    pub directory: Arc<dyn Directory>,
    /// Lists of subscriptions.
    pub control: Arc<dyn ControlStore>,
    /// Invoices and runs.
    pub store: Arc<dyn BillingStore>,
    /// Sums of meters.
    pub usage: Arc<dyn UsageReader>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Identifiers.
    pub randomness: Arc<dyn Randomness>,
    /// Intervals and bounds.
    pub options: BillingOptions,
}

/// Intervals and bounds of billing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BillingOptions {
    /// How long after a period's end late usage still counts for it, in seconds. It also runs from the making of a draft,
    /// so that a subscription that begins in the past leaves time to send its usage.
    pub grace_s: u64,
    /// The same for test tenants, whose time passes only when they say so.
    pub test_grace_s: u64,
    /// How long behind the end of a closed period what comes late for it is on the next invoice, in days; what comes
    /// before the next period ends always is.
    pub look_back_days: u32,
    /// How far back late usage beyond that is still listed in the answer of a run, in days.
    pub listed_days: u32,
    /// How often periods that ended are looked for, in seconds; 0: only when a run is asked for.
    pub check_interval_s: u64,
}

impl BillingOptions {
    /// How long behind its end a subscription is looked at for late usage, in days: then that is not even listed any more.
    pub(super) const fn looked_at_days(&self) -> u32 {
        self.look_back_days.saturating_add(self.listed_days)
    }

    /// How long behind the end of a closed period the meters that it was billed by must stay, in days. The last look may
    /// come a day later.
    pub const fn late_days(&self) -> u32 {
        self.looked_at_days().saturating_add(1)
    }
}

impl Default for BillingOptions {
    fn default() -> Self {
        Self {
            grace_s: 3_600,
            test_grace_s: 0,
            look_back_days: 35,
            listed_days: 100,
            check_interval_s: 60,
        }
    }
}
