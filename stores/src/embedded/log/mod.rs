//! The event log in segment files: `docs/log-format.md` describes the bytes.
//!
//! Blocks are packed by those who append and gathered into a group; one thread writes each group as one frame and makes
//! it durable with one `fdatasync`, while the next group forms. The next frame is written only after that, so that a
//! whole frame behind a broken one proves damage, and only the last frame can be torn.

mod control;
mod expected;
mod extent;
mod format;
mod group;
mod horizon;
mod maintain;
mod opening;
mod payload;
mod queue;
mod read;
mod recovery;
mod replace;
mod segment;
mod space;
#[cfg(test)]
mod tests;
mod walk;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use turnpike_domain::port::log::{Block, Blocks, EventLog, LogHealth, Only, Placed, Told};
use turnpike_domain::port::{BoxFuture, StoreError};
use turnpike_domain::record::Position;
use turnpike_domain::time::{Clock, Randomness, Timestamp};

pub use self::control::{ControlMark, branch};
pub use self::expected::{Branch, Expected, Known};
pub use self::extent::{Extent, extent};

pub use self::horizon::{Horizon, read as horizon};
pub use self::maintain::{Verified, check, verify};
use self::opening::Opened;
pub use self::payload::Compression;
use self::queue::Queue;
use self::segment::Segments;
use self::space::Space;
use self::writer::Writer;
use crate::disk::Disk;
use crate::fault::FailPoints;
use crate::waiting::{self, Waiting};

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Where its segments lie; nothing else lies there.
    pub directory: PathBuf,
    /// Length in bytes from which on a new segment is begun.
    pub segment_bytes: u64,
    /// Bytes of a group that wait for the disk; those who append more wait too. As many again may be on their way to it.
    pub pending_bytes_max: usize,
    /// Bytes of disk space that are taken at once, ahead of the writing.
    pub ahead_bytes: u64,
    /// How blocks are compressed.
    pub compression: Compression,
    /// How often the space on the disk is measured, and after which rest the end is sealed.
    pub tick: Duration,
    /// Bytes of the newest segments before the last one whose checksums a start looks at, whole segments only. The last one
    /// is always read whole.
    pub checked_bytes: u64,
    /// What is known of the log elsewhere.
    pub expected: Expected,
}

impl LogOptions {
    /// Those that fit most: segments of 256 MiB, 16 MiB waiting, LZ4.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            segment_bytes: 256 * 1024 * 1024,
            pending_bytes_max: 16 * 1024 * 1024,
            ahead_bytes: 16 * 1024 * 1024,
            compression: Compression::Lz4,
            tick: Duration::from_millis(500),
            checked_bytes: 256 * 1024 * 1024,
            expected: Expected::default(),
        }
    }
}

/// An [`EventLog`] in segment files.
pub struct SegmentedLog {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What those who append, read and write have in common.
struct Shared {
    options: LogOptions,
    disk: Arc<dyn Disk>,
    fail: Arc<FailPoints>,
    clock: Arc<dyn Clock>,
    identity: u64,
    salt: u32,
    space: Space,
    segments: Segments,
    queue: Mutex<Queue>,
    /// There is something to write, or the log is closing.
    work: Condvar,
    /// A group has left for the disk: there is room for another.
    room: Condvar,
    /// A group became durable, or never will.
    settled: Condvar,
    /// Those who are told of the same without waiting for it.
    waiting: Waiting,
    /// The position before which everything is durable.
    durable: AtomicU64,
    poison: OnceLock<String>,
    /// The first damage that a reading met.
    damage: OnceLock<String>,
    cache: read::Cache,
    /// What retention has deleted. Held while segments are.
    retention: Mutex<Option<Horizon>>,
}

impl SegmentedLog {
    /// Opens the log in a directory, which is made where there is none, and starts its writer.
    ///
    /// A torn end of the last segment is cut off. Damage anywhere else is refused with [`StoreError::Damaged`], as is a
    /// log that is not the one that [`LogOptions::expected`] describes; then nothing was changed.
    pub fn open(
        options: LogOptions,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        randomness: &dyn Randomness,
        fail: Arc<FailPoints>,
    ) -> Result<Arc<Self>, StoreError> {
        let opened = Opened::open(&options, &*disk, randomness)?;
        let Opened {
            segments,
            target,
            segment,
            header,
            tail,
            horizon,
        } = opened;
        let end = tail.end;
        let horizon = opening::with_first(&options.directory, &*disk, horizon, &segments, &fail)?;
        let shared = Arc::new(Shared {
            space: Space {
                disk: Arc::clone(&disk),
                directory: options.directory.clone(),
                chunk: options.ahead_bytes,
            },
            options,
            disk,
            fail,
            clock,
            identity: header.identity,
            salt: header.salt(),
            segments: Segments::new(segments),
            queue: Mutex::new(Queue {
                forming: None,
                flying: None,
                next: end,
                end,
                sequence: tail.sequence,
                target: Arc::clone(&target),
                full: None,
                sealed: tail.sealed,
                closing: false,
                spare: Vec::new(),
            }),
            work: Condvar::new(),
            room: Condvar::new(),
            settled: Condvar::new(),
            waiting: Waiting::default(),
            durable: AtomicU64::new(Position::new(end, 0).0),
            poison: OnceLock::new(),
            damage: OnceLock::new(),
            cache: read::Cache::default(),
            retention: Mutex::new(horizon),
        });
        shared.measure();
        let writer = Writer {
            shared: Arc::clone(&shared),
            target,
            segment,
        };
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::Failed(format!("the log's writer cannot be started: {error}")))?;
        Ok(Arc::new(Self {
            shared,
            writer: Mutex::new(Some(thread)),
        }))
    }

    /// What tells this log from every other one.
    pub fn identity(&self) -> u64 {
        self.shared.identity
    }

    /// Takes no more, makes durable what was taken, seals the end and stops the writer.
    /// An error when something that was taken did not become durable.
    pub fn close(&self) -> Result<(), StoreError> {
        self.shared.queue.lock().closing = true;
        self.shared.work.notify_all();
        self.shared.room.notify_all();
        let writer = self.writer.lock().take();
        if let Some(thread) = writer
            && thread.join().is_err()
        {
            self.shared.poison("the writer ended unexpectedly".to_owned());
        }
        self.shared.tell();
        self.shared.poisoned()
    }
}

impl Drop for SegmentedLog {
    fn drop(&mut self) {
        // Those who care close it themselves and hear of failures; the writer has reported them too.
        let _ = self.close();
    }
}

impl Shared {
    /// Nothing becomes durable any more; says so to all who wait.
    fn poison(&self, why: String) {
        // The first failure is the one to tell.
        let _ = self.poison.set(why);
        let mut queue = self.queue.lock();
        queue.forming = None;
        queue.flying = None;
        drop(queue);
        self.tell();
    }

    fn poisoned(&self) -> Result<(), StoreError> {
        let why = self.poison.get().cloned();
        why.map_or(Ok(()), |why| Err(StoreError::Poisoned(why)))
    }

    fn tell(&self) {
        self.room.notify_all();
        self.settled.notify_all();
        // Before who waits is looked at: a writer that ends later tells again.
        let gone = self.writer_is_gone();
        self.waiting.tell(|position| {
            self.reached(position)
                .or_else(|| gone.then(|| Err(queue::closed())))
        });
    }

    fn durable(&self) -> Position {
        Position(self.durable.load(Ordering::Acquire))
    }

    /// Whether a wait for `position` is over, and how.
    fn reached(&self, position: Position) -> Option<Result<(), StoreError>> {
        if position <= self.durable() {
            return Some(Ok(()));
        }
        self.poisoned().err().map(Err)
    }

    /// The same, also where nothing is left to be written.
    fn ended(&self, position: Position) -> Option<Result<(), StoreError>> {
        self.reached(position).or_else(|| {
            // Looked at again behind that: the last group may have become durable in between.
            let gone = self.writer_is_gone();
            gone.then(|| self.reached(position).unwrap_or_else(|| Err(queue::closed())))
        })
    }

    /// Whether nothing that was taken is left to be written and nothing more will be taken.
    fn writer_is_gone(&self) -> bool {
        let queue = self.queue.lock();
        queue.closing && queue.forming.is_none() && queue.flying.is_none()
    }

    fn on_disk(&self) -> u64 {
        let queue = self.queue.lock();
        queue.target.start + queue.target.allocated.load(Ordering::Acquire) - self.segments.first()
    }
}

impl EventLog for SegmentedLog {
    fn append_all(&self, blocks: Vec<Block>) -> Result<Vec<Placed>, StoreError> {
        self.shared.take(&blocks)
    }

    fn durable(&self) -> Position {
        self.shared.durable()
    }

    fn wait_durable(&self, position: Position) -> BoxFuture<'_, Result<(), StoreError>> {
        waiting::wait(|told| self.when_durable(position, told))
    }

    fn when_durable(&self, position: Position, told: Told) {
        let shared = &self.shared;
        shared
            .waiting
            .add(position, told, |position| shared.ended(position));
    }

    fn wait_durable_blocking(&self, position: Position) -> Result<(), StoreError> {
        if let Some(result) = self.shared.reached(position) {
            return result;
        }
        let mut queue = self.shared.queue.lock();
        loop {
            if let Some(result) = self.shared.reached(position) {
                return result;
            }
            if queue.closing && queue.forming.is_none() && queue.flying.is_none() {
                return Err(queue::closed());
            }
            self.shared.settled.wait(&mut queue);
        }
    }

    fn read(&self, from: Position, only: Only) -> Blocks<'_> {
        let blocks = self.shared.read(from, only);
        Box::new(blocks.inspect(|step| self.shared.note_damage(step)))
    }

    fn read_back(&self, until: Position, only: Only) -> Blocks<'_> {
        let blocks = self.shared.read_back(until, only);
        Box::new(blocks.inspect(|step| self.shared.note_damage(step)))
    }

    fn fetch(&self, position: Position) -> Result<Vec<u8>, StoreError> {
        let found = self.shared.fetch(position);
        self.shared.note_damage(&found);
        found
    }

    fn retain(&self, before: Position, horizon: Timestamp) -> Result<Position, StoreError> {
        self.shared.retain(before, horizon)
    }

    fn horizon(&self) -> Option<Timestamp> {
        let horizon = *self.shared.retention.lock();
        horizon.map(|horizon| horizon.before)
    }

    fn first(&self) -> Position {
        Position::new(self.shared.segments.first(), 0)
    }

    fn end(&self) -> Position {
        Position::new(self.shared.queue.lock().end, 0)
    }

    fn health(&self) -> LogHealth {
        self.shared.state()
    }

    fn bytes(&self) -> u64 {
        self.shared.on_disk()
    }
}
