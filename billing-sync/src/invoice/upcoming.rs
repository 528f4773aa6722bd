//! The invoice to come.

use std::sync::Arc;

use turnpike_domain::catalog::{Customer, Subscription};
use turnpike_domain::hierarchy::chain_at;
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::Invoice;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::TimeRange;

use super::adjust::days_before;
use super::bill::settled_until;
use super::build::Scope;
use super::charges::next_period;
use super::engine::BillingSync;
use super::verify::Verifier;

impl BillingSync {
    /// The invoice that falls due next of a customer's subscriptions, or of the one that is named, as it would be now.
    /// Nothing is kept.
    pub async fn upcoming(
        &self,
        tenant: TenantId,
        customer: &str,
        subscription: Option<&str>,
    ) -> Result<Invoice, Problem> {
        let catalog = self.parts.directory.catalog(tenant);
        let mut next = None;
        let candidates = self.candidates(tenant, customer, subscription)?;
        let ids = candidates.iter().map(|candidate| candidate.id.clone());
        let closed_until = self.parts.store.closed_until(tenant, ids.collect()).await?;
        let mut over = Vec::new();
        for (candidate, closed_until) in candidates.into_iter().zip(closed_until) {
            let period = next_period(&candidate, &catalog, closed_until)?;
            if period.is_none() {
                over.push(candidate.clone());
            }
            let due = period.map(|period| (period, candidate));
            next = next.into_iter().chain(due).min_by_key(|(period, _)| period.end);
        }
        // What came late for one that is over falls due at the next look, before any period that runs.
        if let Some(settled) = self.settlement_to_come(tenant, &over).await? {
            return Ok(settled);
        }
        let (period, candidate) = next.ok_or_else(|| self.nothing_to_come(tenant, customer))?;
        let scope = Scope {
            tenant,
            subscription: &candidate,
            period,
            last_look: period.start,
            over: false,
        };
        let built = self.build(scope).await?;
        let draft = self.draft(&scope, 0, built)?;
        Ok(Invoice {
            id: String::new(),
            ..draft
        })
    }

    /// What came late for subscriptions that are over, and will get an invoice of its own.
    async fn settlement_to_come(
        &self,
        tenant: TenantId,
        over: &[Arc<Subscription>],
    ) -> Result<Option<Invoice>, Problem> {
        let now = self.parts.clock.now(tenant);
        let ids = over.iter().map(|subscription| subscription.id.clone());
        let settled = self.parts.store.settled_until(tenant, ids.collect()).await?;
        for (subscription, settled) in over.iter().zip(settled) {
            let Some(end) = subscription.ends_at.filter(|end| *end <= now) else {
                continue;
            };
            let last_look = settled_until(end, settled);
            if end < days_before(last_look, self.parts.options.look_back_days) {
                continue;
            }
            let scope = Scope {
                tenant,
                subscription,
                period: TimeRange::new(end, end),
                last_look,
                over: true,
            };
            let built = self.build(scope).await?;
            if !built.lines.is_empty() {
                let round = self.next_round(&scope).await?;
                let draft = self.draft(&scope, round, built)?;
                return Ok(Some(Invoice {
                    id: String::new(),
                    ..draft
                }));
            }
        }
        Ok(None)
    }

    fn nothing_to_come(&self, tenant: TenantId, customer: &str) -> Problem {
        let (directory, now) = (&*self.parts.directory, self.parts.clock.now(tenant));
        let found = directory.customer(tenant, customer);
        let chain = found.map(|found| chain_at(directory, tenant, found, now));
        let subscribed = |above: &&Arc<Customer>| {
            let all = directory.subscriptions(tenant, &above.key);
            all.iter().any(|subscription| subscription.span().contains(now))
        };
        let chain = chain.unwrap_or_default();
        let why = match chain.iter().skip(1).find(subscribed) {
            Some(above) => format!(
                ": it has no subscription, and its usage is on the invoice of \"{}\"",
                above.key
            ),
            None => String::new(),
        };
        let detail = format!("no invoice is to come for \"{customer}\"{why}");
        Problem::new(Code::NotFound, detail)
    }

    fn candidates(
        &self,
        tenant: TenantId,
        customer: &str,
        subscription: Option<&str>,
    ) -> Result<Vec<Arc<Subscription>>, Problem> {
        let all = self.parts.directory.subscriptions(tenant, customer);
        let Some(id) = subscription else { return Ok(all) };
        let found = all.into_iter().find(|candidate| candidate.id == id);
        found
            .map(|found| vec![found])
            .ok_or_else(|| Problem::not_found("subscription", id))
    }

    /// What derives invoices again.
    pub fn verifier(&self) -> Verifier {
        Verifier {
            directory: self.parts.directory.clone(),
            store: self.parts.store.clone(),
            usage: self.parts.usage.clone(),
        }
    }
}
