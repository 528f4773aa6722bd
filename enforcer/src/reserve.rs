use std::sync::Arc;

use turnpike_domain::identity::{EventName, TenantId};
use turnpike_domain::limits::{RESERVATION_TTL_S_MAX, RESERVATIONS_OPEN_MAX};
use turnpike_domain::port::intake::{Expect, QuotaOutcome};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quota::Reason;
use turnpike_domain::record::{Position, Record};
use turnpike_domain::time::Timestamp;

use crate::Enforcer;
use crate::consume::{Asked, Attempt, Consume, QUOTA_SOURCE, conflict};
use crate::decide::Taking;
use crate::entry::Entry;
use crate::hold::Hold;
use crate::known::{self, Past};
use crate::outcome::Outcome;
use crate::reservations::Reservation;
use crate::tally::Call;

/// Reservations that are looked at between two others' turns while a list is made.
const LISTED_AT_ONCE: usize = 1_000;

impl Enforcer {
    /// Holds an amount for `ttl_s` seconds, durably, once per id.
    pub(crate) async fn reserve(&self, call: Consume<'_>, ttl_s: u32) -> Result<Outcome, Problem> {
        if !(1..=RESERVATION_TTL_S_MAX).contains(&ttl_s) {
            return Err(Problem::invalid(
                "/ttl_s",
                format!("must be 1 to {RESERVATION_TTL_S_MAX}"),
            ));
        }
        let Asked { tenant, amount, .. } = call.asked;
        let (entry, writer) = self.prepare_call(&call)?;
        // What its commit will write must be countable: said now, not then.
        writer.data(call.properties, amount)?;
        let digest = self.digest("reserve", &call, &[&ttl_s.to_le_bytes()])?;
        let name = self.parts.key.name(tenant, QUOTA_SOURCE, call.id);
        let _turn = self.in_flight.enter(name).await;
        if let Some(known) = self.lookup(name).await? {
            match known::read(&known, name)? {
                Past::Closed { .. } => {}
                past => return self.reserved_before(&entry, past, digest).await,
            }
        }
        if let Some(unwritten) = self.reservations.get(name) {
            self.forget(&unwritten);
        }
        if self.reservations.len() >= RESERVATIONS_OPEN_MAX {
            return Err(Problem::new(
                Code::Overloaded,
                "too many reservations are open; commit or release some",
            ));
        }
        let now = self.parts.clock.now(tenant);
        let (resolved, hold, reason) = match self.attempt(&entry, amount, now, Taking::Reservation).await? {
            Attempt::Granted {
                resolved,
                hold,
                reason,
            } => (resolved, hold, reason),
            Attempt::Refused(resolved, outcome) => {
                self.tally.count(Call::Reserve, outcome.reason);
                return self.with_options(&entry, &resolved, amount, *outcome).await;
            }
        };
        let reservation = reservation(&call, name, digest, (now, ttl_s), (reason, hold));
        let record = Record::Reserved(reservation.record());
        let written = self.write(name, digest, &record, Expect::Free, None).await;
        let position = match written {
            Ok(QuotaOutcome::Written(position)) => position,
            Ok(QuotaOutcome::Occupied(known)) => {
                drop(reservation);
                return self
                    .reserved_before(&entry, known::read(&known, name)?, digest)
                    .await;
            }
            Err(problem) => self.after_failure(&reservation, problem).await?,
        };
        let kept = self.reservations.insert(Reservation {
            position: Some(position),
            ..reservation
        });
        self.tally.count(Call::Reserve, reason);
        let outcome = Outcome::granted(&entry, &resolved, reason, now);
        Ok(outcome.with_reservation(&kept.id, "open", kept.expires))
    }

    /// Whether a reservation was written though its call failed: its position then. Where that cannot be found out it
    /// stays held, until its id is used again or it expires.
    async fn after_failure(&self, reservation: &Reservation, problem: Problem) -> Result<Position, Problem> {
        match self.lookup(reservation.name).await {
            Ok(Some(known)) => match known::read(&known, reservation.name)? {
                Past::Open(open) if open.digest == reservation.digest => Ok(known.position),
                _ => Err(problem),
            },
            Ok(None) => Err(problem),
            Err(_) => {
                self.reservations.insert(reservation.clone());
                Err(problem)
            }
        }
    }

    async fn reserved_before(&self, entry: &Arc<Entry>, past: Past, digest: u64) -> Result<Outcome, Problem> {
        match past {
            Past::Open(open) if open.digest == digest => {
                if self.reservations.get(open.name).is_none() {
                    self.adopt(Reservation::clone(&open));
                }
                let now = self.parts.clock.now(entry.tenant);
                let resolved = self.resolve(entry, now).await?;
                let reason = Reason::parse(&open.reason).unwrap_or(Reason::WithinLimit);
                let outcome = Outcome::granted(entry, &resolved, reason, now);
                Ok(outcome.with_reservation(&open.id, "open", open.expires))
            }
            Past::Committed { reserved, .. } if reserved == digest => Err(Problem::new(
                Code::ReservationClosed,
                "this reservation was committed before",
            )),
            _ => Err(conflict()),
        }
    }

    /// The reservations of a tenant that hold something now, those that end first before the others, from behind a place in
    /// that order on: at most `most` of those that are wanted.
    pub(crate) fn open_reservations(
        &self,
        tenant: TenantId,
        after: Option<(Timestamp, EventName)>,
        wants: &dyn Fn(&Reservation) -> bool,
        most: usize,
    ) -> Vec<Arc<Reservation>> {
        let ended = (self.parts.clock.now(tenant), EventName(u128::MAX));
        let mut place = after.map_or(ended, |after| after.max(ended));
        let mut found = Vec::new();
        while found.len() < most {
            let next = self.reservations.after(tenant, place, LISTED_AT_ONCE);
            let Some(last) = next.last() else { break };
            place = *last;
            // One that was closed in between is gone.
            let open = next
                .into_iter()
                .filter_map(|(_, name)| self.reservations.get(name));
            found.extend(open.filter(|one| wants(one)).take(most - found.len()));
        }
        found
    }

    /// Gives a reservation back. Repeating it, and releasing what has expired, is fine.
    pub(crate) async fn release(&self, tenant: TenantId, id: &str) -> Result<Outcome, Problem> {
        let name = self.parts.key.name(tenant, QUOTA_SOURCE, id);
        let _turn = self.in_flight.enter(name).await;
        let now = self.parts.clock.now(tenant);
        let (reservation, expired) = match self.find(id, name).await? {
            Found::Open(open, at) => {
                let expired = open.expires <= now;
                self.close(&open, at, now.min(open.expires), expired).await?;
                (open, expired)
            }
            Found::Past(Past::Closed {
                expired, reservation, ..
            }) => (reservation, expired),
            Found::Past(Past::Committed { .. }) => {
                return Err(Problem::new(
                    Code::ReservationClosed,
                    "this reservation was committed before",
                ));
            }
            Found::Past(_) => return Err(Problem::not_found("reservation", id)),
        };
        let reason = Reason::parse(&reservation.reason).unwrap_or(Reason::WithinLimit);
        let of = (&*reservation.customer, &*reservation.feature);
        let outcome = self.written(tenant, of, reason, now).await?;
        let status = if expired { "expired" } else { "released" };
        Ok(outcome.with_reservation(id, status, reservation.expires))
    }

    /// Ends a reservation without usage: durable first, then given back.
    pub(crate) async fn close(
        &self,
        open: &Arc<Reservation>,
        at: Position,
        when: Timestamp,
        expired: bool,
    ) -> Result<Position, Problem> {
        let record = Record::Released {
            at_us: when.micros(),
            expired,
            reservation: open.record(),
        };
        match self
            .write(open.name, open.digest, &record, Expect::At(at), None)
            .await?
        {
            QuotaOutcome::Written(position) => {
                self.forget(open);
                let how = if expired { "expired" } else { "released" };
                metrics::counter!("turnpike_quota_reservations_closed_total", "how" => how).increment(1);
                Ok(position)
            }
            QuotaOutcome::Occupied(_) => {
                self.forget(open);
                Err(changed_meanwhile())
            }
        }
    }

    /// Drops a reservation of which the log says that it is no longer open, with what it still holds.
    pub(crate) fn forget(&self, reservation: &Reservation) {
        self.reservations.remove(reservation);
        if let Some(hold) = &reservation.hold {
            hold.give_back();
        }
    }

    pub(crate) async fn find(&self, id: &str, name: EventName) -> Result<Found, Problem> {
        self.connected()?;
        let open = self.reservations.get(name);
        if let Some((open, at)) = open.as_ref().and_then(|open| Some((open, open.position?))) {
            return Ok(Found::Open(open.clone(), at));
        }
        let Some(known) = self.lookup(name).await? else {
            if let Some(unwritten) = open {
                self.forget(&unwritten);
            }
            return Err(Problem::not_found("reservation", id));
        };
        Ok(match (known::read(&known, name)?, open) {
            (Past::Open(_), Some(open)) => Found::Open(open, known.position),
            // Written, but not entered here: its call was cut off.
            (Past::Open(found), None) => Found::Open(self.adopt(*found), known.position),
            (past, _) => Found::Past(past),
        })
    }
}

/// A reservation that was granted for `reason` at an instant, for a number of seconds, and is not written yet.
fn reservation(
    call: &Consume<'_>,
    name: EventName,
    digest: u64,
    (made, ttl_s): (Timestamp, u32),
    (reason, hold): (Reason, Arc<Hold>),
) -> Reservation {
    Reservation {
        tenant: call.asked.tenant,
        name,
        id: call.id.to_owned(),
        customer: call.asked.customer.to_owned(),
        feature: call.asked.feature.to_owned(),
        amount: call.asked.amount,
        properties: call.properties.to_owned(),
        reason: reason.as_str().to_owned(),
        digest,
        made,
        expires: made.plus_micros(i64::from(ttl_s) * 1_000_000),
        position: None,
        hold: Some(hold),
    }
}

/// Where a reservation stands.
pub(crate) enum Found {
    /// Open, with the position of its record.
    Open(Arc<Reservation>, Position),
    /// Anything else.
    Past(Past),
}

pub(crate) fn changed_meanwhile() -> Problem {
    Problem::new(
        Code::Unavailable,
        "the reservation changed in the same moment; try again",
    )
}
