use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use memchr::memmem::Finder;
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

use super::place::{NO_CURSOR, Seal};
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
    texts: Texts,
    /// Bytes of records that it looks through at the most, but for the last block.
    bytes_max: usize,
    stop: Stop,
}

/// The texts of which an event that is asked for has at least one, byte by byte as its record has it: records without any
/// are passed over without decoding them. None where other events may be asked for too.
struct Texts(Vec<Finder<'static>>);

impl Texts {
    /// So many subjects are looked for at the most.
    const MAX: usize = 4;

    fn of(query: &EventQuery) -> Self {
        let subjects = query.subjects.as_deref().unwrap_or_default();
        let texts = if subjects.is_empty() {
            query.id.as_slice()
        } else {
            subjects
        };
        let finder = |text: &String| Finder::new(text).into_owned();
        Self(if texts.len() > Self::MAX {
            Vec::new()
        } else {
            texts.iter().map(finder).collect()
        })
    }

    fn may_be_in(&self, bytes: &[u8]) -> bool {
        self.0.is_empty() || self.0.iter().any(|finder| finder.find(bytes).is_some())
    }
}

/// Where a page begins.
#[derive(Clone, Copy)]
struct Place {
    /// It shows what stands before this.
    before: Position,
    /// Where the log ended when the first page was asked for: what is corrected later has its place as it had it then.
    end: Position,
}

/// A page on its way.
struct Found {
    begin: Place,
    events: Vec<EventView>,
    bytes: usize,
    /// Bytes of records that were looked through.
    looked: usize,
    /// Where the last event is shown, or how far back was looked.
    last: Position,
    /// Whether there is one behind it, or may be.
    more: bool,
    /// Events that were moved into the asked range, by amendments that this page has come by.
    moved: HashSet<EventName>,
    /// The same for the pages before it; read when it is first asked for.
    moved_earlier: Option<HashSet<EventName>>,
}

impl Place {
    fn first(end: Position) -> Self {
        Self { before: end, end }
    }

    fn to_bytes(self) -> Vec<u8> {
        [self.before, self.end]
            .iter()
            .flat_map(|position| position.0.to_be_bytes())
            .collect()
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (before, end) = bytes.split_first_chunk()?;
        let position = |bytes: &[u8; 8]| Position(u64::from_be_bytes(*bytes));
        Some(Self {
            before: position(before),
            end: position(end.try_into().ok()?),
        })
    }
}

impl Found {
    fn new(begin: Place) -> Self {
        Self {
            begin,
            events: Vec::new(),
            bytes: 0,
            looked: 0,
            last: begin.before,
            more: false,
            moved: HashSet::new(),
            moved_earlier: None,
        }
    }
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
        let begin = match &query.cursor {
            None => Place::first(self.shared.log.durable()),
            Some(text) => {
                let place = Place::of_bytes(&seal.open(LIST, text)?);
                place.ok_or_else(|| Problem::invalid("/cursor", NO_CURSOR))?
            }
        };
        let views = self.partitions.iter();
        let search = Search {
            tenant,
            texts: Texts::of(&query),
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
            search.page(begin)
        });
        let found = found.await?;
        let next = Place {
            before: found.last,
            ..begin
        };
        Ok(EventPage {
            next_cursor: found.more.then(|| seal.close(LIST, &next.to_bytes())),
            events: found.events,
        })
    }
}

impl Search {
    fn page(&self, begin: Place) -> Result<Found, Problem> {
        let mut found = Found::new(begin);
        if let (Some(source), Some(id), None) = (&self.query.source, &self.query.id, &self.query.cursor) {
            found.events.extend(self.one(source, id)?);
            return Ok(found);
        }
        if self.query.subjects.as_ref().is_some_and(Vec::is_empty) || self.query.limit == 0 {
            return Ok(found);
        }
        self.read_back(begin.before, |block| {
            if found.looked >= self.bytes_max {
                (found.last, found.more) = (block.next, true);
            } else {
                self.take(block, &mut found)?;
            }
            Ok(if found.more {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })?;
        Ok(found)
    }

    /// Reads the log backwards from `before`, without the stretches in which the tenant has nothing, until `visit` has enough.
    fn read_back(
        &self,
        before: Position,
        mut visit: impl FnMut(&StoredBlock) -> Result<ControlFlow<()>, Problem>,
    ) -> Result<(), Problem> {
        // The block that `before` lies in may have earlier ones.
        let mut until = Some(Position::new(before.offset() + 1, 0));
        while let Some(position) = until {
            until = self.read_until_skip(position, &mut visit)?;
        }
        Ok(())
    }

    /// The same, until a stretch in which the tenant has nothing; returns where that begins.
    fn read_until_skip(
        &self,
        until: Position,
        visit: &mut impl FnMut(&StoredBlock) -> Result<ControlFlow<()>, Problem>,
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
            self.seen.note(&block, self.log.first())?;
            if visit(&block)?.is_break() {
                return Ok(None);
            }
            if let Some(from) = skip(block.position) {
                return Ok(Some(from));
            }
        }
        Ok(None)
    }

    /// The event of that name, by looking it up.
    fn one(&self, source: &str, id: &str) -> Result<Option<EventView>, Problem> {
        let newest = self.newest(self.key.name(self.tenant, source, id))?;
        newest.map_or(Ok(None), |position| self.at(position))
    }

    /// Takes the events of a block, newest first, until the page is full and one more is found.
    fn take(&self, block: &StoredBlock, found: &mut Found) -> Result<(), Problem> {
        if !self.texts.may_be_in(&block.block.bytes) {
            found.looked += block.block.bytes.len();
            return Ok(());
        }
        let records: Vec<&[u8]> = block.block.records().collect();
        for (at, bytes) in records.iter().enumerate().rev() {
            let position = Position(block.position.0 + at as u64);
            if position >= found.begin.before {
                continue;
            }
            found.looked += bytes.len();
            if !self.texts.may_be_in(bytes) {
                continue;
            }
            let Some(view) = self.shown(&decode(bytes)?, position, found)? else {
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
    /// it: where its first record stands; or, if that has no time in the asked range and is skipped as a rule, where the last
    /// amendment stands that had moved it there when the first page was asked for.
    fn shown(
        &self,
        record: &Record<'_>,
        position: Position,
        found: &mut Found,
    ) -> Result<Option<EventView>, Problem> {
        let (event, first) = match record {
            Record::Event(event) | Record::Committed { event, .. } => (event, None),
            Record::Amend { after, first, .. } => (after, Some(Position(*first))),
            Record::Void { before, first, .. } => (before, Some(Position(*first))),
            _ => return Ok(None),
        };
        if !self.names(event) || (first.is_some() && self.query.range == TimeRange::ALL) {
            return Ok(None);
        }
        let name = self.key.name(self.tenant, event.source, event.id);
        let Some(newest) = self.newest(name)? else {
            return Ok(None);
        };
        let is_place = match first {
            None => newest == position || self.in_range(event.time()),
            // Retention may have taken the amendment that moved it too.
            Some(first) if first < self.log.first() => newest == position,
            Some(first) => {
                self.moves_in(record)
                    && !self.begins_in_range(first, found)?
                    && self.is_last_move(name, position, newest, found)?
            }
        };
        if newest == position && is_place {
            return Ok(self.wanted(record, position));
        }
        if is_place { self.at(newest) } else { Ok(None) }
    }

    /// Whether the event, moved into the asked range at `position`, was not moved there again before the list was begun.
    fn is_last_move(
        &self,
        name: EventName,
        position: Position,
        newest: Position,
        found: &mut Found,
    ) -> Result<bool, Problem> {
        if !found.moved.insert(name) {
            return Ok(false);
        }
        if newest == position || newest < found.begin.before {
            return Ok(true);
        }
        if found.moved_earlier.is_none() {
            found.moved_earlier = Some(self.moved_earlier(found.begin)?);
        }
        Ok(found
            .moved_earlier
            .as_ref()
            .is_none_or(|names| !names.contains(&name)))
    }

    /// The events that were moved into the asked range by amendments that the pages before have come by. An event that was moved
    /// in twice with more than the bytes of a page's search between is shown at both, for nothing is looked through without end.
    fn moved_earlier(&self, begin: Place) -> Result<HashSet<EventName>, Problem> {
        let (mut names, mut looked) = (HashSet::new(), 0);
        self.read_back(begin.end, |block| {
            for (at, bytes) in block.block.records().enumerate() {
                looked += bytes.len();
                let record = decode(bytes)?;
                let position = Position(block.position.0 + at as u64);
                if let Record::Amend { after: event, .. } = &record
                    && (begin.before..begin.end).contains(&position)
                    && self.names(event)
                    && self.moves_in(&record)
                {
                    names.insert(self.key.name(self.tenant, event.source, event.id));
                }
            }
            let is_enough = block.position <= begin.before || looked >= self.bytes_max;
            Ok(if is_enough {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })?;
        Ok(names)
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

    /// Whether the event whose first record stands at `first` had a time in the asked range to begin with.
    fn begins_in_range(&self, first: Position, found: &mut Found) -> Result<bool, Problem> {
        let Some(bytes) = self.fetched(first)? else {
            return Ok(false);
        };
        found.looked += bytes.len();
        Ok(match decode(&bytes)? {
            Record::Event(event) | Record::Committed { event, .. } => self.in_range(event.time()),
            _ => false,
        })
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
