//! From records to the log, the id store and memory: the one way that every change goes.

use turnpike_domain::identity::EventName;
use turnpike_domain::limits::{BLOCK_BYTES_TARGET, BLOCK_RECORDS_MAX};
use turnpike_domain::port::StoreError;
use turnpike_domain::port::intake::Hold;
use turnpike_domain::port::log::{Block, Placed};
use turnpike_domain::port::views::IdEntry;
use turnpike_domain::problem::Problem;
use turnpike_domain::record::{Position, Record, decode, encode};
use turnpike_domain::time::{TimeRange, Timestamp};

use super::Owner;
use super::joint::JointTicket;
use crate::core::{Changes, times};
use crate::windows::SubjectAt;

/// Records on their way to the log, cut into blocks.
pub(super) struct Draft {
    partition: u32,
    done: Vec<Block>,
    open: Block,
}

impl Draft {
    pub(super) fn new(partition: u32) -> Self {
        Self {
            partition,
            done: Vec::new(),
            open: empty(partition),
        }
    }

    /// The same, with room for so many records of together so many bytes.
    pub(super) fn with_capacity(partition: u32, records: usize, bytes: usize) -> Self {
        let mut draft = Self::new(partition);
        draft.open.bytes.reserve(bytes.min(BLOCK_BYTES_TARGET));
        draft.open.ends.reserve(records.min(BLOCK_RECORDS_MAX));
        draft
    }

    /// Adds an encoded record whose events have `times` (earliest and latest, microseconds).
    pub(super) fn push(&mut self, record: &[u8], times: Option<(i64, i64)>) {
        self.make_room();
        self.open.push(record);
        self.spread(times);
    }

    /// Adds a record that it encodes.
    pub(super) fn encode(&mut self, record: &Record<'_>) {
        self.make_room();
        self.open.encode(record);
        self.spread(times(record));
    }

    /// Begins another block where the open one is full.
    fn make_room(&mut self) {
        let full = self.open.bytes.len() >= BLOCK_BYTES_TARGET || self.open.ends.len() >= BLOCK_RECORDS_MAX;
        if full {
            self.done
                .push(std::mem::replace(&mut self.open, empty(self.partition)));
        }
    }

    /// Notes the times of a record's events in its block.
    fn spread(&mut self, times: Option<(i64, i64)>) {
        if let Some((earliest, latest)) = times {
            let start = Timestamp::from_micros_clamped(earliest);
            let end = Timestamp::from_micros_clamped(latest).plus_micros(1);
            self.open.times = Some(match self.open.times {
                None => TimeRange::new(start, end),
                Some(known) => TimeRange::new(known.start.min(start), known.end.max(end)),
            });
        }
    }

    pub(super) fn blocks(mut self) -> Vec<Block> {
        if !self.open.ends.is_empty() {
            self.done.push(self.open);
        }
        self.done
    }
}

fn empty(partition: u32) -> Block {
    Block {
        partition,
        ..Block::default()
    }
}

impl Owner {
    /// Appends all records of a draft, with those of the other partitions of a batch that is all or nothing, or none.
    /// Returns their positions.
    pub(super) fn append(
        &mut self,
        draft: Draft,
        joint: Option<JointTicket>,
    ) -> Result<Vec<Position>, StoreError> {
        let blocks = draft.blocks();
        let records: Vec<u64> = blocks.iter().map(|block| block.ends.len() as u64).collect();
        let log = self.shared.log.as_ref();
        let placed = match joint {
            Some(joint) => joint.append(blocks, log)?,
            None if blocks.is_empty() => Vec::new(),
            None => log.append_all(blocks)?,
        };
        if let Some((_, next)) = placed.last() {
            self.applied = *next;
        }
        let of = |((first, _), records): (Placed, u64)| (0..records).map(move |at| Position(first.0 + at));
        Ok(placed.into_iter().zip(records).flat_map(of).collect())
    }

    /// Writes one record, remembers its name, adds it up, and tells the listener.
    pub(super) fn write(
        &mut self,
        record: &Record<'_>,
        name: Option<(EventName, u64)>,
        hold: Option<&Hold>,
    ) -> Result<(Position, Vec<u8>), Problem> {
        let mut bytes = Vec::new();
        encode(record, &mut bytes);
        let mut draft = Draft::new(self.number);
        draft.push(&bytes, times(record));
        let positions = self.append(draft, None)?;
        let position = *positions
            .first()
            .ok_or_else(|| Self::internal("an append gave no position"))?;
        if let Some((name, digest)) = name {
            self.remember(&[(name, IdEntry { digest, position })])?;
        }
        let mut changes = Changes::new();
        self.add(position, record, (hold, None), &mut changes);
        self.tell(&changes);
        Ok((position, bytes))
    }

    /// Adds a record to memory, with the quota taken for it and the place of its subject, where that is known.
    pub(super) fn add<'r>(
        &mut self,
        position: Position,
        record: &Record<'r>,
        (hold, subject): (Option<&'r Hold>, Option<SubjectAt>),
        changes: &mut Changes<'r>,
    ) {
        let readers = self.registry.readers(record.tenant());
        let mut adder = Self::adder(
            &mut self.memory,
            &mut self.fields,
            &mut self.group,
            self.shared.key,
        );
        adder.subject = subject;
        adder.record(readers, position, record, hold, changes);
        adder.notes(position, record);
        self.checkpoints.added(1);
    }

    pub(super) fn tell(&self, changes: &Changes<'_>) {
        if !changes.is_empty() {
            self.shared.listener.applied(changes);
        }
    }

    /// Remembers names whose records are in the log already. Were it to fail, their duplicates could no longer be told:
    /// the partition takes nothing more until it has been rebuilt by a restart.
    pub(super) fn remember(&mut self, entries: &[(EventName, IdEntry)]) -> Result<(), Problem> {
        self.views.remember(entries).map_err(|error| {
            tracing::error!(partition = self.number, %error, "names cannot be remembered; restart the process");
            self.broken = true;
            Problem::from(error)
        })
    }

    /// An error once the partition is broken.
    pub(super) fn check_sound(&self) -> Result<(), Problem> {
        if self.broken {
            return Err(Problem::from(StoreError::Poisoned(
                "names can no longer be remembered".to_owned(),
            )));
        }
        Ok(())
    }

    pub(super) fn probe(&self, name: EventName) -> Result<Option<IdEntry>, Problem> {
        self.check_sound()?;
        Ok(self.views.probe(&[name])?.into_iter().next().flatten())
    }

    /// Whether the name's newest record is a released reservation.
    pub(super) fn is_free(&self, entry: IdEntry) -> Result<bool, Problem> {
        if entry.digest != crate::core::FREE_DIGEST {
            return Ok(false);
        }
        let bytes = self.shared.log.fetch(entry.position)?;
        Ok(matches!(decode(&bytes)?, Record::Released { .. }))
    }
}
