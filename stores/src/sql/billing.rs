//! The port of billing.

use std::sync::Arc;

use serde_json::Value;
use sqlx::sqlite::SqliteConnection;
use turnpike_domain::catalog::Subscription;
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{BillingRun, Invoice, InvoiceStep, LateUsage, Line, StatusEntry};
use turnpike_domain::port::BoxFuture;
use turnpike_domain::port::billing::{
    BilledFilter, BillingStore, Boundary, Broken, Closings, InvoiceFilter, InvoiceName, Kept, Look,
    NumberSeries, Stored,
};
use turnpike_domain::port::control::{Answer, Change, ControlState, Decision, Effect, PageAfter, answer_of};
use turnpike_domain::problem::Problem;
use turnpike_domain::time::Timestamp;

use super::{
    SqlStore, Work, billing_read as read, billing_runs as runs, billing_write as write, invoice_history,
    looks,
};

/// A change that the engine makes by itself needs no answer.
fn silent() -> Decision {
    Decision::unchanged(Value::Null)
}

/// The subscription learns, in the same transaction, until when it is billed.
fn billed_until(state: &dyn ControlState, tenant: TenantId, id: &str, until: Timestamp) -> Option<Effect> {
    let known = state
        .subscription(tenant, id)
        .filter(|known| known.billed_until < until)?;
    let mut billed = known.as_ref().clone();
    billed.billed_until = until;
    Some(Effect::Subscription(billed))
}

impl SqlStore {
    async fn work<F>(&self, change: Change, work: F) -> Result<Answer, Problem>
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<Decision, Problem>>
            + Send
            + 'static,
    {
        let work: Work = Box::new(move |connection, _| work(connection));
        self.write(change, work).await
    }
}

impl BillingStore for SqlStore {
    fn closed_until(
        &self,
        tenant: TenantId,
        subscriptions: Vec<String>,
    ) -> Stored<'_, Vec<Option<Timestamp>>> {
        Box::pin(async move {
            let until = self
                .read(move |c| Box::pin(async move { read::closed_until(c, tenant, &subscriptions).await }))
                .await?;
            Ok(until)
        })
    }

    fn close(&self, change: Change, closings: Closings) -> Stored<'_, Option<Vec<String>>> {
        Box::pin(async move {
            let (tenant, at) = (change.tenant, change.at);
            let work: Work = Box::new(move |c, state| {
                Box::pin(async move {
                    // This is the one writer: the state is that of the last commit.
                    let stands = |seen: &Arc<Subscription>| {
                        let now = state.subscription(tenant, &seen.id);
                        now.is_some_and(|now| now.is_as(seen))
                    };
                    if !closings.seen.iter().all(stands) {
                        return Ok(Decision::unchanged(Value::Null));
                    }
                    let billed = write::close_all(c, tenant, &closings, at).await?;
                    let (mut effects, mut changed) = (Vec::new(), Vec::new());
                    for (subscription, until) in billed {
                        if let Some(effect) = billed_until(state, tenant, subscription, until) {
                            effects.push(effect);
                            changed.push(subscription);
                        }
                    }
                    Ok(Decision {
                        effects,
                        ..Decision::unchanged(answer_of(&changed)?)
                    })
                })
            });
            let answer = self.write(change, work).await?;
            let ids = answer.body.as_array();
            let text = |id: &Value| id.as_str().map(str::to_owned);
            Ok(ids.map(|ids| ids.iter().filter_map(text).collect()))
        })
    }

    fn finish_all(&self, change: Change, ids: Vec<String>) -> Stored<'_, u64> {
        Box::pin(async move {
            let (tenant, at) = (change.tenant, change.at);
            let answer = self
                .work(change, move |c| {
                    Box::pin(async move { write::finish_all(c, tenant, &ids, at).await })
                })
                .await?;
            Ok(answer.body.as_u64().unwrap_or_default())
        })
    }

    fn finish(&self, change: Change, id: String) -> Stored<'_, Answer> {
        let (tenant, at) = (change.tenant, change.at);
        Box::pin(self.work(change, move |c| {
            Box::pin(async move { write::finish(c, tenant, &id, at).await })
        }))
    }

    fn step(&self, change: Change, id: String, step: InvoiceStep) -> Stored<'_, Answer> {
        let (tenant, at) = (change.tenant, change.at);
        Box::pin(self.work(change, move |c| {
            Box::pin(async move { write::step(c, tenant, &id, (step, at)).await })
        }))
    }

    fn invoice(&self, tenant: TenantId, id: String) -> Stored<'_, Option<Invoice>> {
        Box::pin(async move {
            self.read(move |c| Box::pin(async move { Ok(read::by_id(c, tenant, &id).await) }))
                .await?
        })
    }

    fn kept(&self, tenant: TenantId, name: InvoiceName) -> Stored<'_, Option<Kept>> {
        Box::pin(async move {
            let found = self
                .read(move |c| Box::pin(async move { Ok(read::kept(c, tenant, &name).await) }))
                .await?;
            Ok(found?)
        })
    }

    fn series(&self, tenant: TenantId) -> Stored<'_, NumberSeries> {
        Box::pin(async move {
            let series = self
                .read(move |c| Box::pin(async move { Ok(read::series(c, tenant).await) }))
                .await?;
            Ok(series?)
        })
    }

    fn history(&self, tenant: TenantId, id: String) -> Stored<'_, Result<Vec<StatusEntry>, Broken>> {
        Box::pin(async move {
            let found = self
                .read(move |c| Box::pin(async move { Ok(invoice_history::read(c, tenant, &id).await) }))
                .await?;
            Ok(found?)
        })
    }

    fn invoices(
        &self,
        tenant: TenantId,
        filter: InvoiceFilter,
        page: PageAfter,
    ) -> Stored<'_, Vec<Result<Invoice, Broken>>> {
        Box::pin(async move {
            let found = self
                .read(move |c| Box::pin(async move { Ok(read::list(c, tenant, &filter, &page).await) }))
                .await?;
            Ok(found?)
        })
    }

    fn invoices_of(&self, tenant: TenantId, boundaries: Vec<Boundary>) -> Stored<'_, Vec<Option<Invoice>>> {
        Box::pin(async move {
            self.read(move |c| Box::pin(async move { Ok(read::of_boundaries(c, tenant, &boundaries).await) }))
                .await?
        })
    }

    fn looks(
        &self,
        tenant: TenantId,
        now: Timestamp,
        after: Option<Look>,
        rows: usize,
    ) -> Stored<'_, Vec<Look>> {
        Box::pin(async move {
            let due = self
                .read(move |c| Box::pin(async move { Ok(looks::due(c, tenant, now, after, rows).await) }))
                .await?;
            Ok(due?)
        })
    }

    fn next_look(&self, tenant: TenantId, after: Timestamp) -> Stored<'_, Option<Timestamp>> {
        Box::pin(async move {
            let next = self
                .read(move |c| Box::pin(async move { looks::next(c, tenant, after).await }))
                .await?;
            Ok(next)
        })
    }

    fn look_again(&self, tenant: TenantId, looks: Vec<Look>) -> Stored<'_, ()> {
        Box::pin(async move {
            let mut writer = self.inner.writer().await?;
            self.inner.check_health()?;
            Ok(looks::put(&mut writer, tenant, &looks).await?)
        })
    }

    fn settled_until(
        &self,
        tenant: TenantId,
        subscriptions: Vec<String>,
    ) -> Stored<'_, Vec<Option<Timestamp>>> {
        Box::pin(async move {
            let until = self
                .read(move |c| Box::pin(async move { looks::settled_until(c, tenant, &subscriptions).await }))
                .await?;
            Ok(until)
        })
    }

    fn settle(&self, tenant: TenantId, settled: Vec<(String, Timestamp)>) -> Stored<'_, ()> {
        Box::pin(async move {
            if settled.is_empty() {
                return Ok(());
            }
            let mut writer = self.inner.writer().await?;
            self.inner.check_health()?;
            Ok(looks::settle(&mut writer, tenant, &settled).await?)
        })
    }

    fn billed_lines(&self, tenant: TenantId, filter: BilledFilter) -> Stored<'_, Result<Vec<Line>, Broken>> {
        Box::pin(async move {
            let lines = self
                .read(move |c| Box::pin(async move { Ok(read::billed(c, tenant, &filter).await) }))
                .await?;
            Ok(lines?)
        })
    }

    fn finalizing(&self, tenant: TenantId) -> Stored<'_, Vec<String>> {
        Box::pin(async move {
            let ids = self
                .read(move |c| Box::pin(async move { read::finalizing(c, tenant).await }))
                .await?;
            Ok(ids)
        })
    }

    fn begin_run(&self, change: Change, run: BillingRun) -> Stored<'_, Answer> {
        let tenant = change.tenant;
        Box::pin(self.work(change, move |c| {
            Box::pin(async move { runs::begin(c, tenant, &run).await })
        }))
    }

    fn save_run(&self, tenant: TenantId, run: BillingRun) -> Stored<'_, ()> {
        Box::pin(async move {
            let change = Change {
                tenant,
                actor: "billing".into(),
                request_id: run.id.as_str().into(),
                at: run.created,
                recorded_at: run.created,
                idempotency: None,
            };
            self.work(change, move |c| {
                Box::pin(async move {
                    runs::put(c, tenant, &run).await?;
                    Ok(silent())
                })
            })
            .await?;
            Ok(())
        })
    }

    fn unlisted(&self, tenant: TenantId, late: Vec<LateUsage>) -> Stored<'_, Vec<LateUsage>> {
        Box::pin(async move {
            let unlisted = self
                .read(move |c| Box::pin(async move { runs::unlisted(c, tenant, late).await }))
                .await?;
            Ok(unlisted)
        })
    }

    fn run(&self, tenant: TenantId, id: String) -> Stored<'_, Option<BillingRun>> {
        Box::pin(async move {
            self.read(move |c| Box::pin(async move { Ok(runs::by_id(c, tenant, &id).await) }))
                .await?
        })
    }

    fn runs(&self, tenant: TenantId, page: PageAfter) -> Stored<'_, Vec<BillingRun>> {
        Box::pin(async move {
            self.read(move |c| Box::pin(async move { Ok(runs::list(c, tenant, &page).await) }))
                .await?
        })
    }

    fn next_run(&self, tenant: TenantId) -> Stored<'_, Option<BillingRun>> {
        Box::pin(async move {
            self.read(move |c| Box::pin(async move { Ok(runs::next(c, tenant).await) }))
                .await?
        })
    }
}
