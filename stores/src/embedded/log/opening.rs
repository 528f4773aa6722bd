//! A start: what was found is checked, and only then changed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use turnpike_domain::port::StoreError;
use turnpike_domain::time::Randomness;

use super::LogOptions;
use super::expected::Beside;
use super::format::{SEGMENT_HEADER, SegmentHeader, VERSION};
use super::group::Target;
use super::horizon::{self, Horizon};
use super::recovery::{self, Tail};
use super::segment::{self, Segment, failed};
use crate::disk::Disk;
use crate::fault::FailPoints;
use crate::width::in_memory;

/// What opening leaves for the log to start with.
pub(super) struct Opened {
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) target: Arc<Target>,
    pub(super) segment: Arc<Segment>,
    pub(super) header: SegmentHeader,
    pub(super) tail: Tail,
    pub(super) horizon: Option<Horizon>,
}

impl Opened {
    pub(super) fn open(
        options: &LogOptions,
        disk: &dyn Disk,
        randomness: &dyn Randomness,
    ) -> Result<Self, StoreError> {
        let directory = &options.directory;
        if options.pending_bytes_max > u32::MAX as usize / 2 {
            return Err(StoreError::Failed(
                "pending_bytes_max of the log is at most 2 GiB".to_owned(),
            ));
        }
        let (chain, unborn) = match recovery::chain(disk, directory)? {
            Ok(mut chain) => {
                let unborn = std::mem::take(&mut chain.unborn);
                (Some(chain), unborn)
            }
            Err(unborn) => (None, unborn),
        };
        let beside = Beside::read(disk, directory)?;
        options.expected.check(directory, chain.as_ref(), &beside)?;
        if let Some(chain) = &chain {
            recovery::check_newest(disk, &chain.segments, options.checked_bytes)?;
        }
        // The last one first: at every stop in between those that are left are the last ones still.
        for path in unborn.into_iter().rev() {
            tracing::info!(path = %path.display(), "removing a segment whose making was interrupted");
            let removed = disk.remove(&path).and_then(|()| disk.sync_directory(directory));
            removed.map_err(|error| failed(&path, "removing", &error))?;
        }
        let Some(chain) = chain else {
            return Self::create(directory, disk, randomness);
        };
        let segment = Arc::clone(
            chain
                .segments
                .last()
                .ok_or_else(|| StoreError::Failed("no segment".to_owned()))?,
        );
        cut(disk, directory, &segment, &chain.tail)?;
        let header = SegmentHeader {
            version: VERSION,
            start: segment.start,
            identity: chain.identity,
            sequence: chain.tail.sequence,
        };
        let target = Arc::new(Target {
            start: segment.start,
            path: segment.path.clone(),
            file: Arc::clone(&chain.tail.file),
            allocated: AtomicU64::new(chain.tail.end - segment.start),
        });
        Ok(Self {
            segments: chain.segments,
            target,
            segment,
            header,
            tail: chain.tail,
            horizon: beside.horizon,
        })
    }

    /// Makes the first segment of a new log.
    fn create(directory: &Path, disk: &dyn Disk, randomness: &dyn Randomness) -> Result<Self, StoreError> {
        let making = |error| failed(directory, "making the log in", &error);
        disk.create_directory(directory).map_err(making)?;
        if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            disk.sync_directory(parent).map_err(making)?;
        }
        let mut identity = [0; 8];
        randomness.fill(&mut identity);
        let header = SegmentHeader {
            version: VERSION,
            start: 0,
            identity: u64::from_le_bytes(identity),
            sequence: 1,
        };
        let path = segment::path(directory, 0);
        let file: Arc<dyn crate::disk::DiskFile> = disk.create(&path).map_err(making)?.into();
        recovery::write_header(disk, directory, &*file, &header)?;
        let segment = Arc::new(Segment::new(path.clone(), 0, header.salt(), &file));
        let tail = Tail {
            file: Arc::clone(&file),
            end: SEGMENT_HEADER as u64,
            sequence: header.sequence,
            last_frame: None,
            sealed: true,
            torn: 0,
            len: SEGMENT_HEADER as u64,
        };
        let allocated = AtomicU64::new(tail.len);
        let target = Arc::new(Target {
            start: 0,
            path,
            file,
            allocated,
        });
        Ok(Self {
            segments: vec![Arc::clone(&segment)],
            target,
            segment,
            header,
            tail,
            horizon: None,
        })
    }
}

/// The horizon with the offset that version 1 of its file did not tell: where the log begins now.
pub(super) fn with_first(
    directory: &Path,
    disk: &dyn Disk,
    horizon: Option<Horizon>,
    segments: &[Arc<Segment>],
    fail: &FailPoints,
) -> Result<Option<Horizon>, StoreError> {
    let (Some(Horizon { before, first: None }), Some(segment)) = (horizon, segments.first()) else {
        return Ok(horizon);
    };
    let horizon = Horizon {
        before,
        first: Some(segment.start),
    };
    horizon::write(disk, directory, horizon, fail)?;
    Ok(Some(horizon))
}

/// Cuts off what lies behind the last whole frame (a torn frame, space taken ahead) and makes the rest durable.
fn cut(disk: &dyn Disk, directory: &Path, segment: &Segment, tail: &Tail) -> Result<(), StoreError> {
    if tail.torn > 0 {
        tracing::warn!(
            path = %segment.path.display(), offset = tail.end, bytes = tail.torn,
            "cutting a torn end off the log: what it held was never acknowledged"
        );
        metrics::counter!("turnpike_log_torn_bytes_total").increment(tail.torn);
    }
    let settled = settle(segment, tail);
    let settled = settled.and_then(|()| disk.sync_directory(directory));
    settled.map_err(|error| failed(&segment.path, "making durable", &error))
}

/// Makes durable what was found, for it will be built upon: a process that was killed, or whose sync failed, may have left
/// it in the operating system's cache only. There a page whose sync failed counts as clean, so the last frame is written
/// anew; those before it had been durable before it was written.
fn settle(segment: &Segment, tail: &Tail) -> std::io::Result<()> {
    let len = tail.end - segment.start;
    tail.file.set_len(len)?;
    let frame = tail.last_frame.map(|offset| offset - segment.start..len);
    for range in [Some(0..SEGMENT_HEADER as u64), frame].into_iter().flatten() {
        let mut bytes = vec![0; in_memory(range.end - range.start)];
        tail.file.read_at(&mut bytes, range.start)?;
        tail.file.write_at(&bytes, range.start)?;
    }
    tail.file.sync()
}
