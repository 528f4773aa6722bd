use std::sync::Arc;

use turnpike_domain::identity::{EventName, NameKey, TenantId};
use turnpike_domain::limits::EVENTS_PAGE_BYTES_MAX;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::history::{EventPage, EventQuery, EventStatus, EventView};
use turnpike_domain::port::log::{EventLog, Only, StoredBlock};
use turnpike_domain::port::views::Views;
use turnpike_domain::problem::Problem;
use turnpike_domain::record::{EventRecord, Position, Record, decode};
use turnpike_domain::time::{TimeRange, Timestamp};

use crate::Aggregator;
use crate::query::{Stop, on_another_thread};

use super::place::Seal;
use super::seen::Seen;

/// What the cursors of this list are sealed with.
const LIST: &str = "events";

/// What a page looks through.
struct Search {
    tenant: TenantId,
    query: EventQuery,
    key: NameKey,
    log: Arc<dyn EventLog>,
    views: Vec<Arc<dyn Views>>,
    seen: Arc<Seen>,
    /// Bytes of records that it looks through at the most, but for the last block.
    bytes_max: usize,
    stop: Stop,
}

/// A page on its way.
#[derive(Default)]
struct Found {
    events: Vec<EventView>,
    bytes: usize,
    /// Bytes of records that were looked through.
    looked: usize,
    /// Where the last event is shown, or how far back was looked.
    last: Position,
    /// Whether there is one behind it, or may be.
    more: bool,
}

impl Aggregator {
    pub(super) async fn read_events(
        &self,
        tenant: TenantId,
        query: EventQuery,
    ) -> Result<EventPage, Problem> {
        let seal = Seal {
            key: self.shared.key,
            tenant,
        };
        let before = match &query.cursor {
            None => self.shared.log.durable(),
            Some(text) => {
                let place = seal.open(LIST, text)?;
                Position(place.try_into().map_or(0, u64::from_be_bytes))
            }
        };
        let views = self.partitions.iter();
        let search = Search {
            tenant,
            query,
            key: self.shared.key,
            log: Arc::clone(&self.shared.log),
            views: views.map(|partition| Arc::clone(&partition.views)).collect(),
            seen: Arc::clone(&self.seen),
            bytes_max: self.shared.options.events_looked_bytes_max,
            stop: Stop::default(),
        };
        let _stop = search.stop.on_drop();
        let slot = self.slots.enter(tenant).await?;
        let found = on_another_thread(move || {
            let _slot = slot;
            search.page(before)
        });
        let found = found.await?;
        let place = found.last.0.to_be_bytes();
        Ok(EventPage {
            next_cursor: found.more.then(|| seal.close(LIST, &place)),
            events: found.events,
        })
    }
}

impl Search {
    fn page(&self, before: Position) -> Result<Found, Problem> {
        if let (Some(source), Some(id), None) = (&self.query.source, &self.query.id, &self.query.cursor) {
            return self.one(source, id);
        }
        let mut found = Found::default();
        if self.query.subjects.as_ref().is_some_and(Vec::is_empty) || self.query.limit == 0 {
            return Ok(found);
        }
        // The block that `before` lies in may have earlier ones.
        let mut until = Some(Position::new(before.offset() + 1, 0));
        while let Some(position) = until {
            until = self.read_until_skip(position, before, &mut found)?;
        }
        Ok(found)
    }

    /// Reads the log backwards from `until`: to its beginning, to where the page is full, or to a stretch in which the
    /// tenant has nothing. Returns where that begins.
    fn read_until_skip(
        &self,
        until: Position,
        before: Position,
        found: &mut Found,
    ) -> Result<Option<Position>, Problem> {
        let skip = |until| self.seen.nothing_since(self.tenant, until);
        if let Some(from) = skip(until) {
            return Ok(Some(from));
        }
        let times = (self.query.range != TimeRange::ALL).then_some(self.query.range);
        let only = Only {
            partition: None,
            times,
        };
        for block in self.log.read_back(until, only) {
            let block = block?;
            self.stop.check()?;
            if found.looked >= self.bytes_max {
                (found.last, found.more) = (block.next, true);
                return Ok(None);
            }
            self.seen.note(&block, self.log.first())?;
            self.take(&block, before, found)?;
            if found.more {
                return Ok(None);
            }
            if let Some(from) = skip(block.position) {
                return Ok(Some(from));
            }
        }
        Ok(None)
    }

    /// The event of that name, by looking it up.
    fn one(&self, source: &str, id: &str) -> Result<Found, Problem> {
        let name = self.key.name(self.tenant, source, id);
        let mut found = Found::default();
        if let Some(position) = self.newest(name)? {
            found.events.extend(self.at(position)?);
        }
        Ok(found)
    }

    /// Takes the events of a block, newest first, until the page is full and one more is found.
    fn take(&self, block: &StoredBlock, before: Position, found: &mut Found) -> Result<(), Problem> {
        let records: Vec<&[u8]> = block.block.records().collect();
        for (at, bytes) in records.iter().enumerate().rev() {
            let position = Position(block.position.0 + at as u64);
            if position >= before {
                continue;
            }
            found.looked += bytes.len();
            let Some(view) = self.shown(&decode(bytes)?, position, &mut found.looked)? else {
                continue;
            };
            if found.events.len() >= self.query.limit || found.bytes >= EVENTS_PAGE_BYTES_MAX {
                found.more = true;
                return Ok(());
            }
            found.bytes += view.data.len();
            found.last = position;
            found.events.push(view);
        }
        Ok(())
    }

    /// The event that is shown at this record, as it counts now. Each is shown once, and no correction between two pages moves
    /// it: where its first record stands; or, if that has no time in the asked range and is skipped as a rule, where the
    /// amendment stands that moved it there. `looked` grows by what has to be read to tell.
    fn shown(
        &self,
        record: &Record<'_>,
        position: Position,
        looked: &mut usize,
    ) -> Result<Option<EventView>, Problem> {
        let (event, first) = match record {
            Record::Event(event) | Record::Committed { event, .. } => (event, None),
            Record::Amend { after, first, .. } => (after, Some(Position(*first))),
            Record::Void { before, first, .. } => (before, Some(Position(*first))),
            _ => return Ok(None),
        };
        if !self.names(event) {
            return Ok(None);
        }
        let name = self.key.name(self.tenant, event.source, event.id);
        let Some(newest) = self.newest(name)? else {
            return Ok(None);
        };
        match first {
            None if newest == position => Ok(self.wanted(record, position)),
            None if self.in_range(event.time()) => self.at(newest),
            Some(first)
                if self.query.range != TimeRange::ALL
                    && (newest == position || self.moves_in(record))
                    && self.is_place(record, position, (first, newest), looked)? =>
            {
                self.at(newest)
            }
            _ => Ok(None),
        }
    }

    /// Whether an event with records at `first` and `newest` is shown at this correction of it.
    fn is_place(
        &self,
        record: &Record<'_>,
        position: Position,
        (first, newest): (Position, Position),
        looked: &mut usize,
    ) -> Result<bool, Problem> {
        let Some(bytes) = self.fetched(first)? else {
            // Retention may have taken the amendment that moved it too.
            return Ok(newest == position);
        };
        if self.begins_in_range(&bytes) || !self.moves_in(record) {
            return Ok(false);
        }
        Ok(newest == position || !self.moved_in_again(record, position, newest, looked)?)
    }

    /// Whether the record is an amendment that moves its event's time into the asked range.
    fn moves_in(&self, record: &Record<'_>) -> bool {
        match record {
            Record::Amend { before, after, .. } => {
                !self.in_range(before.time()) && self.in_range(after.time())
            }
            _ => false,
        }
    }

    /// Whether the event that `record` at `position` moved into the asked range was moved there anew up to `newest`.
    fn moved_in_again(
        &self,
        record: &Record<'_>,
        position: Position,
        newest: Position,
        looked: &mut usize,
    ) -> Result<bool, Problem> {
        let Record::Amend { after: moved, .. } = record else {
            return Ok(false);
        };
        let name = self.key.name(self.tenant, moved.source, moved.id);
        let partition = u32::try_from(name.partition(self.views.len())).ok();
        let only = Only {
            partition,
            times: Some(self.query.range),
        };
        self.log.wait_durable_blocking(Position(newest.0 + 1))?;
        for block in self.log.read_back(Position::new(newest.offset() + 1, 0), only) {
            let block = block?;
            self.stop.check()?;
            for (at, bytes) in block.block.records().enumerate() {
                *looked += bytes.len();
                let other = decode(bytes)?;
                let is_same = matches!(&other, Record::Amend { after, .. }
                    if (after.tenant, after.source, after.id) == (moved.tenant, moved.source, moved.id));
                if is_same && block.position.0 + at as u64 > position.0 && self.moves_in(&other) {
                    return Ok(true);
                }
            }
            if block.position <= position {
                return Ok(false);
            }
        }
        Ok(false)
    }

    fn begins_in_range(&self, first: &[u8]) -> bool {
        match decode(first) {
            Ok(Record::Event(event) | Record::Committed { event, .. }) => self.in_range(event.time()),
            _ => false,
        }
    }

    fn in_range(&self, time: Timestamp) -> bool {
        self.query.range == TimeRange::ALL || self.query.range.contains(time)
    }

    /// The event whose newest record stands at `position`, if it is one that is asked for.
    fn at(&self, position: Position) -> Result<Option<EventView>, Problem> {
        self.log.wait_durable_blocking(Position(position.0 + 1))?;
        let Some(bytes) = self.fetched(position)? else {
            return Ok(None);
        };
        Ok(self.wanted(&decode(&bytes)?, position))
    }

    /// The record at `position`; `None` when it is past its retention.
    fn fetched(&self, position: Position) -> Result<Option<Vec<u8>>, Problem> {
        match self.log.fetch(position) {
            Err(StoreError::Gone(_)) => Ok(None),
            bytes => Ok(Some(bytes?)),
        }
    }

    fn newest(&self, name: EventName) -> Result<Option<Position>, Problem> {
        let partition = name.partition(self.views.len());
        let found = self.views[partition].probe(&[name])?;
        Ok(found.into_iter().next().flatten().map(|entry| entry.position))
    }

    /// The event of a record, if it is one that is asked for.
    fn wanted(&self, record: &Record<'_>, position: Position) -> Option<EventView> {
        let (event, status) = match record {
            Record::Event(event) | Record::Committed { event, .. } => (event, EventStatus::Accepted),
            Record::Amend { after, .. } => (after, EventStatus::Amended),
            Record::Void { before, .. } => (before, EventStatus::Voided),
            _ => return None,
        };
        (self.names(event) && self.in_range(event.time())).then(|| EventView::of(event, status, position))
    }

    /// Whether `event` is one that is asked for, its time apart. No correction changes the answer.
    fn names(&self, event: &EventRecord<'_>) -> bool {
        let query = &self.query;
        let is = |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|wanted| wanted == text);
        let subject = |all: &Vec<String>| all.iter().any(|subject| subject == event.subject);
        TenantId(event.tenant) == self.tenant
            && query.subjects.as_ref().is_none_or(subject)
            && is(&query.kind, event.kind)
            && is(&query.source, event.source)
            && is(&query.id, event.id)
    }
}
