use crate::identity::{EventName, NameKey, TenantId};
use crate::record::EventRecord;

/// Events of one request as they were read: each text is checked and copied once, and stands behind those before it.
#[derive(Debug, Default, Clone)]
pub struct EventBatch {
    texts: String,
    entries: Vec<BatchEntry>,
    all_or_nothing: bool,
}

/// One event of a batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchEntry {
    /// The event's name.
    pub name: EventName,
    /// Hash of its payload (type, subject, time as sent, data as sent).
    pub digest: u64,
    /// Where its texts start.
    start: usize,
    /// Lengths of source, id, type, subject, data and extensions.
    lengths: [u32; 6],
    tenant: u32,
    time_us: i64,
    time_sent: bool,
    received_us: i64,
}

impl EventBatch {
    /// An empty batch with room for `events` of together `bytes` of texts.
    pub fn with_capacity(events: usize, bytes: usize) -> Self {
        Self {
            texts: String::with_capacity(bytes),
            entries: Vec::with_capacity(events),
            all_or_nothing: false,
        }
    }

    /// Makes room for `events` more of together `bytes` of texts.
    pub fn reserve(&mut self, events: usize, bytes: usize) {
        self.texts.reserve(bytes);
        self.entries.reserve(events);
    }

    /// Adds an event that somebody sent: what the quota engine grants is written by itself.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an event is shorter than 2 MiB (limits::EVENT_BYTES_MAX)"
    )]
    pub fn push(&mut self, key: &NameKey, event: &EventRecord<'_>) {
        debug_assert!(event.grant.is_none(), "a granted event is no part of a batch");
        let texts = [
            event.source,
            event.id,
            event.kind,
            event.subject,
            event.data,
            event.extensions,
        ];
        let start = self.texts.len();
        for text in texts {
            self.texts.push_str(text);
        }
        self.entries.push(BatchEntry {
            name: key.name(TenantId(event.tenant), event.source, event.id),
            digest: payload_digest(key, event),
            start,
            lengths: texts.map(|text| text.len() as u32),
            tenant: event.tenant,
            time_us: event.time_us,
            time_sent: event.time_sent,
            received_us: event.received_us,
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

    /// The event of an entry of this batch.
    pub fn event(&self, entry: &BatchEntry) -> EventRecord<'_> {
        let mut at = entry.start;
        let [source, id, kind, subject, data, extensions] = entry.lengths.map(|length| {
            let start = at;
            at += length as usize;
            &self.texts[start..at]
        });
        EventRecord {
            tenant: entry.tenant,
            source,
            id,
            kind,
            subject,
            time_us: entry.time_us,
            time_sent: entry.time_sent,
            received_us: entry.received_us,
            data,
            extensions,
            grant: None,
        }
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all texts.
    pub fn bytes_len(&self) -> usize {
        self.texts.len()
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
    use crate::record::GrantRecord;
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
        let digest = |event: EventRecord<'_>| payload_digest(&KEY, &event);
        assert_eq!(entry(&plain()).digest, digest(plain()));
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
        fn events_come_back_in_their_order(
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
                bytes += event.kind.len() + event.subject.len() + 2 * (event.source.len() + event.id.len());
                prop_assert_eq!(batch.event(entry), *event);
                prop_assert_eq!(entry.name, KEY.name(TenantId(1), event.source, event.id));
            }
            prop_assert_eq!(batch.bytes_len(), bytes);
        }
    }
}
