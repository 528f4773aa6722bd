use std::sync::Arc;

use turnpike_domain::catalog::{Grant, LimitPeriod};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::quota::{Decision, Figures, Reason, granted};
use turnpike_domain::time::{TimeRange, Timestamp};

use crate::entry::{Entry, Resolved, Verdict};
use crate::upgrade::UpgradeOption;

/// What a call is answered.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The customer.
    pub customer: Arc<str>,
    /// The feature.
    pub feature: Arc<str>,
    /// Why; says whether it was granted.
    pub reason: Reason,
    /// Which of the limits describes it.
    pub described: Option<usize>,
    /// All limits as they stood.
    pub limits: Vec<LimitOutcome>,
    /// The value of a static feature.
    pub value: Option<String>,
    /// When the figures stood so.
    pub as_of: Timestamp,
    /// For a refusal: when the same call may be granted, microseconds since 1970; `None` where no waiting helps.
    pub granted_at_us: Option<i64>,
    /// For a refusal: what would allow it.
    pub upgrade_options: Vec<UpgradeOption>,
    /// The reservation concerned.
    pub reservation: Option<ReservationOutcome>,
    /// The grants that raise the limits now, where entitlements were asked for.
    pub grants: Vec<GrantOutcome>,
}

/// One limit as it stood.
#[derive(Debug, Clone)]
pub struct LimitOutcome {
    /// The customer whose limit it is.
    pub customer: Arc<str>,
    /// The kind of its window.
    pub period: LimitPeriod,
    /// Its window.
    pub window: TimeRange,
    /// What stood against it.
    pub figures: Figures,
}

/// A grant that raises limits, as it stood.
#[derive(Debug, Clone)]
pub struct GrantOutcome {
    /// The grant.
    pub grant: Arc<Grant>,
    /// What is left of it, what is held not counted in.
    pub balance: Quantity,
}

/// A reservation as it stands after the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationOutcome {
    /// Its id.
    pub id: String,
    /// `open`, `committed`, `released` or `expired`.
    pub status: &'static str,
    /// When it ends by itself, or would have.
    pub expires_at: Timestamp,
}

impl LimitOutcome {
    /// The resolved limits with these figures, which stand in their order.
    pub(crate) fn of_all(resolved: &Resolved, figures: impl Iterator<Item = Figures>) -> Vec<Self> {
        let limits = resolved.limits.iter().zip(figures);
        let told = limits.map(|(limit, figures)| Self {
            customer: limit.customer.clone(),
            period: limit.period,
            window: resolved.cells[limit.cell].slot.range(),
            figures,
        });
        told.collect()
    }
}

impl Outcome {
    /// An outcome with these limits.
    pub(crate) fn new(
        entry: &Entry,
        resolved: &Resolved,
        limits: Vec<LimitOutcome>,
        decision: (Reason, Option<usize>),
        as_of: Timestamp,
    ) -> Self {
        Self {
            described: decision.1,
            limits,
            value: match &resolved.verdict {
                Verdict::Entitled(value) => value.clone(),
                _ => None,
            },
            ..Self::without_figures(entry.customer.clone(), entry.feature.clone(), decision.0, as_of)
        }
    }

    /// A refusal or grant that no figure decided.
    pub(crate) fn plain(entry: &Entry, resolved: &Resolved, reason: Reason, as_of: Timestamp) -> Self {
        Self::new(entry, resolved, Vec::new(), (reason, None), as_of)
    }

    /// A grant for `reason`, with the figures as they stand now.
    pub(crate) fn granted(entry: &Entry, resolved: &Resolved, reason: Reason, as_of: Timestamp) -> Self {
        let limits = LimitOutcome::of_all(resolved, resolved.figures());
        let described =
            granted(limits.iter().map(|limit| limit.figures)).map(|decision: Decision| decision.index);
        Self::new(entry, resolved, limits, (reason, described), as_of)
    }

    /// A grant for `reason` to a customer, or of a feature, that is gone: there is nothing left to show of it.
    pub(crate) fn without_figures(
        customer: Arc<str>,
        feature: Arc<str>,
        reason: Reason,
        as_of: Timestamp,
    ) -> Self {
        Self {
            customer,
            feature,
            reason,
            described: None,
            limits: Vec::new(),
            value: None,
            as_of,
            granted_at_us: None,
            upgrade_options: Vec::new(),
            reservation: None,
            grants: Vec::new(),
        }
    }

    /// Whether it was granted.
    pub const fn allowed(&self) -> bool {
        self.reason.allows()
    }

    /// The figures that describe it.
    pub fn figures(&self) -> Option<&LimitOutcome> {
        self.limits.get(self.described?)
    }

    pub(crate) fn with_grants(mut self, resolved: &Resolved) -> Self {
        let left = resolved.pools.iter().flat_map(|pool| resolved.left(pool));
        self.grants = left
            .map(|(grant, balance)| GrantOutcome { grant, balance })
            .collect();
        self
    }

    pub(crate) fn with_reservation(mut self, id: &str, status: &'static str, expires_at: Timestamp) -> Self {
        self.reservation = Some(ReservationOutcome {
            id: id.to_owned(),
            status,
            expires_at,
        });
        self
    }
}
