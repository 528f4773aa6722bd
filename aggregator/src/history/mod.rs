//! Looking at raw events and dead letters.

mod dead_letters;
mod events;
mod place;
mod seen;

use turnpike_domain::identity::TenantId;
use turnpike_domain::port::BoxFuture;
use turnpike_domain::port::history::{Backfill, DeadLetterPage, EventPage, EventQuery, History};
use turnpike_domain::problem::Problem;

use crate::Aggregator;

pub(crate) use seen::Seen;

impl History for Aggregator {
    fn events(&self, tenant: TenantId, query: EventQuery) -> BoxFuture<'_, Result<EventPage, Problem>> {
        Box::pin(self.read_events(tenant, query))
    }

    fn dead_letters(
        &self,
        tenant: TenantId,
        limit: usize,
        cursor: Option<String>,
    ) -> BoxFuture<'_, Result<DeadLetterPage, Problem>> {
        Box::pin(self.read_dead_letters(tenant, limit, cursor))
    }

    fn backfill(&self, tenant: TenantId, meter: &str) -> Option<Backfill> {
        let catalog = self.shared.directory.catalog(tenant);
        catalog.meters.get(meter).map(|meter| self.extent_of(meter.id))
    }
}
