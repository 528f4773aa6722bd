//! Billing runs: all subscriptions of a tenant in batches, with progress that survives a crash.

use std::sync::Arc;

use turnpike_domain::catalog::Subscription;
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{BillingRun, RunStatus};
use turnpike_domain::limits::BILLING_RUN_NOTES_MAX;
use turnpike_domain::port::billing::Look;
use turnpike_domain::port::control::{Answer, Change, PageAfter, SubscriptionFilter, Undone};
use turnpike_domain::problem::Problem;
use turnpike_domain::time::Timestamp;

use super::bill::Billed;
use super::close::Asked;
use super::engine::BillingSync;

/// Subscriptions between two notes of progress.
pub(super) const BATCH: usize = 100;

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
        self.number_locked(tenant).await
    }

    async fn number_locked(&self, tenant: TenantId) -> Result<(), Problem> {
        let locked = self.parts.store.finalizing(tenant).await?;
        self.number(tenant, locked).await
    }

    async fn execute(&self, tenant: TenantId, mut run: BillingRun) -> Result<(), Problem> {
        // A period that is locked is closed: the run would pass by what a crash left without its number.
        self.number_locked(tenant).await?;
        run.status = RunStatus::Running;
        self.parts.store.save_run(tenant, run.clone()).await?;
        loop {
            let batch = self.batch(tenant, run.cursor.clone()).await?;
            let Some(last) = batch.last() else { break };
            run.cursor = Some(last.id.clone());
            let asked = Asked::ByRun(&run.id);
            let billed = self.bill(tenant, batch.clone(), run.period_end, asked).await?;
            for (subscription, billed) in batch.iter().zip(&billed) {
                note(&mut run, &subscription.id, billed);
            }
            self.parts.store.save_run(tenant, run.clone()).await?;
            self.keep_settled(tenant, batch.iter().zip(&billed)).await?;
        }
        self.finish_run(tenant, run).await
    }

    async fn finish_run(&self, tenant: TenantId, mut run: BillingRun) -> Result<(), Problem> {
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

    async fn keep_settled(
        &self,
        tenant: TenantId,
        billed: impl Iterator<Item = (&Arc<Subscription>, &Billed)> + Send,
    ) -> Result<(), Problem> {
        let settled = billed.filter_map(|(one, billed)| Some((one.id.clone(), billed.settled?)));
        self.parts.store.settle(tenant, settled.collect()).await
    }

    async fn batch(
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
    /// it, and is tried again at the next check. Where late usage is found that is on no invoice and that no run lists, it
    /// is kept as a run is, so that it can be seen.
    pub(super) async fn bill_due(&self, tenant: TenantId) -> Result<Undone, Problem> {
        let _turn = self.turn(tenant).await;
        let store = &self.parts.store;
        let mut undone = Undone::default();
        let mut after = None;
        let now = self.parts.clock.now(tenant);
        let mut run = BillingRun::queued(self.parts.randomness.new_id(), now, now);
        loop {
            let now = self.parts.clock.now(tenant);
            let due = store.looks(tenant, now, after, BATCH).await?;
            let last = due.last().cloned();
            let subscriptions: Vec<_> = due.iter().map(|look| Arc::clone(&look.subscription)).collect();
            let billed = self
                .bill(tenant, subscriptions.clone(), now, Asked::ByClock)
                .await?;
            self.keep_settled(tenant, subscriptions.iter().zip(&billed))
                .await?;
            let mut again = Vec::with_capacity(due.len());
            for (look, mut billed) in due.into_iter().zip(billed) {
                billed.late = store.unlisted(tenant, billed.late).await?;
                note(&mut run, &look.subscription.id, &billed);
                if let Some(problem) = &billed.uncorrected {
                    let id = &look.subscription.id;
                    tracing::warn!(tenant = tenant.0, subscription = %id, %problem, "closed periods cannot be corrected");
                    undone.tell(id, problem);
                }
                match billed.failure {
                    None => again.push(Look {
                        at: billed.next,
                        change: look.change + billed.changes,
                        ..look
                    }),
                    Some(problem) => {
                        let id = &look.subscription.id;
                        tracing::warn!(tenant = tenant.0, subscription = %id, %problem, "a subscription cannot be billed");
                        undone.note(id, &problem);
                    }
                }
            }
            store.look_again(tenant, again).await?;
            if last.is_none() {
                if run.late > 0 {
                    self.finish_run(tenant, run).await?;
                }
                return Ok(undone);
            }
            after = last;
        }
    }
}

fn note(run: &mut BillingRun, subscription: &str, billed: &Billed) {
    run.subscriptions += 1;
    run.invoices += billed.invoices;
    run.drafts += billed.drafts;
    run.empty_periods += billed.empty;
    run.late += billed.late.len() as u64;
    let room = BILLING_RUN_NOTES_MAX.saturating_sub(run.late_usage.len());
    run.late_usage.extend(billed.late.iter().take(room).cloned());
    let mut undone = Undone {
        failed: run.failed,
        failures: std::mem::take(&mut run.failures),
    };
    if let Some(problem) = &billed.uncorrected {
        undone.tell(subscription, problem);
    }
    if let Some(problem) = &billed.failure {
        undone.note(subscription, problem);
    }
    (run.failed, run.failures) = (undone.failed, undone.failures);
}
