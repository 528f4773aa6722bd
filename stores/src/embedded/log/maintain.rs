//! Retention, and the verification of a whole log.

use std::path::Path;

use turnpike_domain::port::StoreError;
use turnpike_domain::record::Position;
use turnpike_domain::time::Timestamp;

use super::Shared;
use super::expected::{Beside, Expected};
use super::format::Header;
use super::horizon::{self, Horizon};
use super::recovery;
use super::segment::{failed, index_of};
use super::walk::Walk;
use crate::disk::Disk;
use crate::width::metric;

/// What a verification went through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Segment files.
    pub segments: u64,
    /// Frames, seals included.
    pub frames: u64,
    /// Blocks.
    pub blocks: u64,
    /// Records.
    pub records: u64,
    /// Bytes of whole frames and of headers.
    pub bytes: u64,
    /// Bytes of a torn frame at the end, which the next start will cut off.
    pub torn_bytes: u64,
}

/// Whether the log in a directory, which no process has open, is the one that is expected, as opening it demands. Changes
/// nothing.
///
/// # Errors
/// [`StoreError::Damaged`] says what is missing, and what to restore.
pub fn check(disk: &dyn Disk, directory: &Path, expected: Expected) -> Result<(), StoreError> {
    let chain = recovery::chain(disk, directory)?.ok();
    expected.check(directory, chain.as_ref(), &Beside::read(disk, directory)?)
}

/// Reads a whole log that no process has open, checks every checksum and unpacks every block. Changes nothing.
///
/// `progress` is called with the bytes done and the bytes in all. Damage ends it with [`StoreError::Damaged`].
pub fn verify(
    disk: &dyn Disk,
    directory: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verified, StoreError> {
    let mut verified = Verified::default();
    let Ok(chain) = recovery::chain(disk, directory)? else {
        return Ok(verified);
    };
    let first = chain.segments.first().map_or(0, |segment| segment.start);
    let total = chain.tail.end - first;
    let mut sequence = None;
    for (at, segment) in chain.segments.iter().enumerate() {
        let end = chain
            .segments
            .get(at + 1)
            .map_or(chain.tail.end, |next| next.start);
        let mut walk = Walk::new(disk, segment, segment.body(), end)?;
        while let Some(header) = walk.next()? {
            match header {
                Header::Frame(frame) => {
                    if sequence.is_some_and(|before| before + 1 != frame.sequence) {
                        return Err(segment.damage(frame.offset, "frames are missing before this one"));
                    }
                    sequence = Some(frame.sequence);
                    verified.frames += 1;
                    progress(frame.offset - first, total);
                }
                Header::Block(block) => {
                    verified.blocks += 1;
                    verified.records += walk.block(&block)?.block.ends.len() as u64;
                }
            }
        }
        verified.segments += 1;
    }
    verified.bytes = total;
    verified.torn_bytes = chain.tail.torn;
    progress(total, total);
    Ok(verified)
}

impl Shared {
    /// Deletes segments that end at or before `before`, the oldest first, so that a stop in between leaves no gap.
    pub(super) fn retain(&self, before: Position, horizon: Timestamp) -> Result<Position, StoreError> {
        let mut kept = self.retention.lock();
        let directory = &self.options.directory;
        let segments = self.segments.all();
        // Found once: a segment that is begun meanwhile is not one that the horizon tells of.
        let first = segments
            .get(index_of(&segments, before.offset()))
            .map_or(0, |segment| segment.start);
        if self.segments.first() < first {
            let next = Horizon {
                before: kept.map_or(horizon, |kept| kept.before.max(horizon)),
                first: Some(first),
            };
            if *kept != Some(next) {
                horizon::write(&*self.disk, directory, next, &self.fail)?;
                *kept = Some(next);
            }
        }
        while self.segments.first() < first {
            let Some(segment) = self.segments.pop_first() else {
                break;
            };
            let removed = self
                .disk
                .remove(&segment.path)
                .and_then(|()| self.disk.sync_directory(directory));
            removed.map_err(|error| failed(&segment.path, "deleting", &error))?;
            tracing::info!(path = %segment.path.display(), "deleted a segment of the log that is past its retention");
            self.fail.pass("log.segment_deleted")?;
        }
        metrics::gauge!("turnpike_log_bytes").set(metric(self.on_disk()));
        Ok(Position::new(self.segments.first(), 0))
    }
}
