use std::sync::Arc;

use turnpike_domain::identity::{EventName, TenantId};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::record::{Record, decode};
use turnpike_domain::time::Timestamp;

use crate::Enforcer;
use crate::consume::QUOTA_SOURCE;
use crate::hold::{Hold, HoldDraft};
use crate::known;
use crate::reservations::Reservation;
use crate::reserve::Found;

/// Reservations that are expired in one go before other tenants have their turn.
const EXPIRE_MAX: usize = 1_000;

impl Enforcer {
    /// Takes in a reservation that the log has: holds its amount, whatever the limits say now.
    pub(crate) fn adopt(&self, reservation: Reservation) -> Arc<Reservation> {
        let hold = self.hold_again(&reservation);
        self.reservations.insert(Reservation { hold, ..reservation })
    }

    fn hold_again(&self, reservation: &Reservation) -> Option<Arc<Hold>> {
        let (tenant, directory) = (reservation.tenant, &*self.parts.directory);
        let catalog = directory.catalog(tenant);
        let feature = catalog.features.get(&reservation.feature)?;
        let meter = catalog.meters.get(feature.meter.as_deref()?)?;
        let customer = directory.customer(tenant, &reservation.customer)?;
        let subject = customer.subjects.first().unwrap_or(&customer.key);
        let hold = self.book.enter(HoldDraft {
            tenant,
            feature: reservation.feature.as_str().into(),
            meter: meter.id,
            subject: subject.as_str().into(),
            reserved_by: Some(reservation.customer.as_str().into()),
            time: reservation.made,
            amount: reservation.amount.parts(),
        });
        self.attach_to_live_slots(&hold);
        Some(hold)
    }

    /// Takes in the open reservations of a start.
    pub(crate) fn restore(&self, open: &[Vec<u8>]) -> Result<(), Problem> {
        for bytes in open {
            let Record::Reserved(record) = decode(bytes)? else {
                return Err(Problem::new(
                    Code::Internal,
                    "an open reservation is another kind of record",
                ));
            };
            let name = self
                .parts
                .key
                .name(TenantId(record.tenant), QUOTA_SOURCE, record.id);
            self.adopt(known::owned(&record, name, None)?);
        }
        tracing::info!(reservations = open.len(), "open reservations were restored");
        Ok(())
    }

    /// Expires what is due of all tenants, each by its own clock.
    pub(crate) async fn expire_due(&self) -> Result<(), Problem> {
        for tenant in self.reservations.tenants() {
            self.expire(tenant, self.parts.clock.now(tenant)).await?;
        }
        Ok(())
    }

    /// Expires the tenant's reservations that end at or before `now`.
    pub(crate) async fn expire(&self, tenant: TenantId, now: Timestamp) -> Result<(), Problem> {
        loop {
            let due = self.reservations.due(tenant, now, EXPIRE_MAX);
            if due.is_empty() {
                return Ok(());
            }
            for name in due {
                self.expire_one(name).await?;
            }
        }
    }

    async fn expire_one(&self, name: EventName) -> Result<(), Problem> {
        let _turn = self.in_flight.enter(name).await;
        let Some(open) = self.reservations.get(name) else {
            return Ok(());
        };
        let found = match self.find(&open.id, name).await {
            // It was never written.
            Err(problem) if problem.code == Code::NotFound => return Ok(()),
            found => found?,
        };
        match found {
            Found::Open(open, at) => match self.close(&open, at, open.expires, true).await {
                // Its newest record is another one: it is no longer open, and was forgotten.
                Err(_) if self.reservations.get(name).is_none() => Ok(()),
                closed => closed.map(drop),
            },
            Found::Past(_) => {
                // The log says it ended, though its call was cut off before it could say so here.
                self.forget(&open);
                Ok(())
            }
        }
    }
}
