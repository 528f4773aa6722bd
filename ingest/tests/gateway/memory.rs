//! The other side of the gateway, kept in memory: a log, and what is read from it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use turnpike_domain::event::{EventBatch, same_meaning};
use turnpike_domain::identity::{EventName, TenantId};
use turnpike_domain::port::BoxFuture;
use turnpike_domain::port::history::{
    Backfill, DeadLetter, DeadLetterPage, EventPage, EventQuery, EventStatus, EventView, History,
};
use turnpike_domain::port::intake::{
    Correction, Intake, Known, Outcome, QuotaOutcome, QuotaRecord, Rejection,
};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::record::{EventRecord, Position, Record, decode, encode};
use turnpike_domain::time::Timestamp;

/// How often others have their turn while a batch is under way: some chunks of a stream are read meanwhile.
const TURNS_OF_A_BATCH: usize = 16;

/// An event that is kept: how it was sent first, its newest record, and whether it was taken back.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) tenant: TenantId,
    pub(crate) digest: u64,
    pub(crate) position: u64,
    first: Vec<u8>,
    newest: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) events: HashMap<EventName, Stored>,
    pub(crate) letters: BTreeMap<u64, Rejection>,
    pub(crate) next: u64,
}

/// A log in memory, which fails or waits as it is told.
#[derive(Default)]
pub(crate) struct MemoryIntake {
    pub(crate) log: Mutex<Log>,
    /// Batches that are still taken before all others are refused with this.
    pub(crate) fail_after: Mutex<Option<(usize, Problem)>>,
    pub(crate) running: AtomicUsize,
    pub(crate) running_most: AtomicUsize,
    /// Bytes of the batches that were under way together at the most.
    pub(crate) bytes: AtomicUsize,
    pub(crate) bytes_most: AtomicUsize,
    /// Whether events are only counted, for streams longer than memory.
    pub(crate) forget: bool,
    pub(crate) seen: AtomicUsize,
}

fn event(record: &[u8]) -> EventRecord<'_> {
    match decode(record).unwrap() {
        Record::Event(event) | Record::Amend { after: event, .. } | Record::Void { before: event, .. } => {
            event
        }
        other => panic!("no event: {other:?}"),
    }
}

impl MemoryIntake {
    fn refuse(&self) -> Result<(), Problem> {
        match &mut *self.fail_after.lock().unwrap() {
            Some((0, problem)) => Err(problem.clone()),
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn decide(&self, batch: &EventBatch) -> Vec<Outcome> {
        let mut log = self.log.lock().unwrap();
        let decide = |entry| {
            let entry: &turnpike_domain::event::BatchEntry = entry;
            let mut record = Vec::new();
            encode(&Record::Event(batch.event(entry)), &mut record);
            log.next += 1;
            let position = log.next;
            if let Some(known) = log.events.get(&entry.name) {
                let first = Position(known.position);
                let same =
                    known.digest == entry.digest || same_meaning(&event(&known.first), &batch.event(entry));
                return if same {
                    Outcome::Duplicate(first)
                } else {
                    Outcome::Conflict(first)
                };
            }
            let stored = Stored {
                tenant: TenantId(batch.event(entry).tenant),
                digest: entry.digest,
                position,
                first: record.clone(),
                newest: record,
            };
            log.events.insert(entry.name, stored);
            Outcome::Accepted(Position(position))
        };
        batch.entries().iter().map(decide).collect()
    }
}

impl Intake for MemoryIntake {
    fn submit(&self, batch: Arc<EventBatch>) -> BoxFuture<'_, Result<Vec<Outcome>, Problem>> {
        Box::pin(async move {
            self.refuse()?;
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.running_most.fetch_max(running, Ordering::SeqCst);
            let bytes = self.bytes.fetch_add(batch.bytes_len(), Ordering::SeqCst) + batch.bytes_len();
            self.bytes_most.fetch_max(bytes, Ordering::SeqCst);
            for _ in 0..TURNS_OF_A_BATCH {
                tokio::task::yield_now().await;
            }
            self.running.fetch_sub(1, Ordering::SeqCst);
            self.bytes.fetch_sub(batch.bytes_len(), Ordering::SeqCst);
            self.seen.fetch_add(batch.len(), Ordering::SeqCst);
            if self.forget {
                return Ok(vec![Outcome::Accepted(Position(1)); batch.len()]);
            }
            Ok(self.decide(&batch))
        })
    }

    fn correct(
        &self,
        name: EventName,
        change: Correction,
        at: Timestamp,
    ) -> BoxFuture<'_, Result<Option<Known>, Problem>> {
        Box::pin(async move {
            let mut log = self.log.lock().unwrap();
            log.next += 1;
            let position = Position(log.next);
            let Some(stored) = log.events.get_mut(&name) else {
                return Ok(None);
            };
            let newest = stored.newest.clone();
            let before = event(&newest);
            let voided = matches!(decode(&newest).unwrap(), Record::Void { .. });
            let (at_us, first) = (at.micros(), stored.position);
            let mut record = Vec::new();
            match &change {
                Correction::Void if voided => record.clone_from(&newest),
                Correction::Void => encode(&Record::Void { at_us, first, before }, &mut record),
                Correction::Amend { .. } if voided => {
                    return Err(Problem::new(Code::EventVoided, "the event was voided"));
                }
                Correction::Amend { data, time } => {
                    let after = EventRecord {
                        data: data.as_deref().unwrap_or(before.data),
                        time_us: time.map_or(before.time_us, Timestamp::micros),
                        ..before
                    };
                    encode(
                        &Record::Amend {
                            at_us,
                            first,
                            before,
                            after,
                        },
                        &mut record,
                    );
                }
            }
            stored.newest.clone_from(&record);
            let digest = stored.digest;
            Ok(Some(Known {
                position,
                digest,
                record,
                first: None,
            }))
        })
    }

    fn reject(&self, rejections: Vec<Rejection>) -> BoxFuture<'_, Result<Vec<Position>, Problem>> {
        Box::pin(async move {
            let mut log = self.log.lock().unwrap();
            let keep = |rejection| {
                log.next += 1;
                let position = log.next;
                log.letters.insert(position, rejection);
                Position(position)
            };
            Ok(rejections.into_iter().map(keep).collect())
        })
    }

    fn resolve(&self, tenant: TenantId, rejected: Position) -> BoxFuture<'_, Result<(), Problem>> {
        Box::pin(async move {
            let mut log = self.log.lock().unwrap();
            if log
                .letters
                .get(&rejected.0)
                .is_some_and(|letter| letter.tenant == tenant)
            {
                log.letters.remove(&rejected.0);
            }
            Ok(())
        })
    }

    fn quota(&self, _: QuotaRecord) -> BoxFuture<'_, Result<QuotaOutcome, Problem>> {
        panic!("the gateway takes no quota");
    }

    fn lookup(&self, _: Vec<EventName>) -> BoxFuture<'_, Result<Vec<Option<Known>>, Problem>> {
        panic!("the gateway looks nothing up");
    }
}

impl History for MemoryIntake {
    fn events(&self, tenant: TenantId, query: EventQuery) -> BoxFuture<'_, Result<EventPage, Problem>> {
        Box::pin(async move {
            let log = self.log.lock().unwrap();
            let before = query
                .cursor
                .as_deref()
                .map_or(u64::MAX, |cursor| cursor.parse().unwrap());
            let is =
                |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|wanted| wanted == text);
            let mut events: Vec<EventView> = log.events.values().map(view).collect();
            events.retain(|event| {
                let subjects = query.subjects.as_ref();
                let ours = log
                    .events
                    .values()
                    .any(|stored| stored.position == event.position.0 && stored.tenant == tenant);
                ours && event.position.0 < before
                    && subjects.is_none_or(|subjects| subjects.contains(&event.subject))
                    && is(&query.kind, &event.kind)
                    && is(&query.source, &event.source)
                    && is(&query.id, &event.id)
                    && query.range.contains(event.time)
            });
            events.sort_by_key(|event| std::cmp::Reverse(event.position));
            let more = events.len() > query.limit;
            events.truncate(query.limit);
            let last = events.last().map(|event| event.position.0.to_string());
            Ok(EventPage {
                events,
                next_cursor: last.filter(|_| more),
            })
        })
    }

    fn dead_letters(
        &self,
        tenant: TenantId,
        limit: usize,
        cursor: Option<String>,
    ) -> BoxFuture<'_, Result<DeadLetterPage, Problem>> {
        Box::pin(async move {
            let log = self.log.lock().unwrap();
            let before = cursor.map_or(u64::MAX, |cursor| cursor.parse().unwrap());
            let newest = log
                .letters
                .range(..before)
                .rev()
                .filter(|(_, letter)| letter.tenant == tenant);
            let mut letters: Vec<DeadLetter> = newest
                .take(limit + 1)
                .map(|(at, letter)| refused(*at, letter))
                .collect();
            let more = letters.len() > limit;
            letters.truncate(limit);
            let last = letters.last().map(|letter| letter.position().0.to_string());
            Ok(DeadLetterPage {
                letters,
                next_cursor: last.filter(|_| more),
            })
        })
    }

    fn backfill(&self, _: TenantId, _: &str) -> Option<Backfill> {
        None
    }
}

fn view(stored: &Stored) -> EventView {
    let event = event(&stored.newest);
    EventView {
        position: Position(stored.position),
        status: match decode(&stored.newest).unwrap() {
            Record::Void { .. } => EventStatus::Voided,
            Record::Amend { .. } => EventStatus::Amended,
            _ => EventStatus::Accepted,
        },
        source: event.source.to_owned(),
        id: event.id.to_owned(),
        kind: event.kind.to_owned(),
        subject: event.subject.to_owned(),
        time: event.time(),
        received: Timestamp::from_micros_clamped(event.received_us),
        data: event.data.to_owned(),
        extensions: event.extensions.to_owned(),
    }
}

fn refused(at: u64, letter: &Rejection) -> DeadLetter {
    DeadLetter::Refused {
        position: Position(at),
        received: letter.received,
        code: letter.code.clone(),
        detail: letter.detail.clone(),
        id: letter.id.clone(),
        raw: letter.raw.clone(),
        cut: letter.cut,
    }
}
