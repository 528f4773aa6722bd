use crate::identity::{EventName, NameKey, TenantId};
use crate::record::{EventRecord, Record, encode};

/// Events of one request, already in the encoding of the log, so that each is parsed and copied once.
#[derive(Debug, Default, Clone)]
pub struct EventBatch {
    bytes: Vec<u8>,
    entries: Vec<BatchEntry>,
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
