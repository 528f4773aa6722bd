//! What a partition adds up, record by record: the same code for live events, replay, backfill and rebuild.

use turnpike_domain::event::payload_digest;
use turnpike_domain::identity::{EventName, NameKey, TenantId};
use turnpike_domain::meter::aggregate::{Sample, SampleValue};
use turnpike_domain::meter::{Aggregation, Fields, Meter, Readers, Reading, Unreadable};
use turnpike_domain::port::intake::Hold;
use turnpike_domain::port::usage::UsageChange;
use turnpike_domain::port::views::IdEntry;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::record::{EventRecord, Position, QUOTA_SOURCE, Record, ReservationRecord, encode};
use turnpike_domain::time::Timestamp;

use crate::rows::key;
use crate::windows::{Memory, SubjectAt};

/// The digest of a name whose newest record is a released reservation: the name is free again. A payload with this
/// digest is told apart by its record.
pub(crate) const FREE_DIGEST: u64 = 0;

/// What an added record changes, for the listener.
pub(crate) type Changes<'r> = Vec<UsageChange<'r>>;

/// Adds records to memory.
pub(crate) struct Adder<'m> {
    pub memory: &'m mut Memory,
    pub fields: &'m mut Fields,
    pub group: &'m mut Vec<u8>,
    pub key: NameKey,
    /// The place of the record's subject, where it is known already.
    pub subject: Option<SubjectAt>,
}

impl Adder<'_> {
    /// Adds all that `record` means to the meters of `readers`.
    pub(crate) fn record<'r>(
        &mut self,
        readers: Option<&Readers>,
        position: Position,
        record: &Record<'r>,
        hold: Option<&'r Hold>,
        changes: &mut Changes<'r>,
    ) {
        let mut event = |adder: &mut Self, event: &EventRecord<'r>, first: u64, taken_back: bool| {
            adder.event(readers, (event, first, taken_back), hold, changes);
        };
        match record {
            Record::Event(new) => event(self, new, position.0, false),
            Record::Void { first, before, .. } => event(self, before, *first, true),
            Record::Amend {
                first, before, after, ..
            } => {
                event(self, before, *first, true);
                event(self, after, *first, false);
            }
            Record::Committed { event: new, .. } => event(self, new, position.0, false),
            Record::Rejected(_) | Record::Reserved(_) | Record::Released { .. } | Record::Resolved { .. } => {
            }
        }
    }

    /// Adds the notes of `record`: open reservations and refused events.
    pub(crate) fn notes(&mut self, position: Position, record: &Record<'_>) {
        match record {
            Record::Reserved(reservation) => self.reservation(reservation, 1),
            Record::Released { reservation, .. } | Record::Committed { reservation, .. } => {
                self.reservation(reservation, -1);
            }
            Record::Rejected(rejected) => {
                let key = key::refused(TenantId(rejected.tenant), position.0);
                self.memory.note(key, Vec::new(), 1);
            }
            Record::Resolved { tenant, rejected } => {
                let key = key::refused(TenantId(*tenant), *rejected);
                self.memory.note(key, Vec::new(), -1);
            }
            Record::Event(_) | Record::Void { .. } | Record::Amend { .. } => {}
        }
    }

    fn reservation(&mut self, reservation: &ReservationRecord<'_>, by: i64) {
        let tenant = TenantId(reservation.tenant);
        let name = self.key.name(tenant, QUOTA_SOURCE, reservation.id);
        let mut note = Vec::new();
        encode(&Record::Reserved(*reservation), &mut note);
        self.memory.note(key::reservation(tenant, name), note, by);
    }

    fn event<'r>(
        &mut self,
        readers: Option<&Readers>,
        (event, first, taken_back): (&EventRecord<'r>, u64, bool),
        hold: Option<&'r Hold>,
        changes: &mut Changes<'r>,
    ) {
        let Some(reader) = readers.and_then(|readers| readers.of(event.kind)) else {
            return;
        };
        let tenant = TenantId(event.tenant);
        let (memory, group) = (&mut *self.memory, &mut *self.group);
        let mut subject = self.subject;
        reader.read(event, self.fields, |meter, reading| match reading {
            Ok(reading) => {
                group.clear();
                for text in reading.group() {
                    key::put_text(group, &text);
                }
                let subject = *subject.get_or_insert_with(|| memory.subject(tenant, event.subject));
                if memory
                    .add(subject, meter, group, &reading.sample, taken_back)
                    .is_err()
                {
                    // A reading is always of its meter's kind; were it not, the count tells.
                    metrics::counter!("turnpike_defects_total", "what" => "cell_kind").increment(1);
                }
                count_rounded(&reading);
                changes.extend(change(event, meter, &reading.sample, taken_back, hold));
            }
            Err(reason) => unreadable(memory, (tenant, first, taken_back), meter, reason),
        });
    }
}

fn count_rounded(reading: &Reading<'_, '_>) {
    if reading.rounded {
        metrics::counter!("turnpike_meter_values_rounded_total").increment(1);
    }
}

fn unreadable(memory: &mut Memory, what: (TenantId, u64, bool), meter: &Meter, reason: Unreadable) {
    let (tenant, first, taken_back) = what;
    metrics::counter!("turnpike_meter_values_unreadable_total").increment(1);
    let key = key::unreadable(tenant, first, meter.id);
    memory.note(
        key,
        reason.to_string().into_bytes(),
        if taken_back { -1 } else { 1 },
    );
}

fn change<'r>(
    event: &EventRecord<'r>,
    meter: &Meter,
    sample: &Sample<'_>,
    taken_back: bool,
    hold: Option<&'r Hold>,
) -> Option<UsageChange<'r>> {
    let amount = match (meter.aggregation, &sample.value) {
        (Aggregation::Count, _) => Quantity::ONE,
        (Aggregation::Sum, SampleValue::Number(value)) => *value,
        _ => return None,
    };
    Some(UsageChange {
        tenant: TenantId(event.tenant),
        meter: meter.id,
        subject: event.subject,
        time: Timestamp::from_micros_clamped(sample.time_us),
        amount: if taken_back { amount.negated() } else { amount },
        hold,
    })
}

/// What a record leaves in the id store. `first` finds the digest of the name's first payload.
pub(crate) fn id_entry(
    key: &NameKey,
    position: Position,
    record: &Record<'_>,
    first: impl FnOnce(EventName) -> Option<u64>,
) -> Option<(EventName, IdEntry)> {
    let event_name = |event: &EventRecord<'_>| key.name(TenantId(event.tenant), event.source, event.id);
    let quota_name = |r: &ReservationRecord<'_>| key.name(TenantId(r.tenant), QUOTA_SOURCE, r.id);
    let (name, digest) = match record {
        Record::Event(event) => (event_name(event), payload_digest(key, event)),
        Record::Void { before, .. } | Record::Amend { before, .. } => {
            let name = event_name(before);
            (name, first(name).unwrap_or_else(|| payload_digest(key, before)))
        }
        Record::Reserved(reservation) => (quota_name(reservation), quota_digest(key, reservation)),
        Record::Committed { reservation, .. } => (quota_name(reservation), quota_digest(key, reservation)),
        Record::Released { reservation, .. } => (quota_name(reservation), FREE_DIGEST),
        Record::Rejected(_) | Record::Resolved { .. } => return None,
    };
    Some((name, IdEntry { digest, position }))
}

fn quota_digest(key: &NameKey, reservation: &ReservationRecord<'_>) -> u64 {
    key.digest(&[b"grant", &reservation.grant.body_digest.to_le_bytes()])
}

/// The times of the events that a record adds or takes back, for skipping blocks.
pub(crate) fn times(record: &Record<'_>) -> Option<(i64, i64)> {
    match record {
        Record::Event(event) | Record::Void { before: event, .. } | Record::Committed { event, .. } => {
            Some((event.time_us, event.time_us))
        }
        Record::Amend { before, after, .. } => Some((
            before.time_us.min(after.time_us),
            before.time_us.max(after.time_us),
        )),
        Record::Rejected(_) | Record::Reserved(_) | Record::Released { .. } | Record::Resolved { .. } => None,
    }
}
