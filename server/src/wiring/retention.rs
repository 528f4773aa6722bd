//! Until when raw events may go: what billing may still need is kept, however old it is.

use std::sync::Arc;
use std::time::Duration;

use turnpike_aggregator::Aggregator;
use turnpike_domain::catalog::Subscription;
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{Invoice, InvoiceStatus};
use turnpike_domain::port::billing::{BillingStore, InvoiceFilter};
use turnpike_domain::port::control::{ControlStore, SubscriptionFilter};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::{Clock, Timestamp};
use turnpike_stores::machine::TenantClock;
use turnpike_stores::sql::SqlStore;

use super::embedded::DAY_US;
use super::pages::Pages;
use super::ticks::Ticks;
use crate::config::Config;

/// Deletes segments of the log that are past their retention, now and then, where one is configured.
pub(super) fn keep_events(
    ticks: &mut Ticks,
    aggregator: &Arc<Aggregator>,
    sql: &SqlStore,
    clock: &Arc<TenantClock>,
    config: &Config,
) {
    if config.engine.retention_days == 0 {
        return;
    }
    let keeping = Arc::new(Keeping {
        store: sql.clone(),
        clock: Arc::clone(clock),
        retention_days: config.engine.retention_days,
        look_back_days: config.billing.look_back_days,
    });
    let pause = Duration::from_secs(config.engine.retention_check_interval_s);
    let aggregator = Arc::clone(aggregator);
    ticks.every("engine.retention", pause, move || {
        let (keeping, aggregator) = (Arc::clone(&keeping), Arc::clone(&aggregator));
        async move {
            let horizon = keeping.horizon().await?;
            aggregator.delete_before(horizon).await.map(|_| ())
        }
    });
}

/// What decides how much is kept.
struct Keeping<S, C> {
    store: S,
    clock: Arc<C>,
    retention_days: u32,
    look_back_days: u32,
}

impl<S, C> Keeping<S, C>
where
    S: Directory + ControlStore + BillingStore,
    C: Clock,
{
    /// Raw events that count for a time before this are needed by nobody.
    async fn horizon(&self) -> Result<Timestamp, Problem> {
        let look_back_us = i64::from(self.look_back_days) * DAY_US;
        let retention_us = i64::from(self.retention_days) * DAY_US;
        let mut horizon = self.clock.machine_now().plus_micros(-retention_us);
        for tenant in self.store.tenants() {
            let now = self.clock.now(tenant.id);
            let unbilled = self.unbilled(tenant.id, now).await?;
            horizon = horizon
                .min(now.plus_micros(-retention_us))
                .min(unbilled.plus_micros(-look_back_us));
        }
        Ok(horizon)
    }

    /// From when on usage of a tenant is not finally billed; `now` where all is.
    async fn unbilled(&self, tenant: TenantId, now: Timestamp) -> Result<Timestamp, Problem> {
        let mut earliest = now;
        let mut pages = Pages::default();
        while let Some(page) = pages.next() {
            let found = self
                .store
                .list_subscriptions(tenant, SubscriptionFilter::default(), page)
                .await?;
            pages.turn(found.len(), found.last().map(|one| one.id.clone()));
            let ids = found.iter().map(|one| one.id.clone()).collect();
            let closed = self.store.closed_until(tenant, ids).await?;
            for (subscription, closed) in found.iter().zip(closed) {
                earliest = earliest.min(open_since(subscription, closed).unwrap_or(now));
            }
        }
        for status in [InvoiceStatus::Draft, InvoiceStatus::Finalizing] {
            earliest = earliest.min(self.earliest_of(tenant, status, now).await?);
        }
        Ok(earliest)
    }

    /// The earliest start of what invoices in a state are for.
    async fn earliest_of(
        &self,
        tenant: TenantId,
        status: InvoiceStatus,
        now: Timestamp,
    ) -> Result<Timestamp, Problem> {
        let mut earliest = now;
        let mut pages = Pages::default();
        while let Some(page) = pages.next() {
            let filter = InvoiceFilter {
                status: Some(status),
                ..InvoiceFilter::default()
            };
            let found = self.store.invoices(tenant, filter, page).await?;
            // What an invoice that cannot be read is for is not known: until it is mended nothing is deleted.
            let found: Vec<Invoice> = found.into_iter().collect::<Result<_, _>>()?;
            pages.turn(found.len(), found.last().map(|one| one.id.clone()));
            for invoice in &found {
                let lines = invoice.lines.iter().map(|line| line.period.start);
                earliest = lines.fold(earliest.min(invoice.period.start), Timestamp::min);
            }
        }
        Ok(earliest)
    }
}

/// From when on a subscription is not billed; `None` when it is billed to its end.
fn open_since(subscription: &Subscription, closed: Option<Timestamp>) -> Option<Timestamp> {
    let since = closed.unwrap_or(subscription.start);
    let over = closed.is_some() && subscription.ends_at.is_some_and(|end| end <= since);
    (!over).then_some(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(ends_at: Option<&str>) -> Subscription {
        let start = "2026-01-01T00:00:00Z";
        let phase = serde_json::json!({
            "from": start, "plan": "pro", "plan_version": 1, "interval": "month", "interval_count": 1,
            "anchor": start, "add_ons": []
        });
        let whole = serde_json::json!({
            "id": "s", "customer": "c", "currency": "USD", "start": start, "trial_end": null, "timezone": "UTC",
            "first": phase, "later": [], "pauses": [], "past_due": false, "ends_at": ends_at, "expires": false,
            "billed_until": start
        });
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn a_subscription_keeps_its_usage_until_it_is_billed_to_its_end() {
        let at = |text| Timestamp::parse(text).unwrap();
        let (start, march) = (at("2026-01-01T00:00:00Z"), at("2026-03-01T00:00:00Z"));
        let running = subscription(None);
        assert_eq!(open_since(&running, None), Some(start));
        assert_eq!(open_since(&running, Some(march)), Some(march));
        let ended = subscription(Some("2026-03-01T00:00:00Z"));
        assert_eq!(open_since(&ended, None), Some(start));
        let february = at("2026-02-01T00:00:00Z");
        assert_eq!(open_since(&ended, Some(february)), Some(february));
        assert_eq!(open_since(&ended, Some(march)), None);
    }
}
