use std::sync::Arc;

use turnpike_domain::identity::{EventName, NameKey, TenantId};
use turnpike_domain::port::StoreError;
use turnpike_domain::port::history::{EventPage, EventQuery, EventStatus, EventView};
use turnpike_domain::port::log::{EventLog, Only, StoredBlock};
use turnpike_domain::port::views::Views;
use turnpike_domain::problem::Problem;
use turnpike_domain::record::{Position, Record, decode};
use turnpike_domain::time::TimeRange;

use crate::Aggregator;
use crate::query::on_another_thread;

/// What a page looks through.
struct Search {
    tenant: TenantId,
    query: EventQuery,
    key: NameKey,
    log: Arc<dyn EventLog>,
    views: Vec<Arc<dyn Views>>,
    blocks_max: usize,
}

impl Aggregator {
    pub(super) async fn read_events(
        &self,
        tenant: TenantId,
        query: EventQuery,
    ) -> Result<EventPage, Problem> {
        let before = match &query.cursor {
            None => self.shared.log.durable(),
            Some(text) => {
                let position = text.parse().map(Position);
                position.map_err(|_| Problem::invalid("/cursor", "is not a next_cursor of this list"))?
            }
        };
        let search = Search {
            tenant,
            query,
            key: self.shared.key,
            log: Arc::clone(&self.shared.log),
            views: self
                .partitions
                .iter()
                .map(|partition| Arc::clone(&partition.views))
                .collect(),
            blocks_max: self.shared.options.history_blocks,
        };
        on_another_thread(move || search.page(before)).await
    }
}

impl Search {
    fn page(&self, before: Position) -> Result<EventPage, Problem> {
        if let (Some(source), Some(id), None) = (&self.query.source, &self.query.id, &self.query.cursor) {
            return self.one(source, id);
        }
        let mut page = EventPage::default();
        if self.query.subjects.as_ref().is_some_and(Vec::is_empty) || self.query.limit == 0 {
            return Ok(page);
        }
        let times = (self.query.range != TimeRange::ALL).then_some(self.query.range);
        let blocks = self.log.read_back(
            Position::new(before.offset() + 1, 0),
            Only {
                partition: None,
                times,
            },
        );
        for (seen, block) in blocks.enumerate() {
            let block = block?;
            if seen >= self.blocks_max {
                page.next_cursor = Some(block.next.0.to_string());
                return Ok(page);
            }
            if self.take(&block, before, &mut page)? {
                return Ok(page);
            }
        }
        Ok(page)
    }

    /// The event of that name, by looking it up.
    fn one(&self, source: &str, id: &str) -> Result<EventPage, Problem> {
        let name = self.key.name(self.tenant, source, id);
        let mut page = EventPage::default();
        let Some(position) = self.newest(name)? else {
            return Ok(page);
        };
        self.log.wait_durable_blocking(Position(position.0 + 1))?;
        let bytes = match self.log.fetch(position) {
            Err(StoreError::Gone(_)) => return Ok(page),
            bytes => bytes?,
        };
        page.events.extend(self.wanted(&decode(&bytes)?, position));
        Ok(page)
    }

    /// Takes the events of a block, newest first. Returns whether the page is full.
    fn take(&self, block: &StoredBlock, before: Position, page: &mut EventPage) -> Result<bool, Problem> {
        let records: Vec<&[u8]> = block.block.records().collect();
        for (at, bytes) in records.iter().enumerate().rev() {
            let position = Position(block.position.0 + at as u64);
            if position >= before {
                continue;
            }
            let record = decode(bytes)?;
            let Some(view) = self.wanted(&record, position) else {
                continue;
            };
            let name = self.key.name(self.tenant, &view.source, &view.id);
            // Each event is shown once: where its newest record stands.
            if self.newest(name)? != Some(position) {
                continue;
            }
            page.events.push(view);
            if page.events.len() >= self.query.limit {
                page.next_cursor = Some(position.0.to_string());
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn newest(&self, name: EventName) -> Result<Option<Position>, Problem> {
        let partition = name.partition(self.views.len() as u32) as usize;
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
        let query = &self.query;
        let is = |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|wanted| wanted == text);
        let subject = |all: &Vec<String>| all.iter().any(|subject| subject == event.subject);
        let asked = TenantId(event.tenant) == self.tenant
            && query.subjects.as_ref().is_none_or(subject)
            && is(&query.kind, event.kind)
            && is(&query.source, event.source)
            && is(&query.id, event.id)
            && (query.range == TimeRange::ALL || query.range.contains(event.time()));
        asked.then(|| EventView::of(event, status, position))
    }
}
