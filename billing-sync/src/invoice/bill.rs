//! Billing subscriptions together: their due periods are closed in rounds, the oldest of each first.

use std::sync::Arc;

use turnpike_domain::catalog::Subscription;
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::LateUsage;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::{TimeRange, Timestamp};

use super::adjust::{DAY_US, days_before, midnight};
use super::build::Scope;
use super::charges::next_period;
use super::close::{Asked, Closed, Step};
use super::engine::BillingSync;

/// Periods of one subscription that are closed in one go; the next check goes on.
const PERIODS_MAX: usize = 1_000;

/// What became of the periods of one subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Billed {
    /// Invoices made final.
    pub(super) invoices: u64,
    /// Drafts left.
    pub(super) drafts: u64,
    /// Periods without anything to charge.
    pub(super) empty: u64,
    /// Late usage that is on no invoice.
    pub(super) late: Vec<LateUsage>,
    /// Why it could not be billed further.
    pub(super) failure: Option<Problem>,
    /// Why some closed periods can no longer be corrected; the others were.
    pub(super) uncorrected: Option<Problem>,
    /// Until when what came late for it is known now, where it is over.
    pub(super) settled: Option<Timestamp>,
    /// When something is due next; at once where that is not known.
    pub(super) next: Timestamp,
    /// How often the subscription was changed by that.
    pub(super) changes: i64,
}

/// A subscription on its way.
struct Going {
    subscription: Arc<Subscription>,
    /// Until when it was settled before.
    settled: Option<Timestamp>,
    closed_until: Option<Timestamp>,
    stopped: bool,
    /// Whether it is closed to its end.
    at_end: bool,
    billed: Billed,
}

impl BillingSync {
    /// Closes the periods of these subscriptions that ended by `until`. One that cannot be billed says so, and keeps no
    /// other from it. The caller holds the tenant's turn, and keeps until when they are settled with what it lists.
    pub(super) async fn bill(
        &self,
        tenant: TenantId,
        subscriptions: Vec<Arc<Subscription>>,
        until: Timestamp,
        asked: Asked<'_>,
    ) -> Result<Vec<Billed>, Problem> {
        let ids: Vec<String> = subscriptions.iter().map(|one| one.id.clone()).collect();
        let store = &self.parts.store;
        let closed_until = store.closed_until(tenant, ids.clone()).await?;
        let settled = store.settled_until(tenant, ids).await?;
        let known = closed_until.into_iter().zip(settled);
        let mut going: Vec<Going> = subscriptions
            .into_iter()
            .zip(known)
            .map(|(subscription, known)| Going::new(subscription, known))
            .collect();
        for _ in 0..PERIODS_MAX {
            if !self.bill_round(tenant, &mut going, until, asked).await {
                break;
            }
        }
        for one in &mut going {
            if let Err(problem) = self.settle_if_over(tenant, one, asked).await {
                one.fail(problem);
            }
        }
        Ok(going.into_iter().map(|one| one.billed).collect())
    }

    /// Closes the next period of each that has one due. Returns whether there was any.
    async fn bill_round(
        &self,
        tenant: TenantId,
        going: &mut [Going],
        until: Timestamp,
        asked: Asked<'_>,
    ) -> bool {
        let until = until.min(self.parts.clock.now(tenant));
        let mut due: Vec<(&mut Going, TimeRange)> = Vec::new();
        for one in going {
            if let Some(period) = self.next_due(tenant, one, until) {
                due.push((one, period));
            }
        }
        if due.is_empty() {
            return false;
        }
        match self.close_due(tenant, &mut due, asked).await {
            Ok(()) => {}
            Err(problem) if due.len() == 1 => due[0].0.fail(problem),
            // Nobody knows which of them failed: each by itself.
            Err(_) => {
                for one in &mut due {
                    if let Err(problem) = self.close_due(tenant, std::slice::from_mut(one), asked).await {
                        one.0.fail(problem);
                    }
                }
            }
        }
        true
    }

    /// Closes these periods. Where a subscription was changed meanwhile none is, and all are read anew for the next round.
    async fn close_due(
        &self,
        tenant: TenantId,
        due: &mut [(&mut Going, TimeRange)],
        asked: Asked<'_>,
    ) -> Result<(), Problem> {
        let scopes: Vec<Scope<'_>> = due
            .iter()
            .map(|(one, period)| Scope {
                tenant,
                subscription: &one.subscription,
                period: *period,
                last_look: period.start,
                over: false,
            })
            .collect();
        let closed = self.close(tenant, &scopes, asked).await?;
        if let Some(closed) = closed {
            for ((one, period), closed) in due.iter_mut().zip(closed) {
                one.take(*period, closed);
            }
            return Ok(());
        }
        for (one, _) in due {
            let id = &one.subscription.id;
            let now = self.parts.directory.subscription(tenant, id);
            one.subscription = now.ok_or_else(|| Problem::not_found("subscription", id))?;
        }
        Ok(())
    }

    /// The period to close next, if it ended by `until`.
    fn next_due(&self, tenant: TenantId, one: &mut Going, until: Timestamp) -> Option<TimeRange> {
        if one.stopped || one.at_end {
            return None;
        }
        let catalog = self.parts.directory.catalog(tenant);
        match next_period(&one.subscription, &catalog, one.closed_until) {
            Ok(Some(period)) if period.end <= until => return Some(period),
            Ok(Some(period)) => one.stop(period.end),
            Ok(None) => one.at_end = true,
            Err(problem) => one.fail(problem),
        }
        None
    }

    /// Corrections of a subscription that is over and closed to its end, while its look-back time lasts; then what comes
    /// late is only listed, as long as that is done.
    async fn settle_if_over(
        &self,
        tenant: TenantId,
        one: &mut Going,
        asked: Asked<'_>,
    ) -> Result<(), Problem> {
        let now = self.parts.clock.now(tenant);
        let subscription = &one.subscription;
        let Some(end) = subscription.ends_at.filter(|end| one.at_end && *end <= now) else {
            return Ok(());
        };
        let looked_at = self.parts.options.looked_at_days();
        let last_look = settled_until(end, one.settled);
        if end > days_before(last_look, looked_at) {
            let scope = Scope {
                tenant,
                subscription,
                period: TimeRange::new(end, end),
                last_look,
                over: true,
            };
            let Some(settled) = self.settle(scope, asked).await? else {
                return Ok(());
            };
            one.tell(settled.late, settled.uncorrected);
            one.billed.invoices += u64::from(settled.invoiced);
            one.billed.settled = Some(now);
        }
        one.billed.next = if end <= days_before(now, looked_at) {
            Timestamp::MAX
        } else if self.is_test(tenant) {
            now
        } else {
            // Late usage is looked for once a day.
            midnight(now).plus_micros(DAY_US)
        };
        Ok(())
    }
}

/// Until when what came late is known for a subscription that ended: the lock of its last period knew all until its end.
pub(super) fn settled_until(end: Timestamp, settled: Option<Timestamp>) -> Timestamp {
    settled.map_or(end, |settled| settled.max(end))
}

impl Going {
    const fn new(
        subscription: Arc<Subscription>,
        (closed_until, settled): (Option<Timestamp>, Option<Timestamp>),
    ) -> Self {
        Self {
            subscription,
            settled,
            closed_until,
            stopped: false,
            at_end: false,
            billed: Billed {
                invoices: 0,
                drafts: 0,
                empty: 0,
                late: Vec::new(),
                failure: None,
                uncorrected: None,
                settled: None,
                next: Timestamp::EPOCH,
                changes: 0,
            },
        }
    }

    /// Several periods that are closed in one go find the same.
    fn tell(&mut self, late: Vec<LateUsage>, uncorrected: Option<Problem>) {
        self.billed.uncorrected = uncorrected.or(self.billed.uncorrected.take());
        for one in late {
            if !self.billed.late.contains(&one) {
                self.billed.late.push(one);
            }
        }
    }

    fn take(&mut self, period: TimeRange, closed: Closed) {
        self.tell(closed.late, closed.uncorrected);
        self.billed.changes += closed.changes;
        match closed.step {
            Step::Final => self.billed.invoices += 1,
            Step::Empty => self.billed.empty += 1,
            Step::Draft(locks_at) => {
                self.billed.drafts += 1;
                self.stop(locks_at);
            }
            Step::Waits(until) => self.stop(until),
        }
        if !self.stopped {
            self.closed_until = Some(period.end);
        }
    }

    const fn stop(&mut self, next: Timestamp) {
        self.stopped = true;
        self.billed.next = next;
    }

    fn fail(&mut self, problem: Problem) {
        self.stopped = true;
        self.billed.failure = Some(problem);
    }
}
