use serde::{Deserialize, Serialize};

use super::PeriodView;
use crate::time::Timestamp;

/// Where a billing run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// It waits for the tenant's run before it.
    Queued,
    /// It is under way.
    Running,
    /// It is over, and every subscription was billed.
    Done,
    /// It is over; what could not be billed stands in `failures`.
    Failed,
}

/// A billing run: all periods of a tenant that ended by `period_end` and are not billed yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BillingRun {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub status: RunStatus,
    /// Periods that ended by then are billed.
    #[schema(value_type = String, format = DateTime)]
    pub period_end: Timestamp,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it was over.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished: Option<Timestamp>,
    /// Subscriptions looked at so far.
    pub subscriptions: u64,
    /// Invoices made final so far.
    pub invoices: u64,
    /// Drafts left, for their grace time is not over.
    pub drafts: u64,
    /// Periods closed without an invoice, for there was nothing to charge.
    pub empty_periods: u64,
    /// Subscriptions that could not be billed, the first 100, which `failed` counts; and, without counting, those whose
    /// closed periods can no longer be corrected, for a meter is gone.
    pub failures: Vec<RunFailure>,
    /// Number of subscriptions that could not be billed.
    pub failed: u64,
    /// Usage that came later than the look-back time, and so is on no invoice. The first 100; `late` counts all. A check by
    /// the clock that finds some is listed among the runs too.
    pub late_usage: Vec<LateUsage>,
    /// Number of such differences.
    pub late: u64,
    /// The last subscription that is done with; a run that was interrupted goes on behind it.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// A subscription that could not be billed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunFailure {
    /// The subscription.
    pub subscription: String,
    /// The error's code.
    pub code: String,
    /// Why.
    pub detail: String,
}

/// A difference between what was billed for an old period and its usage now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LateUsage {
    /// The subscription.
    pub subscription: String,
    /// The period.
    pub period: PeriodView,
    /// The price's key.
    pub price: String,
    /// The quantity that was not billed.
    pub quantity: String,
    /// The amount that was not billed.
    pub amount: String,
    /// The currency of the amount.
    pub currency: String,
}

impl BillingRun {
    /// A run that waits.
    pub fn queued(id: String, period_end: Timestamp, created: Timestamp) -> Self {
        Self {
            id,
            status: RunStatus::Queued,
            period_end,
            created,
            finished: None,
            subscriptions: 0,
            invoices: 0,
            drafts: 0,
            empty_periods: 0,
            failures: Vec::new(),
            failed: 0,
            late_usage: Vec::new(),
            late: 0,
            cursor: None,
        }
    }
}
