//! Reading: forwards, backwards, and one record.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::log::{Block, Blocks, Only, StoredBlock};
use turnpike_domain::record::Position;

use super::Shared;
use super::format::{BlockHeader, Header};
use super::payload;
use super::segment::{Segment, index_of};
use super::walk::Walk;

/// Blocks that are kept unpacked for single records.
const CACHE_BLOCKS: usize = 16;
/// A longer block is not kept.
const CACHE_BLOCK_BYTES_MAX: usize = 1024 * 1024;

type Step = Result<Option<StoredBlock>, StoreError>;

/// The blocks that single records were read from last.
#[derive(Default)]
pub(super) struct Cache(Mutex<VecDeque<(u64, Arc<Block>)>>);

impl Cache {
    fn get(&self, offset: u64) -> Option<Arc<Block>> {
        let mut blocks = self.0.lock();
        let at = blocks.iter().position(|(kept, _)| *kept == offset)?;
        let found = blocks.remove(at)?;
        let block = Arc::clone(&found.1);
        blocks.push_front(found);
        Some(block)
    }

    fn put(&self, offset: u64, block: Arc<Block>) {
        if block.bytes.len() > CACHE_BLOCK_BYTES_MAX {
            return;
        }
        let mut blocks = self.0.lock();
        blocks.truncate(CACHE_BLOCKS - 1);
        blocks.push_front((offset, block));
    }
}

impl Shared {
    pub(super) fn read(&self, from: Position, only: Only) -> Blocks<'_> {
        let until = self.durable().offset();
        let segments = self.segments.all();
        let at = index_of(&segments, from.offset());
        Box::new(Fused(Some(Forward {
            log: self,
            segments,
            at,
            from: from.offset(),
            until,
            only,
            walk: None,
        })))
    }

    pub(super) fn read_back(&self, until: Position, only: Only) -> Blocks<'_> {
        let until = until.min(self.durable());
        let segments = self.segments.all();
        let at = index_of(&segments, until.offset());
        // A position in a block wants that block too.
        let limit = until.offset() + u64::from(until.index() > 0);
        Box::new(Fused(Some(Backward {
            log: self,
            segments,
            at: Some(at),
            limit,
            only,
            headers: Vec::new(),
        })))
    }

    pub(super) fn fetch(&self, position: Position) -> Result<Vec<u8>, StoreError> {
        let record = |block: &Block| {
            let record = block.records().nth(usize::from(position.index()));
            record.map(<[u8]>::to_vec).ok_or_else(|| gone(position))
        };
        let offset = position.offset();
        if let Some(found) = self.in_memory(offset)? {
            let block = payload::unpack(&found.0, &found.1);
            return record(&block.map_err(|broken| StoreError::Failed(broken.to_owned()))?);
        }
        if offset < self.segments.first() || offset >= self.durable().offset() {
            return Err(gone(position));
        }
        if let Some(block) = self.cache.get(offset) {
            return record(&block);
        }
        let block = Arc::new(self.block_at(offset)?.ok_or_else(|| gone(position))?);
        self.cache.put(offset, Arc::clone(&block));
        record(&block)
    }

    /// Remembers the first damage that is met, for [`super::EventLog::health`]: nothing heals it while the process runs.
    pub(super) fn note_damage<T>(&self, read: &Result<T, StoreError>) {
        if let Err(StoreError::Damaged(place)) = read
            && self.damage.set(place.clone()).is_ok()
        {
            tracing::error!(%place, "the log is damaged: look with `turnpike doctor`, and restore a backup");
        }
    }

    /// The block at `offset` as it waits for the disk.
    fn in_memory(&self, offset: u64) -> Result<Option<(BlockHeader, Vec<u8>)>, StoreError> {
        if offset < self.durable().offset() {
            return Ok(None);
        }
        self.poisoned()?;
        let queue = self.queue.lock();
        let groups = [queue.forming.as_ref(), queue.flying.as_deref()];
        let found = groups
            .into_iter()
            .flatten()
            .find_map(|group| group.block_at(offset));
        Ok(found.map(|(header, payload)| (header, payload.to_vec())))
    }

    /// The durable block at `offset`, `None` where no block starts.
    fn block_at(&self, offset: u64) -> Result<Option<Block>, StoreError> {
        let segments = self.segments.all();
        let at = index_of(&segments, offset);
        let Some(segment) = segments.get(at).filter(|segment| segment.body() <= offset) else {
            return Ok(None);
        };
        let end = self.end_of(&segments, at);
        let mut walk = Walk::new(&*self.disk, segment, offset, end)?.short();
        match walk.next() {
            Ok(Some(Header::Block(header))) => Ok(Some(walk.block(&header)?.block)),
            Ok(_) => Ok(None),
            // Damage, or no place where anything starts: walking there tells the two apart.
            Err(error) => {
                let mut walk = self.walk_to(segment, offset, end)?;
                if walk.at() == offset {
                    walk.next()?;
                    return Err(error);
                }
                Ok(None)
            }
        }
    }

    /// Offset behind the last frame of a segment.
    fn end_of(&self, segments: &[Arc<Segment>], at: usize) -> u64 {
        segments
            .get(at + 1)
            .map_or_else(|| self.durable().offset(), |next| next.start)
    }

    /// A walk that stands at `offset`, or at the first header behind it.
    fn walk_to(&self, segment: &Arc<Segment>, offset: u64, end: u64) -> Result<Walk, StoreError> {
        let mut walk = Walk::new(&*self.disk, segment, segment.frame_before(offset), end)?;
        while walk.at() < offset && walk.next()?.is_some() {}
        Ok(walk)
    }
}

fn gone(position: Position) -> StoreError {
    StoreError::Gone(format!("no record at position {}", position.0))
}

/// Ends for good with the first error.
struct Fused<S>(Option<S>);

trait Steps {
    fn step(&mut self) -> Step;
}

impl<S: Steps> Iterator for Fused<S> {
    type Item = Result<StoredBlock, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.0.as_mut()?.step();
        if !matches!(step, Ok(Some(_))) {
            self.0 = None;
        }
        step.transpose()
    }
}

/// Blocks in order.
struct Forward<'a> {
    log: &'a Shared,
    segments: Arc<Vec<Arc<Segment>>>,
    at: usize,
    from: u64,
    until: u64,
    only: Only,
    walk: Option<Walk>,
}

impl Steps for Forward<'_> {
    fn step(&mut self) -> Step {
        loop {
            let Some(walk) = &mut self.walk else {
                let Some(segment) = self.segments.get(self.at) else {
                    return Ok(None);
                };
                let end = self
                    .segments
                    .get(self.at + 1)
                    .map_or(self.until, |next| next.start);
                let end = end.min(self.until);
                if end > segment.body() {
                    self.walk = Some(self.log.start(segment, self.from, end)?);
                } else {
                    self.at += 1;
                }
                continue;
            };
            match walk.next()? {
                Some(Header::Block(header)) if self.only.wants(header.partition, header.times) => {
                    return walk.block(&header).map(Some);
                }
                Some(_) => {}
                None => {
                    self.walk = None;
                    self.at += 1;
                }
            }
        }
    }
}

impl Shared {
    /// A walk from the first header at or behind `from` on.
    fn start(&self, segment: &Arc<Segment>, from: u64, end: u64) -> Result<Walk, StoreError> {
        if from <= segment.body() {
            return Walk::new(&*self.disk, segment, segment.body(), end);
        }
        if from >= end {
            return Walk::new(&*self.disk, segment, end, end);
        }
        // Positions that the log gave out are places where something starts: no need to walk there.
        let mut direct = Walk::new(&*self.disk, segment, from, end)?.short();
        match direct.next() {
            Ok(_) => Walk::new(&*self.disk, segment, from, end),
            Err(_) => self.walk_to(segment, from, end),
        }
    }
}

/// Blocks, newest first: the headers of a piece of a segment at a time.
struct Backward<'a> {
    log: &'a Shared,
    segments: Arc<Vec<Arc<Segment>>>,
    /// The segment that is being read.
    at: Option<usize>,
    /// Blocks that start before this offset are still to come.
    limit: u64,
    only: Only,
    /// Wanted blocks, the newest last.
    headers: Vec<BlockHeader>,
}

impl Steps for Backward<'_> {
    fn step(&mut self) -> Step {
        loop {
            let Some(at) = self.at else { return Ok(None) };
            let Some(segment) = self.segments.get(at) else {
                return Ok(None);
            };
            let end = self
                .segments
                .get(at + 1)
                .map_or_else(|| self.log.durable().offset(), |next| next.start);
            if let Some(header) = self.headers.pop() {
                let mut walk = Walk::new(&*self.log.disk, segment, header.offset, end)?.exact();
                return walk.block(&header).map(Some);
            }
            if self.limit <= segment.body() {
                self.limit = segment.start;
                self.at = at.checked_sub(1);
                continue;
            }
            self.headers = self.log.headers(segment, &mut self.limit, end, self.only)?;
        }
    }
}

impl Shared {
    /// Headers of wanted blocks that start before `limit` in the last piece before it; moves `limit` to its start.
    fn headers(
        &self,
        segment: &Arc<Segment>,
        limit: &mut u64,
        end: u64,
        only: Only,
    ) -> Result<Vec<BlockHeader>, StoreError> {
        // Frames of a segment that was not read since the start are found by walking through it once.
        while segment.noted() < (*limit).min(end) {
            let mut walk = Walk::new(&*self.disk, segment, segment.noted(), end)?;
            while walk.next()?.is_some() {}
        }
        let start = segment.frame_before(*limit - 1);
        let mut walk = Walk::new(&*self.disk, segment, start, end)?;
        let mut headers = Vec::new();
        while walk.at() < *limit {
            match walk.next()? {
                Some(Header::Block(header)) => {
                    if header.offset < *limit && only.wants(header.partition, header.times) {
                        headers.push(header);
                    }
                }
                Some(Header::Frame(_)) => {}
                None => break,
            }
        }
        *limit = start;
        Ok(headers)
    }
}
