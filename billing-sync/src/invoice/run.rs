//! Billing runs: all subscriptions of a tenant in batches, with progress that survives a crash.

use std::sync::Arc;

use turnpike_domain::catalog::Subscription;
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{BillingRun, RunFailure, RunStatus};
use turnpike_domain::limits::BILLING_RUN_NOTES_MAX;
use turnpike_domain::port::control::{Answer, Change, PageAfter, SubscriptionFilter};
use turnpike_domain::problem::Problem;
use turnpike_domain::time::Timestamp;

use super::adjust::{DAY_US, days_before};
use super::close::{Asked, Closed};
use super::engine::BillingSync;

/// Subscriptions between two notes of progress.
const BATCH: usize = 100;

impl BillingSync {
    /// Begins a run; it goes on after the answer.
    pub(super) async fn begin_run(
        self: &Arc<Self>,
        change: Change,
        period_end: Timestamp,
    ) -> Result<Answer, Problem> {
        let tenant = change.tenant;
        let run = BillingRun::queued(self.parts.randomness.new_id(), period_end, change.at);
        let answer = self.parts.store.begin_run(change, run).await?;
        let billing = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(problem) = billing.drain(tenant).await {
                tracing::error!(tenant = tenant.0, %problem, "a billing run was interrupted; it goes on at the next check");
            }
        });
        Ok(answer)
    }

    /// Runs what waits, one run behind the other.
    pub(super) async fn drain(&self, tenant: TenantId) -> Result<(), Problem> {
        let _turn = self.turn(tenant).await;
        while let Some(run) = self.parts.store.next_run(tenant).await? {
            self.execute(tenant, run).await?;
        }
        Ok(())
    }

    /// Makes final what a crash left locked.
    pub(super) async fn resume(&self, tenant: TenantId) -> Result<(), Problem> {
        let _turn = self.turn(tenant).await;
        for id in self.parts.store.finalizing(tenant).await? {
            self.parts.store.finish(self.own_change(tenant), id).await?;
        }
        Ok(())
    }

    async fn execute(&self, tenant: TenantId, mut run: BillingRun) -> Result<(), Problem> {
        run.status = RunStatus::Running;
        self.parts.store.save_run(tenant, run.clone()).await?;
        loop {
            let batch = self.batch(tenant, run.cursor.clone()).await?;
            for subscription in &batch {
                let billed = self
                    .bill(tenant, subscription, run.period_end, Asked::ByRun)
                    .await;
                note(&mut run, &subscription.id, billed);
            }
            let Some(last) = batch.last() else { break };
            run.cursor = Some(last.id.clone());
            self.parts.store.save_run(tenant, run.clone()).await?;
        }
        run.status = if run.failed == 0 {
            RunStatus::Done
        } else {
            RunStatus::Failed
        };
        run.finished = Some(self.parts.clock.now(tenant));
        metrics::counter!("turnpike_billing_runs_total", "status" => if run.failed == 0 { "done" } else { "failed" })
            .increment(1);
        self.parts.store.save_run(tenant, run).await
    }

    pub(super) async fn batch(
        &self,
        tenant: TenantId,
        after: Option<String>,
    ) -> Result<Vec<Arc<Subscription>>, Problem> {
        let page = PageAfter { after, rows: BATCH };
        self.parts
            .control
            .list_subscriptions(tenant, SubscriptionFilter::default(), page)
            .await
    }

    /// Bills what is due by now, as the clock asks. A subscription that cannot be billed does not keep the others from
    /// it; the last failure is the answer.
    pub(super) async fn bill_due(&self, tenant: TenantId) -> Result<(), Problem> {
        let _turn = self.turn(tenant).await;
        let daily = self.takes_daily_look(tenant);
        let mut failure = None;
        let mut after = None;
        loop {
            let batch = self.batch(tenant, after.clone()).await?;
            let Some(last) = batch.last() else { break };
            after = Some(last.id.clone());
            for subscription in &batch {
                let now = self.parts.clock.now(tenant);
                if !self.may_be_due(subscription, now, daily) {
                    continue;
                }
                if let Err(problem) = self.bill(tenant, subscription, now, Asked::ByClock).await {
                    let id = &subscription.id;
                    tracing::warn!(tenant = tenant.0, subscription = %id, %problem, "a subscription cannot be billed");
                    failure = Some(problem);
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

impl BillingSync {
    /// Whether a look at the subscription can find anything to do; told without asking the store.
    fn may_be_due(&self, subscription: &Subscription, now: Timestamp, daily: bool) -> bool {
        let until = subscription.billed_until;
        if subscription.is_settled(now) {
            // Late usage of one that is over: once a day, while its look-back time lasts.
            return daily && until > days_before(now, self.parts.options.look_back_days);
        }
        let running = subscription
            .period_at(until)
            .is_some_and(|period| period.end > now);
        // What is charged in advance at the start leaves `billed_until` where it was.
        until <= subscription.start || !running
    }

    /// Whether this is the first look of the day; with a test tenant's own clock each is.
    fn takes_daily_look(&self, tenant: TenantId) -> bool {
        let day = self.parts.clock.now(tenant).micros() / DAY_US;
        let before = self.looked_on.lock().insert(tenant, day);
        self.is_test(tenant) || before != Some(day)
    }
}

fn note(run: &mut BillingRun, subscription: &str, billed: Result<Closed, Problem>) {
    run.subscriptions += 1;
    match billed {
        Ok(closed) => {
            run.invoices += closed.invoices;
            run.drafts += closed.drafts;
            run.empty_periods += closed.empty;
            run.late += closed.late.len() as u64;
            let room = BILLING_RUN_NOTES_MAX.saturating_sub(run.late_usage.len());
            run.late_usage.extend(closed.late.into_iter().take(room));
        }
        Err(problem) => {
            run.failed += 1;
            if run.failures.len() < BILLING_RUN_NOTES_MAX {
                run.failures.push(RunFailure {
                    subscription: subscription.to_owned(),
                    code: problem.code.slug().to_owned(),
                    detail: problem.detail,
                });
            }
        }
    }
}
