//! What the log holds: one enum with stable ordinals, positions, and the codec.
//!
//! The order of [`Record`]'s variants and of the fields is the persisted format: only append, never reorder.
//! Bytes are bincode 2, standard configuration (little-endian, variable-length integers). The version stands in the
//! header of the log's blocks, so that the codec can be replaced.

use bincode::{BorrowDecode, Encode};

use crate::identity::TenantId;
use crate::problem::{Code, Problem};
use crate::time::Timestamp;

/// The `source` of events that the quota engine makes, and of the names of its reservations.
pub const QUOTA_SOURCE: &str = "turnpike:quota";

/// Where a record stands in the log: (byte offset of its block) × 2¹⁶ + (index in its block).
///
/// Offsets count through all segments, so positions of one log are totally ordered.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Before every record.
    pub const START: Self = Self(0);

    /// The position of record `index` in the block at `offset`.
    pub const fn new(offset: u64, index: u16) -> Self {
        Self(offset << 16 | index as u64)
    }

    /// The byte offset of the block.
    pub const fn offset(self) -> u64 {
        self.0 >> 16
    }

    /// The index in the block.
    pub const fn index(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

/// What a view contains: for each partition the position behind its last contained record.
/// As text: the positions, joined by commas.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Watermark(pub Vec<Position>);

impl Watermark {
    /// Whether the record at `position` of `partition` is contained.
    pub fn contains(&self, partition: u32, position: Position) -> bool {
        self.0
            .get(partition as usize)
            .is_some_and(|behind| position < *behind)
    }

    /// The highest position of all partitions.
    pub fn highest(&self) -> Position {
        self.0.iter().copied().max().unwrap_or_default()
    }
}

impl std::fmt::Display for Watermark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, position) in self.0.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { "," }, position.0)?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Watermark {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',')
            .map(|part| part.parse().map(Position))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// An event as it is kept. Texts are borrowed from the buffer that it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub struct EventRecord<'a> {
    /// Number of the tenant.
    pub tenant: u32,
    /// CloudEvents `source`.
    pub source: &'a str,
    /// CloudEvents `id`.
    pub id: &'a str,
    /// CloudEvents `type`.
    pub kind: &'a str,
    /// CloudEvents `subject`.
    pub subject: &'a str,
    /// Microseconds since 1970: the time that the event counts for.
    pub time_us: i64,
    /// Whether the caller sent the time (else it is the time of receipt).
    pub time_sent: bool,
    /// Microseconds since 1970 at receipt.
    pub received_us: i64,
    /// The `data` object as JSON text; `{}` when none was sent.
    pub data: &'a str,
    /// Other attributes of the CloudEvent as a JSON object; empty when there are none.
    pub extensions: &'a str,
    /// The decision that granted it, for an event made by the quota engine.
    pub grant: Option<GrantRecord<'a>>,
}

/// The decision behind a granted event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub struct GrantRecord<'a> {
    /// The customer that asked.
    pub customer: &'a str,
    /// The feature asked for.
    pub feature: &'a str,
    /// Parts of 10⁻¹² that were granted.
    pub amount: i128,
    /// The reason that was answered.
    pub reason: &'a str,
    /// Hash of the request's body, for telling a repeat from a conflict.
    pub body_digest: u64,
}

/// An amount of quota held for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub struct ReservationRecord<'a> {
    /// Number of the tenant.
    pub tenant: u32,
    /// The caller's id of the reservation.
    pub id: &'a str,
    /// When it was granted, microseconds since 1970.
    pub made_us: i64,
    /// When it ends by itself, microseconds since 1970.
    pub expires_us: i64,
    /// The `properties` for the event of its commit, as JSON text.
    pub properties: &'a str,
    /// The decision.
    pub grant: GrantRecord<'a>,
}

/// An event that was refused, kept with its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub struct RejectedRecord<'a> {
    /// Number of the tenant.
    pub tenant: u32,
    /// Microseconds since 1970 at receipt.
    pub received_us: i64,
    /// Slug of the error code.
    pub code: &'a str,
    /// What was wrong.
    pub detail: &'a str,
    /// The id, where it could be read.
    pub id: &'a str,
    /// The first bytes of what was sent.
    pub raw: &'a [u8],
    /// Whether `raw` was cut.
    pub cut: bool,
}

/// A record of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Record<'a> {
    /// 0: an accepted event.
    Event(EventRecord<'a>),
    /// 1: an event was taken back.
    Void {
        /// When, microseconds since 1970.
        at_us: i64,
        /// Position of the event's first record.
        first: u64,
        /// The event as it counted until now.
        before: EventRecord<'a>,
    },
    /// 2: an event's data or time was replaced.
    Amend {
        /// When, microseconds since 1970.
        at_us: i64,
        /// Position of the event's first record.
        first: u64,
        /// The event as it counted until now.
        before: EventRecord<'a>,
        /// The event as it counts from now on.
        after: EventRecord<'a>,
    },
    /// 3: an event was refused.
    Rejected(RejectedRecord<'a>),
    /// 4: quota was reserved.
    Reserved(ReservationRecord<'a>),
    /// 5: a reservation was released, or expired, without a commit.
    Released {
        /// When, microseconds since 1970.
        at_us: i64,
        /// Whether it ended by its time to live.
        expired: bool,
        /// The reservation.
        reservation: ReservationRecord<'a>,
    },
    /// 6: a reservation was committed as this event.
    Committed {
        /// The reservation.
        reservation: ReservationRecord<'a>,
        /// The event that counts.
        event: EventRecord<'a>,
    },
    /// 7: a refused event was replayed with success, or dismissed.
    Resolved {
        /// Number of the tenant.
        tenant: u32,
        /// Position of the `Rejected` record.
        rejected: u64,
    },
}

impl Record<'_> {
    /// The tenant that the record belongs to.
    pub fn tenant(&self) -> TenantId {
        TenantId(match self {
            Self::Event(event) | Self::Void { before: event, .. } | Self::Amend { before: event, .. } => {
                event.tenant
            }
            Self::Rejected(rejected) => rejected.tenant,
            Self::Reserved(reservation)
            | Self::Released { reservation, .. }
            | Self::Committed { reservation, .. } => reservation.tenant,
            Self::Resolved { tenant, .. } => *tenant,
        })
    }
}

impl EventRecord<'_> {
    /// The time that the event counts for.
    pub const fn time(&self) -> Timestamp {
        Timestamp::from_micros_clamped(self.time_us)
    }
}

/// Appends the bytes of `record` to `out`.
pub fn encode(record: &Record<'_>, out: &mut Vec<u8>) {
    // Writing to a vector cannot fail, and no field has an encoding that can.
    let written = bincode::encode_into_std_write(record, out, bincode::config::standard());
    debug_assert!(written.is_ok());
}

/// Reads a record from exactly `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, Problem> {
    match bincode::borrow_decode_from_slice(bytes, bincode::config::standard()) {
        Ok((record, read)) if read == bytes.len() => Ok(record),
        Ok(_) => Err(Problem::new(
            Code::Internal,
            "a record of the log has bytes behind its end",
        )),
        Err(error) => Err(Problem::new(
            Code::Internal,
            format!("a record of the log cannot be read: {error}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_survive_the_codec(
            texts in prop::collection::vec(".{0,40}", 6), time_us in any::<i64>(), amount in any::<i128>(), sent in any::<bool>(),
        ) {
            let grant = GrantRecord { customer: &texts[0], feature: &texts[1], amount, reason: "within_limit", body_digest: 7 };
            let event = EventRecord {
                tenant: 3, source: &texts[0], id: &texts[1], kind: &texts[2], subject: &texts[3], time_us, time_sent: sent,
                received_us: 5, data: &texts[4], extensions: &texts[5], grant: sent.then_some(grant),
            };
            for record in [Record::Event(event), Record::Amend { at_us: time_us, first: 9, before: event, after: event }] {
                let mut bytes = Vec::new();
                encode(&record, &mut bytes);
                prop_assert_eq!(decode(&bytes).unwrap(), record);
                bytes.push(0);
                prop_assert!(decode(&bytes).is_err());
            }
        }
    }
}
