//! Closing periods: draft, lock, final. Each step is one transaction, and a step that was done is not done again.

use turnpike_domain::catalog::Subscription;
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{Invoice, InvoiceStatus, LateUsage, Totals};
use turnpike_domain::port::control::{Answer, Change};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{TimeRange, Timestamp};

use super::build::{Built, Scope};
use super::charges::next_period;
use super::engine::BillingSync;

/// Periods of one subscription that are closed in one go; the next check goes on.
const PERIODS_MAX: usize = 1_000;

/// Who wants periods to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// A billing run: what has ended and is beyond its grace time is made final, other drafts are made anew.
    ByRun,
    /// The clock: as a run, but a draft also waits for its own grace time, and is not made anew until then.
    ByClock,
}

/// What became of the periods of one subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Closed {
    /// Invoices made final.
    pub(super) invoices: u64,
    /// Drafts left.
    pub(super) drafts: u64,
    /// Periods without anything to charge.
    pub(super) empty: u64,
    /// Late usage that is on no invoice.
    pub(super) late: Vec<LateUsage>,
}

/// What became of one period.
enum Step {
    Final,
    Draft,
    Empty,
    Waits,
}

impl BillingSync {
    /// Closes the periods of `subscription` that ended by `until`, oldest first. The caller holds the tenant's turn.
    pub(super) async fn bill(
        &self,
        tenant: TenantId,
        subscription: &Subscription,
        until: Timestamp,
        asked: Asked,
    ) -> Result<Closed, Problem> {
        let now = self.parts.clock.now(tenant);
        let mut closed = Closed::default();
        let mut closed_until = self.closed_until(tenant, &subscription.id).await?;
        for _ in 0..PERIODS_MAX {
            let catalog = self.parts.directory.catalog(tenant);
            let Some(period) = next_period(subscription, &catalog, closed_until)? else {
                break;
            };
            if period.end > until.min(now) {
                return Ok(closed);
            }
            let scope = Scope {
                tenant,
                subscription,
                period,
                looked_from: period.end,
                over: false,
            };
            match self.close(scope, asked, &mut closed.late).await? {
                Step::Final => closed.invoices += 1,
                Step::Empty => closed.empty += 1,
                Step::Draft => {
                    closed.drafts += 1;
                    return Ok(closed);
                }
                Step::Waits => return Ok(closed),
            }
            closed_until = Some(period.end);
        }
        self.settle(tenant, subscription, &mut closed).await?;
        Ok(closed)
    }

    pub(super) async fn closed_until(
        &self,
        tenant: TenantId,
        id: &str,
    ) -> Result<Option<Timestamp>, Problem> {
        let until = self.parts.store.closed_until(tenant, vec![id.to_owned()]).await?;
        Ok(until.into_iter().next().flatten())
    }

    async fn close(
        &self,
        scope: Scope<'_>,
        asked: Asked,
        late: &mut Vec<LateUsage>,
    ) -> Result<Step, Problem> {
        let (tenant, period) = (scope.tenant, scope.period);
        let now = self.parts.clock.now(tenant);
        let subscription = scope.subscription.id.clone();
        let standing = self
            .parts
            .store
            .invoice_of(tenant, subscription, period.end, 0)
            .await?;
        if let Some(standing) = standing.as_ref().filter(|standing| !standing.is_draft()) {
            self.finish_if_locked(tenant, standing).await?;
            return Ok(Step::Final);
        }
        let grace_over = period.end.plus_micros(self.grace_us(tenant)) <= now;
        let may_lock = match (asked, &standing) {
            (Asked::ByRun, _) => grace_over,
            (Asked::ByClock, Some(draft)) => draft.locks_at <= now,
            (Asked::ByClock, None) => grace_over && self.grace_us(tenant) == 0,
        };
        if asked == Asked::ByClock && standing.is_some() && !may_lock {
            return Ok(Step::Waits);
        }
        let mut built = self.build(scope).await?;
        late.append(&mut built.late);
        if built.lines.is_empty() && standing.is_none() {
            if !grace_over {
                return Ok(Step::Waits);
            }
            let change = self.own_change(tenant);
            let subscription = scope.subscription.id.clone();
            self.parts.store.close_empty(change, subscription, period).await?;
            return Ok(Step::Empty);
        }
        let invoice = self.draft(&scope, 0, built)?;
        if !may_lock {
            self.parts
                .store
                .put_draft(self.own_change(tenant), invoice)
                .await?;
            return Ok(Step::Draft);
        }
        self.lock_and_finish(tenant, invoice).await?;
        Ok(Step::Final)
    }

    async fn lock_and_finish(&self, tenant: TenantId, invoice: Invoice) -> Result<(), Problem> {
        let locked = self.parts.store.lock(self.own_change(tenant), invoice).await?;
        self.finish_if_locked(tenant, &locked).await
    }

    /// Goes on with what a crash left between lock and number.
    async fn finish_if_locked(&self, tenant: TenantId, invoice: &Invoice) -> Result<(), Problem> {
        if invoice.status == InvoiceStatus::Finalizing {
            let id = invoice.id.clone();
            self.parts.store.finish(self.own_change(tenant), id).await?;
            metrics::counter!("turnpike_invoices_finalized_total").increment(1);
        }
        Ok(())
    }

    /// The invoice as it is before it has a number.
    pub(super) fn draft(&self, scope: &Scope<'_>, round: u32, built: Built) -> Result<Invoice, Problem> {
        let now = self.parts.clock.now(scope.tenant);
        Ok(Invoice {
            id: self.parts.randomness.new_id(),
            number: None,
            customer: scope.subscription.customer.clone(),
            subscription: scope.subscription.id.clone(),
            status: InvoiceStatus::Draft,
            currency: scope.subscription.currency,
            period: scope.period,
            round,
            totals: Totals::of(&built.lines)?,
            lines: built.lines,
            watermark: built.watermark,
            catalog_version: self.parts.directory.catalog(scope.tenant).version,
            previous_hash: String::new(),
            hash: String::new(),
            created: now,
            locks_at: scope.period.end.max(now).plus_micros(self.grace_us(scope.tenant)),
            finalized: None,
        })
    }

    /// A subscription that is over has no next invoice: what came late gets an invoice of its own.
    async fn settle(
        &self,
        tenant: TenantId,
        subscription: &Subscription,
        closed: &mut Closed,
    ) -> Result<(), Problem> {
        let now = self.parts.clock.now(tenant);
        let Some(end) = subscription.ends_at.filter(|end| *end <= now) else {
            return Ok(());
        };
        let scope = Scope {
            tenant,
            subscription,
            period: TimeRange::new(end, end),
            looked_from: now,
            over: true,
        };
        let mut built = self.build(scope).await?;
        closed.late.append(&mut built.late);
        if built.lines.is_empty() {
            return Ok(());
        }
        let round = self.next_round(tenant, subscription, end).await?;
        let invoice = self.draft(&scope, round, built)?;
        self.lock_and_finish(tenant, invoice).await?;
        closed.invoices += 1;
        Ok(())
    }

    async fn next_round(
        &self,
        tenant: TenantId,
        subscription: &Subscription,
        end: Timestamp,
    ) -> Result<u32, Problem> {
        let mut round = 1;
        let store = &self.parts.store;
        while store
            .invoice_of(tenant, subscription.id.clone(), end, round)
            .await?
            .is_some()
        {
            round += 1;
        }
        Ok(round)
    }

    /// Makes an invoice final, at once. The answer is the invoice; a repeat answers the same.
    pub(super) async fn finalize(&self, change: Change, id: String) -> Result<Answer, Problem> {
        let tenant = change.tenant;
        let _turn = self.turn(tenant).await;
        let found = self.parts.store.invoice(tenant, id.clone()).await?;
        let invoice = found.ok_or_else(|| Problem::not_found("invoice", &id))?;
        if invoice.is_draft() {
            let found = self.parts.directory.subscription(tenant, &invoice.subscription);
            let subscription =
                found.ok_or_else(|| Problem::not_found("subscription", &invoice.subscription))?;
            if invoice.boundary() > self.parts.clock.now(tenant) {
                let detail = "an invoice cannot be finalized before its period has ended";
                return Err(Problem::new(Code::IllegalTransition, detail));
            }
            let scope = Scope {
                tenant,
                subscription: &subscription,
                period: invoice.period,
                looked_from: invoice.boundary(),
                over: false,
            };
            let built = self.build(scope).await?;
            let locked = self.draft(&scope, invoice.round, built)?;
            self.parts.store.lock(self.own_change(tenant), locked).await?;
        }
        self.parts.store.finish(change, id).await
    }
}
