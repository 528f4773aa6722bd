use crate::identity::{EventName, NameKey, TenantId};
use crate::record::{EventRecord, Record, encode};

/// Events of one request, already in the encoding of the log, so that each is parsed and copied once.
#[derive(Debug, Default, Clone)]
pub struct EventBatch {
    bytes: Vec<u8>,
    entries: Vec<BatchEntry>,
    all_or_nothing: bool,
}

/// One event of a batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchEntry {
    /// The event's name.
    pub name: EventName,
    /// Hash of its payload (type, subject, time as sent, data as sent, grant).
    pub digest: u64,
    start: usize,
    end: usize,
}

impl EventBatch {
    /// An empty batch with room for `events` of together `bytes` in the log's encoding.
    pub fn with_capacity(events: usize, bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            entries: Vec::with_capacity(events),
            all_or_nothing: false,
        }
    }

    /// Adds an event.
    pub fn push(&mut self, key: &NameKey, event: &EventRecord<'_>) {
        let start = self.bytes.len();
        encode(&Record::Event(*event), &mut self.bytes);
        let name = key.name(TenantId(event.tenant), event.source, event.id);
        self.entries.push(BatchEntry {
            name,
            digest: payload_digest(key, event),
            start,
            end: self.bytes.len(),
        });
    }

    /// Asks that its new events become durable together or not at all, whatever fails or stops the process.
    pub const fn keep_all_or_nothing(&mut self) {
        self.all_or_nothing = true;
    }

    /// Whether its new events become durable together or not at all.
    pub const fn is_all_or_nothing(&self) -> bool {
        self.all_or_nothing
    }

    /// The events' names and hashes, in the order of adding.
    pub fn entries(&self) -> &[BatchEntry] {
        &self.entries
    }

    /// The encoded [`Record::Event`] of an entry of this batch.
    pub fn record(&self, entry: &BatchEntry) -> &[u8] {
        &self.bytes[entry.start..entry.end]
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all records.
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Equal digests mean the same payload; different ones may still mean the same, by [`super::same_meaning`].
/// A granted event is told from another by the body of its request, for its time is the decision's.
pub fn payload_digest(key: &NameKey, event: &EventRecord<'_>) -> u64 {
    if let Some(grant) = &event.grant {
        return key.digest(&[b"grant", &grant.body_digest.to_le_bytes()]);
    }
    let time = event.time_us.to_le_bytes();
    let time: &[u8] = if event.time_sent { &time } else { b"" };
    key.digest(&[
        event.kind.as_bytes(),
        event.subject.as_bytes(),
        time,
        event.data.as_bytes(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{GrantRecord, decode};
    use proptest::prelude::*;

    const KEY: NameKey = NameKey([3; 16]);

    fn plain() -> EventRecord<'static> {
        EventRecord {
            tenant: 1,
            source: "s",
            id: "i",
            kind: "k",
            subject: "u",
            time_us: 5,
            time_sent: true,
            received_us: 7,
            data: "{}",
            extensions: "",
            grant: None,
        }
    }

    fn entry(event: &EventRecord<'_>) -> BatchEntry {
        let mut batch = EventBatch::default();
        batch.push(&KEY, event);
        batch.entries()[0]
    }

    #[test]
    fn a_name_is_tenant_source_and_id_alone() {
        let name = entry(&plain()).name;
        let same = [
            EventRecord { kind: "x", ..plain() },
            EventRecord {
                subject: "x",
                time_us: 9,
                data: r#"{"a":1}"#,
                ..plain()
            },
            EventRecord {
                received_us: 8,
                extensions: r#"{"a":1}"#,
                time_sent: false,
                ..plain()
            },
        ];
        assert!(same.iter().all(|event| entry(event).name == name));
        let others = [
            EventRecord { tenant: 2, ..plain() },
            EventRecord {
                source: "i",
                id: "s",
                ..plain()
            },
            EventRecord {
                source: "si",
                id: "",
                ..plain()
            },
        ];
        assert!(others.iter().all(|event| entry(event).name != name));
    }

    #[test]
    fn a_digest_is_the_payload_as_it_was_sent() {
        let digest = |event: EventRecord<'_>| entry(&event).digest;
        let unsent = EventRecord {
            time_sent: false,
            ..plain()
        };
        assert_eq!(
            digest(plain()),
            digest(EventRecord {
                received_us: 8,
                extensions: "{}",
                ..plain()
            })
        );
        assert_eq!(
            digest(unsent),
            digest(EventRecord {
                time_us: 99,
                ..unsent
            }),
            "no time was sent with either"
        );
        for other in [
            unsent,
            EventRecord {
                kind: "u",
                subject: "k",
                ..plain()
            },
            EventRecord {
                kind: "ku",
                subject: "",
                ..plain()
            },
            EventRecord {
                time_us: 6,
                ..plain()
            },
            EventRecord {
                data: "{ }",
                ..plain()
            },
        ] {
            assert_ne!(digest(plain()), digest(other), "{other:?}");
        }
        let grant = |body_digest| GrantRecord {
            customer: "c",
            feature: "f",
            amount: 1,
            reason: "r",
            body_digest,
        };
        let granted = |body_digest, time_us| EventRecord {
            grant: Some(grant(body_digest)),
            time_us,
            ..plain()
        };
        assert_eq!(
            digest(granted(1, 5)),
            digest(granted(1, 6)),
            "the time is the decision's"
        );
        assert_ne!(digest(granted(1, 5)), digest(granted(2, 5)));
        assert_ne!(digest(granted(1, 5)), digest(plain()));
    }

    proptest! {
        #[test]
        fn records_come_back_in_their_order(
            texts in prop::collection::vec((".{0,20}", ".{0,20}", any::<i64>(), any::<bool>()), 0..20), room in 0usize..100,
        ) {
            let mut batch = EventBatch::with_capacity(room, room);
            let events: Vec<EventRecord<'_>> = texts
                .iter()
                .map(|(source, id, time_us, time_sent)| EventRecord {
                    source, id, time_us: *time_us, time_sent: *time_sent, data: source, extensions: id, ..plain()
                })
                .collect();
            for event in &events {
                batch.push(&KEY, event);
            }
            prop_assert_eq!((batch.len(), batch.is_empty()), (events.len(), events.is_empty()));
            let mut bytes = 0;
            for (entry, event) in batch.entries().iter().zip(&events) {
                let record = batch.record(entry);
                bytes += record.len();
                prop_assert_eq!(decode(record).unwrap(), Record::Event(*event));
                prop_assert_eq!(entry.name, KEY.name(TenantId(1), event.source, event.id));
            }
            prop_assert_eq!(batch.bytes_len(), bytes);
        }
    }
}
