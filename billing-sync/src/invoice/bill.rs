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
    /// When something is due next; at once where that is not known.
    pub(super) next: Timestamp,
    /// How often the subscription was changed by that.
    pub(super) changes: i64,
}

/// A subscription on its way.
struct Going {
    subscription: Arc<Subscription>,
    due: Timestamp,
    closed_until: Option<Timestamp>,
    stopped: bool,
    /// Whether it is closed to its end.
    at_end: bool,
    billed: Billed,
}

impl BillingSync {
    /// Closes the periods of these subscriptions, each of which is due since an instant, that ended by `until`. One that cannot be billed says so, and keeps no
    /// other from it. The caller holds the tenant's turn.
    pub(super) async fn bill(
        &self,
        tenant: TenantId,
        subscriptions: Vec<(Arc<Subscription>, Timestamp)>,
        until: Timestamp,
        asked: Asked<'_>,
    ) -> Result<Vec<Billed>, Problem> {
        let ids = subscriptions
            .iter()
            .map(|(subscription, _)| subscription.id.clone());
        let closed_until = self.parts.store.closed_until(tenant, ids.collect()).await?;
        let mut going: Vec<Going> = subscriptions
            .into_iter()
            .zip(closed_until)
            .map(|((subscription, due), closed_until)| Going::new(subscription, due, closed_until))
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
        let scope = Scope {
            tenant,
            subscription,
            period: TimeRange::new(end, end),
            // It is looked at once a day: at the latest a day before it fell due, however long nothing ran since.
            last_look: days_before(one.due.min(now), 1),
            over: true,
        };
        let (late, made) = self.settle(scope, asked).await?;
        one.list(late);
        one.billed.invoices += u64::from(made);
        let options = &self.parts.options;
        let looked_at = options.look_back_days.saturating_add(options.listed_days);
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

impl Going {
    const fn new(subscription: Arc<Subscription>, due: Timestamp, closed_until: Option<Timestamp>) -> Self {
        Self {
            subscription,
            due,
            closed_until,
            stopped: false,
            at_end: false,
            billed: Billed {
                invoices: 0,
                drafts: 0,
                empty: 0,
                late: Vec::new(),
                failure: None,
                next: Timestamp::EPOCH,
                changes: 0,
            },
        }
    }

    /// Several periods that are closed in one go find the same.
    fn list(&mut self, late: Vec<LateUsage>) {
        for one in late {
            if !self.billed.late.contains(&one) {
                self.billed.late.push(one);
            }
        }
    }

    fn take(&mut self, period: TimeRange, closed: Closed) {
        self.list(closed.late);
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
