use turnpike_domain::event::same_meaning;
use turnpike_domain::identity::{EventName, TenantId};
use turnpike_domain::port::intake::{Correction, Rejection};
use turnpike_domain::port::views::IdEntry;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::record::{EventRecord, Position, Record, RejectedRecord, decode, encode};
use turnpike_domain::time::Timestamp;

use super::Owner;
use super::command::Newest;
use super::write::Draft;
use crate::core::Changes;
use crate::rows::{add_counts, counts, key};

/// An event as it stands.
enum Standing<'r> {
    /// It counts like this; its first record is at this position.
    Counts(Box<EventRecord<'r>>, u64),
    Voided,
    /// The name is not an event's.
    NoEvent,
}

fn standing<'r>(record: &Record<'r>, position: Position) -> Standing<'r> {
    match record {
        Record::Event(event) | Record::Committed { event, .. } => {
            Standing::Counts(Box::new(*event), position.0)
        }
        Record::Amend { first, after, .. } => Standing::Counts(Box::new(*after), *first),
        Record::Void { .. } => Standing::Voided,
        _ => Standing::NoEvent,
    }
}

impl Owner {
    /// Voids or amends an event. A repeat changes nothing and answers with the newest record.
    pub(super) fn correct(
        &mut self,
        name: EventName,
        change: &Correction,
        at: Timestamp,
    ) -> Result<Option<Newest>, Problem> {
        let Some(entry) = self.probe(name)? else {
            return Ok(None);
        };
        let newest = crate::intake::kept(self.shared.log.as_ref(), entry.position)?;
        let (current, first) = match standing(&decode(&newest)?, entry.position) {
            Standing::Counts(event, first) => (*event, first),
            Standing::NoEvent => return Ok(None),
            Standing::Voided if *change == Correction::Void => {
                return Ok(Some(Newest {
                    entry,
                    record: newest,
                }));
            }
            Standing::Voided => {
                return Err(Problem::new(
                    Code::EventVoided,
                    "the event was voided and takes no amendments",
                ));
            }
        };
        let at_us = at.micros();
        let record = match change {
            Correction::Void => Record::Void {
                at_us,
                first,
                before: current,
            },
            Correction::Amend { data, time } => {
                let after = EventRecord {
                    data: data.as_deref().unwrap_or(current.data),
                    time_us: time.map_or(current.time_us, Timestamp::micros),
                    ..current
                };
                if counts_the_same(&current, &after) {
                    return Ok(Some(Newest {
                        entry,
                        record: newest,
                    }));
                }
                Record::Amend {
                    at_us,
                    first,
                    before: current,
                    after,
                }
            }
        };
        let (position, record) = self.write(&record, Some((name, entry.digest)), None)?;
        let entry = IdEntry { position, ..entry };
        Ok(Some(Newest { entry, record }))
    }

    /// Keeps refused events.
    pub(super) fn reject(&mut self, rejections: &[Rejection]) -> Result<Vec<Position>, Problem> {
        self.check_sound()?;
        let records: Vec<Record<'_>> = rejections.iter().map(|r| Record::Rejected(rejected(r))).collect();
        let mut draft = Draft::new(self.number);
        let mut bytes = Vec::new();
        for record in &records {
            bytes.clear();
            encode(record, &mut bytes);
            draft.push(&bytes, None);
        }
        let positions = self.append(draft, None)?;
        let mut changes = Changes::new();
        for (position, record) in positions.iter().zip(&records) {
            self.add(*position, record, (None, None), &mut changes);
        }
        Ok(positions)
    }

    /// Marks a refused event as dealt with. Returns the position of the record that says so.
    pub(super) fn resolve(&mut self, tenant: TenantId, rejected: Position) -> Result<Position, Problem> {
        self.check_sound()?;
        let key = key::refused(tenant, rejected.0);
        if self.noted(&key)? == 0 {
            return Err(Problem::not_found("open dead letter", &rejected.0.to_string()));
        }
        let record = Record::Resolved {
            tenant: tenant.0,
            rejected: rejected.0,
        };
        Ok(self.write(&record, None, None)?.0)
    }

    /// The count of the empty note under `key`.
    fn noted(&self, key: &[u8]) -> Result<i64, Problem> {
        let mut end = key.to_vec();
        end.push(0);
        let range = key.to_vec()..end;
        let mut sum = crate::rows::Counts::new();
        for memory in [Some(&self.memory), self.frozen.as_deref()].into_iter().flatten() {
            memory
                .notes(range.clone())
                .for_each(|(_, more)| add_counts(&mut sum, more));
        }
        for row in self.rows.scan(range) {
            add_counts(&mut sum, &counts(&row?.value)?);
        }
        Ok(sum.values().sum())
    }
}

/// Whether an amendment would change nothing. What a grant was asked for does not matter here, only what counts.
fn counts_the_same(current: &EventRecord<'_>, after: &EventRecord<'_>) -> bool {
    fn bare<'e>(event: &EventRecord<'e>) -> EventRecord<'e> {
        EventRecord {
            time_sent: true,
            grant: None,
            ..*event
        }
    }
    same_meaning(&bare(current), &bare(after))
}

fn rejected(rejection: &Rejection) -> RejectedRecord<'_> {
    RejectedRecord {
        tenant: rejection.tenant.0,
        received_us: rejection.received.micros(),
        code: &rejection.code,
        detail: &rejection.detail,
        id: &rejection.id,
        raw: &rejection.raw,
        cut: rejection.cut,
    }
}
