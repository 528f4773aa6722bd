//! Between those who append and the writer: the group that forms while another is on its way to the disk.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use turnpike_domain::port::StoreError;
use turnpike_domain::port::log::{Block, LogHealth, Placed};
use turnpike_domain::record::Position;

use super::format::{FRAME_BODY_MAX, FRAME_HEADER, SEGMENT_HEADER};
use super::group::{Group, Target};
use super::payload::{self, Packed};
use super::segment::{failed, path};
use super::{Shared, space};
use crate::width::metric;

/// What appending and writing share, behind one lock that is held for the copying of a block at the most, and for the
/// taking of space.
pub(super) struct Queue {
    pub(super) forming: Option<Group>,
    pub(super) flying: Option<Arc<Group>>,
    /// Where the next frame starts; at a segment's start before its header.
    pub(super) next: u64,
    /// Behind the last block that was taken.
    pub(super) end: u64,
    /// Sequence of the next frame.
    pub(super) sequence: u64,
    /// Where the next frame goes.
    pub(super) target: Arc<Target>,
    /// Why no records are taken for now.
    pub(super) full: Option<Full>,
    /// Whether the last frame is a seal.
    pub(super) sealed: bool,
    pub(super) closing: bool,
    /// Memory of the last group, for the next one.
    pub(super) spare: Vec<u8>,
}

/// A disk that is full.
pub(super) struct Full {
    why: String,
    /// Length of the block that did not fit: with space for as much, records are taken again.
    wanted: u64,
}

/// What the writer does next.
pub(super) enum Work {
    Write(Arc<Group>),
    /// Nothing came for a while.
    Idle,
    Close,
}

impl Shared {
    /// Takes blocks into one group: packs them on the caller's thread, then gives them their places.
    pub(super) fn take(&self, blocks: &[Block]) -> Result<Vec<Placed>, StoreError> {
        let packed = self.pack(blocks)?;
        if packed.is_empty() {
            return Ok(Vec::new());
        }
        let len = length(&packed);
        let mut queue = self.queue.lock();
        loop {
            self.refusal(&queue)?;
            let waiting = queue.forming.as_ref().map_or(0, |group| group.bytes().len());
            if waiting == 0 || waiting + len <= self.options.pending_bytes_max {
                break;
            }
            self.room.wait(&mut queue);
        }
        let placed = match self.place(&mut queue, &packed) {
            Ok(placed) => placed,
            Err(StoreError::Full(why)) => {
                tracing::warn!(%why, "the log takes no records until there is space");
                queue.full = Some(Full {
                    why: why.clone(),
                    wanted: len as u64,
                });
                return Err(StoreError::Full(why));
            }
            Err(error) => return Err(error),
        };
        queue.end = queue.next;
        drop(queue);
        self.work.notify_one();
        Ok(placed)
    }

    fn pack(&self, blocks: &[Block]) -> Result<Vec<Packed>, StoreError> {
        let mut packed = Vec::with_capacity(blocks.len());
        for block in blocks {
            self.fail.pass("log.before_append")?;
            packed.push(payload::pack(block, self.options.compression)?);
        }
        if length(&packed) > FRAME_BODY_MAX {
            return Err(StoreError::Failed(format!(
                "blocks that belong together have at most {FRAME_BODY_MAX} bytes"
            )));
        }
        Ok(packed)
    }

    /// Why nothing can be taken now.
    fn refusal(&self, queue: &Queue) -> Result<(), StoreError> {
        self.poisoned()?;
        if queue.closing {
            return Err(closed());
        }
        let full = queue.full.as_ref();
        full.map_or(Ok(()), |full| Err(StoreError::Full(full.why.clone())))
    }

    /// Puts blocks into the forming group, for which a new one may begin, in a new segment perhaps: a group is durable
    /// as a whole or not at all. On an error nothing was taken.
    fn place(&self, queue: &mut Queue, packed: &[Packed]) -> Result<Vec<Placed>, StoreError> {
        let more = length(packed);
        if let Some(group) = &mut queue.forming {
            let len = group.file_offset() + (group.bytes().len() + more) as u64;
            self.space.ensure(&group.target, len)?;
            let placed = packed.iter().map(|packed| push(group, packed)).collect();
            queue.next = group.end();
            return Ok(placed);
        }
        if queue.next - queue.target.start >= self.options.segment_bytes {
            queue.target = self.new_target(queue.next)?;
        }
        let mut group = self.group(queue);
        self.space
            .ensure(&group.target, group.file_offset() + (FRAME_HEADER + more) as u64)?;
        let placed = packed.iter().map(|packed| push(&mut group, packed)).collect();
        Self::begin(queue, group);
        Ok(placed)
    }

    /// An empty group at the end of the log; it is not part of the log yet.
    fn group(&self, queue: &mut Queue) -> Group {
        let target = Arc::clone(&queue.target);
        let fresh = queue.next == target.start;
        let offset = queue.next + if fresh { SEGMENT_HEADER as u64 } else { 0 };
        let spare = std::mem::take(&mut queue.spare);
        Group::new(offset, queue.sequence, self.salt, target, spare)
    }

    fn begin(queue: &mut Queue, group: Group) {
        queue.next = group.end();
        queue.sequence += 1;
        queue.forming = Some(group);
    }

    /// A file for the segment that starts at `start`. The writer gives it its header.
    fn new_target(&self, start: u64) -> Result<Arc<Target>, StoreError> {
        let path = path(&self.options.directory, start);
        let file = self.disk.create(&path).map_err(|error| {
            if space::is_full(&error) {
                StoreError::Full(format!("there is no space for {}: {error}", path.display()))
            } else {
                failed(&path, "making", &error)
            }
        })?;
        Ok(Arc::new(Target {
            start,
            path,
            file: file.into(),
            allocated: AtomicU64::new(0),
        }))
    }

    /// Waits for work. The group that it returns stays readable in the queue until [`Shared::settle`].
    pub(super) fn next_work(&self) -> Work {
        let mut queue = self.queue.lock();
        loop {
            if let Some(mut group) = queue.forming.take() {
                group.close();
                let group = Arc::new(group);
                queue.flying = Some(Arc::clone(&group));
                metrics::gauge!("turnpike_log_pending_bytes").set(metric(group.bytes().len() as u64));
                self.room.notify_all();
                return Work::Write(group);
            }
            if queue.closing {
                return Work::Close;
            }
            if self.work.wait_for(&mut queue, self.options.tick).timed_out() {
                return Work::Idle;
            }
        }
    }

    /// Begins a frame without blocks, which proves that what came before it was whole, unless there is one already.
    pub(super) fn seal(&self) -> Option<Arc<Group>> {
        let mut queue = self.queue.lock();
        if queue.sealed || queue.forming.is_some() || queue.next == queue.target.start {
            return None;
        }
        let mut group = self.group(&mut queue);
        let len = group.file_offset() + FRAME_HEADER as u64;
        self.space.ensure(&group.target, len).ok()?;
        queue.next = group.end();
        queue.sequence += 1;
        group.close();
        let group = Arc::new(group);
        queue.flying = Some(Arc::clone(&group));
        Some(group)
    }

    /// What was written is durable: tells those who wait.
    pub(super) fn settle(&self, group: Arc<Group>) {
        let mut queue = self.queue.lock();
        let waiting = queue.forming.as_ref().map_or(0, |group| group.bytes().len());
        metrics::gauge!("turnpike_log_pending_bytes").set(metric(waiting as u64));
        queue.sealed = group.is_seal();
        queue.flying = None;
        if !group.is_seal() {
            let durable = Position::new(group.end(), 0);
            self.durable
                .store(durable.0, std::sync::atomic::Ordering::Release);
        }
        if let Some(group) = Arc::into_inner(group) {
            let mut spare = group.into_bytes();
            spare.shrink_to(self.options.pending_bytes_max);
            queue.spare = spare;
        }
        drop(queue);
        self.tell();
    }

    /// Looks whether there is space again, or no more.
    pub(super) fn measure(&self) {
        let mut queue = self.queue.lock();
        let target = Arc::clone(&queue.target);
        let space = self.space.check().and_then(|()| match &queue.full {
            Some(full) => {
                let headers = (SEGMENT_HEADER + FRAME_HEADER) as u64;
                self.space
                    .ensure(&target, queue.next - target.start + headers + full.wanted)
            }
            None => Ok(()),
        });
        match (space, &queue.full) {
            (Ok(()), Some(_)) => {
                tracing::info!("there is space again: the log takes records");
                queue.full = None;
            }
            (Err(StoreError::Full(why)), None) => {
                tracing::warn!(%why, "the log takes no records until there is space");
                queue.full = Some(Full { why, wanted: 0 });
            }
            (Err(StoreError::Full(_)) | Ok(()), _) => {}
            // A failing disk shows itself at the next write.
            (Err(error), _) => tracing::warn!(%error, "the space for the log cannot be measured"),
        }
    }

    /// Whether records are taken.
    pub(super) fn state(&self) -> LogHealth {
        if let Err(error) = self.poisoned() {
            return LogHealth::Poisoned(error.to_string());
        }
        let queue = self.queue.lock();
        let full = queue.full.as_ref();
        match (full, self.damage.get()) {
            (Some(full), _) => LogHealth::Full(full.why.clone()),
            (None, Some(place)) => LogHealth::Damaged(place.clone()),
            (None, None) => LogHealth::Healthy,
        }
    }
}

/// Length of blocks in the log.
fn length(packed: &[Packed]) -> usize {
    packed.iter().map(Packed::len).sum()
}

fn push(group: &mut Group, packed: &Packed) -> Placed {
    let header = group.push(packed);
    (Position::new(header.offset, 0), Position::new(header.end(), 0))
}

/// The answer of a log that was closed.
pub(super) fn closed() -> StoreError {
    StoreError::Failed("the log is closed".to_owned())
}
