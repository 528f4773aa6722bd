use std::sync::Arc;

use turnpike_domain::identity::{EventName, TenantId};
use turnpike_domain::port::intake::Known;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::quota::Reason;
use turnpike_domain::record::{EventRecord, GrantRecord, Position, Record, ReservationRecord, decode};
use turnpike_domain::time::Timestamp;

use crate::reservations::Reservation;

/// What the newest record of a quota id says.
pub(crate) enum Past {
    /// A consume, or a commit, was granted.
    Granted(PastGrant),
    /// A reservation is open.
    Open(Box<Reservation>),
    /// A reservation was released, or expired.
    Closed {
        expired: bool,
        at: Position,
        reservation: Arc<Reservation>,
    },
    /// A reservation was committed.
    Committed {
        grant: PastGrant,
        /// The hash of what was reserved.
        reserved: u64,
        /// How much was reserved, in parts of 10⁻¹²: what a commit without an amount asks for.
        reserved_amount: i128,
        expires: Timestamp,
    },
    /// An event that no decision made.
    Foreign,
}

/// A decision that was granted before.
pub(crate) struct PastGrant {
    pub(crate) customer: String,
    pub(crate) feature: String,
    pub(crate) reason: Reason,
    pub(crate) digest: u64,
    /// Parts of 10⁻¹².
    pub(crate) amount: i128,
}

impl PastGrant {
    fn of(grant: &GrantRecord<'_>) -> Self {
        Self {
            customer: grant.customer.to_owned(),
            feature: grant.feature.to_owned(),
            reason: Reason::parse(grant.reason).unwrap_or(Reason::WithinLimit),
            digest: grant.body_digest,
            amount: grant.amount,
        }
    }
}

pub(crate) fn read(known: &Known, name: EventName) -> Result<Past, Problem> {
    let event = |event: &EventRecord<'_>| {
        event
            .grant
            .as_ref()
            .map_or(Past::Foreign, |grant| Past::Granted(PastGrant::of(grant)))
    };
    Ok(match decode(&known.record)? {
        Record::Event(one) => event(&one),
        Record::Void { before, .. } | Record::Amend { before, .. } => {
            match known.first.as_deref().map(decode) {
                Some(Ok(Record::Committed { reservation, .. })) => committed(&reservation, &before),
                // Without the first record it cannot be told from a consume: it lies before the horizon of retention.
                _ => event(&before),
            }
        }
        Record::Reserved(one) => Past::Open(Box::new(owned(&one, name, Some(known))?)),
        Record::Released {
            expired, reservation, ..
        } => Past::Closed {
            expired,
            at: known.position,
            reservation: Arc::new(owned(&reservation, name, Some(known))?),
        },
        Record::Committed { reservation, event } => committed(&reservation, &event),
        Record::Rejected(_) | Record::Resolved { .. } => {
            return Err(Problem::new(
                Code::Internal,
                "a quota id leads to a record that is no decision",
            ));
        }
    })
}

fn committed(reservation: &ReservationRecord<'_>, event: &EventRecord<'_>) -> Past {
    let grant = event.grant.unwrap_or(reservation.grant);
    Past::Committed {
        grant: PastGrant::of(&grant),
        reserved: reservation.grant.body_digest,
        reserved_amount: reservation.grant.amount,
        expires: Timestamp::from_micros_clamped(reservation.expires_us),
    }
}

/// A reservation as its record has it, without its hold.
pub(crate) fn owned(
    record: &ReservationRecord<'_>,
    name: EventName,
    known: Option<&Known>,
) -> Result<Reservation, Problem> {
    let amount = Quantity::from_parts(record.grant.amount)
        .map_err(|_| Problem::new(Code::Internal, "a reservation's amount is out of range"))?;
    Ok(Reservation {
        tenant: TenantId(record.tenant),
        name,
        id: record.id.to_owned(),
        customer: record.grant.customer.to_owned(),
        feature: record.grant.feature.to_owned(),
        amount,
        properties: record.properties.to_owned(),
        reason: record.grant.reason.to_owned(),
        digest: record.grant.body_digest,
        made: Timestamp::from_micros_clamped(record.made_us),
        expires: Timestamp::from_micros_clamped(record.expires_us),
        position: known.map(|known| known.position),
        hold: None,
    })
}
