//! What falls due when a test tenant's clock moves.

use turnpike_domain::catalog::Subscription;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::BoxFuture;
use turnpike_domain::port::billing::Boundary;
use turnpike_domain::port::control::{DueWork, Undone};
use turnpike_domain::problem::Problem;
use turnpike_domain::time::Timestamp;

use super::charges::next_period;
use super::engine::BillingSync;
use super::run::BATCH;

impl BillingSync {
    async fn next_of(
        &self,
        tenant: TenantId,
        (subscription, closed_until): (&Subscription, Option<Timestamp>),
        after: Timestamp,
    ) -> Result<Option<Timestamp>, Problem> {
        let catalog = self.parts.directory.catalog(tenant);
        let Some(period) = next_period(subscription, &catalog, closed_until)? else {
            return Ok(None);
        };
        if period.end > after {
            return Ok(Some(period.end));
        }
        let boundary = Boundary {
            subscription: subscription.id.clone(),
            at: period.end,
            round: 0,
        };
        let found = self.parts.store.invoices_of(tenant, vec![boundary]).await?;
        let draft = found.into_iter().next().flatten();
        let locks_at = draft.map(|draft| draft.locks_at).filter(|at| *at > after);
        // What is overdue is done at the next step, which is at the latest the end of the period that runs.
        Ok(locks_at.or_else(|| subscription.period_at(after).map(|running| running.end)))
    }
}

impl DueWork for BillingSync {
    fn next_due(
        &self,
        tenant: TenantId,
        after: Timestamp,
    ) -> BoxFuture<'_, Result<Option<Timestamp>, Problem>> {
        Box::pin(async move {
            let store = &self.parts.store;
            let mut first = store.next_look(tenant, after).await?;
            let mut cursor = None;
            // Beside what waits for its instant, there is what was changed, billed or not billed since it was looked at.
            loop {
                let looks = store.looks(tenant, after, cursor, BATCH).await?;
                let Some(last) = looks.last().cloned() else {
                    return Ok(first);
                };
                cursor = Some(last);
                let ids = looks.iter().map(|look| look.subscription.id.clone());
                let closed_until = store.closed_until(tenant, ids.collect()).await?;
                for (look, closed_until) in looks.iter().zip(closed_until) {
                    // One that cannot be billed is told when the work runs; it must not stop the clock.
                    let due = self
                        .next_of(tenant, (&look.subscription, closed_until), after)
                        .await
                        .unwrap_or_default();
                    first = first.into_iter().chain(due).min();
                }
            }
        })
    }

    fn run_due(&self, tenant: TenantId, _now: Timestamp) -> BoxFuture<'_, Result<Undone, Problem>> {
        Box::pin(async move {
            self.resume(tenant).await?;
            self.bill_due(tenant).await
        })
    }
}
