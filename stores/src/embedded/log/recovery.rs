//! What a start finds: the chain of segments, the end of the last one, and damage.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use turnpike_domain::port::StoreError;

use super::format::{FRAME_HEADER, FRAME_MAGIC, FrameHeader, Header, SEGMENT_HEADER, SegmentHeader, VERSION};
use super::segment::{Segment, damage, failed, path, start_of};
use super::walk::Walk;
use crate::disk::{Disk, DiskFile};
use crate::width::in_memory;

/// Bytes that are searched at once.
const SEARCH_BYTES: usize = 1024 * 1024;

/// A segment file whose header was read.
struct Found {
    header: SegmentHeader,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    len: u64,
}

/// The end of the last segment.
pub(super) struct Tail {
    pub(super) file: Arc<dyn DiskFile>,
    /// Offset behind the last whole frame.
    pub(super) end: u64,
    /// Offset of the last whole frame, if there is one.
    pub(super) last_frame: Option<u64>,
    /// Sequence of the next frame.
    pub(super) sequence: u64,
    /// Whether the last frame is a seal.
    pub(super) sealed: bool,
    /// Bytes of a torn frame behind the end; 0 after a clean stop.
    pub(super) torn: u64,
    /// Length of the file.
    pub(super) len: u64,
}

/// The segments of a log and its end.
pub(super) struct Chain {
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) identity: u64,
    pub(super) tail: Tail,
    /// Last segments whose making was interrupted before anything was written to them.
    pub(super) unborn: Vec<PathBuf>,
}

/// Reads the headers of all segments and the whole last segment. Changes nothing. Where there is no log yet, the files whose
/// making was interrupted.
pub(super) fn chain(disk: &dyn Disk, directory: &Path) -> Result<Result<Chain, Vec<PathBuf>>, StoreError> {
    let (mut found, unborn) = headers(disk, directory)?;
    for pair in found.windows(2) {
        follows(&pair[0], &pair[1])?;
    }
    let segments: Vec<_> = found
        .iter()
        .map(|found| {
            let (start, salt) = (found.header.start, found.header.salt());
            Arc::new(Segment::new(found.path.clone(), start, salt, &found.file))
        })
        .collect();
    let (Some(last), Some(segment)) = (found.pop(), segments.last()) else {
        return Ok(Err(unborn));
    };
    let identity = last.header.identity;
    let tail = tail(disk, last, segment)?;
    Ok(Ok(Chain {
        segments,
        identity,
        tail,
        unborn,
    }))
}

/// The segment files in order, and last ones that were never finished: the next one is made while the one before it waits for its
/// header.
fn headers(disk: &dyn Disk, directory: &Path) -> Result<(Vec<Found>, Vec<PathBuf>), StoreError> {
    let listed = disk
        .list(directory)
        .map_err(|error| failed(directory, "listing", &error))?;
    let mut files: Vec<_> = listed
        .into_iter()
        .filter_map(|path| start_of(&path).map(|start| (start, path)))
        .collect();
    files.sort_unstable();
    let mut found = Vec::with_capacity(files.len());
    let (mut unborn, mut broken) = (Vec::new(), None);
    for (start, path) in files {
        let file: Arc<dyn DiskFile> = disk
            .open(&path)
            .map_err(|error| failed(&path, "opening", &error))?
            .into();
        let len = file.len().map_err(|error| failed(&path, "measuring", &error))?;
        match (header(&*file, &path, start, len), broken.take()) {
            (Ok(header), None) => found.push(Found {
                header,
                path,
                file,
                len,
            }),
            // No frame is written before the header is durable: a header that is not whole, with nothing behind it, was
            // being written when the machine stopped. Behind it there can be none that is whole.
            (Err(StoreError::Damaged(first)), before) if is_unborn(&*file, &path, len)? => {
                unborn.push(path);
                broken = before.or(Some(first));
            }
            (_, Some(first)) => return Err(StoreError::Damaged(first)),
            (Err(error), None) => return Err(error),
        }
    }
    Ok((found, unborn))
}

fn header(file: &dyn DiskFile, path: &Path, start: u64, len: u64) -> Result<SegmentHeader, StoreError> {
    if len < SEGMENT_HEADER as u64 {
        return Err(damage(path, 0, start, "the segment is shorter than its header"));
    }
    let mut bytes = [0; SEGMENT_HEADER];
    file.read_at(&mut bytes, 0)
        .map_err(|error| failed(path, "reading", &error))?;
    let header = SegmentHeader::decode(&bytes).map_err(|broken| damage(path, 0, start, broken))?;
    if header.version != VERSION {
        return Err(StoreError::Failed(format!(
            "{} has version {} of the log's format, and this program knows version {VERSION} only: start a newer turnpike",
            path.display(),
            header.version,
        )));
    }
    if header.start != start {
        return Err(damage(
            path,
            16,
            start,
            "the segment's name is not the offset in its header",
        ));
    }
    Ok(header)
}

/// Whether there is nothing but zeros behind the place of the header.
fn is_unborn(file: &dyn DiskFile, path: &Path, len: u64) -> Result<bool, StoreError> {
    let mut empty = true;
    pieces(file, path, SEGMENT_HEADER as u64, len, &mut |_, bytes| {
        empty &= bytes.iter().all(|byte| *byte == 0);
        empty
    })?;
    Ok(empty)
}

/// Whether `next` begins where `before` ends.
fn follows(before: &Found, next: &Found) -> Result<(), StoreError> {
    if before.header.identity != next.header.identity {
        return Err(damage(
            &next.path,
            24,
            next.header.start,
            "the segment belongs to another log",
        ));
    }
    let end = before.header.start + before.len;
    if end < next.header.start {
        return Err(StoreError::Damaged(format!(
            "{} ends at log offset {end}, but the next segment, {}, starts at {}: what lay between is missing",
            before.path.display(),
            next.path.display(),
            next.header.start
        )));
    }
    Ok(())
}

/// Walks through the whole last segment and finds its end.
fn tail(disk: &dyn Disk, last: Found, segment: &Arc<Segment>) -> Result<Tail, StoreError> {
    let file_end = last.header.start + last.len;
    let mut tail = Tail {
        file: Arc::clone(&last.file),
        end: segment.body(),
        last_frame: None,
        sequence: last.header.sequence,
        sealed: false,
        torn: 0,
        len: last.len,
    };
    let mut walk = Walk::new(disk, segment, tail.end, file_end)?;
    let broken = loop {
        let step = walk.next().and_then(|header| match header {
            Some(Header::Block(block)) => walk.check(&block).map(|()| true),
            other => Ok(other.is_some()),
        });
        match step {
            Ok(true) => {}
            Ok(false) => return Ok(tail),
            Err(StoreError::Damaged(broken)) => break broken,
            Err(error) => return Err(error),
        }
        if let Some((frame, true)) = walk.frame() {
            if frame.sequence != tail.sequence && tail.end == segment.body() {
                let broken = "the frame has not the sequence that the segment says";
                return Err(segment.damage(frame.offset, broken));
            }
            tail.end = walk.at();
            tail.last_frame = Some(frame.offset);
            tail.sequence = frame.sequence + 1;
            tail.sealed = frame.blocks == 0;
        }
    };
    tail.torn = torn(segment, &last, tail.end, broken)?;
    Ok(tail)
}

/// The length of what lies behind the last whole frame at `end`, up to the last byte that is not zero.
///
/// A frame is written only after the one before it is durable. So a whole frame behind one that is broken proves damage.
fn torn(segment: &Segment, last: &Found, end: u64, broken: String) -> Result<u64, StoreError> {
    if let Some(later) = frame_behind(segment, last, end)? {
        return Err(StoreError::Damaged(format!(
            "{broken}; a whole frame follows at log offset {later}, so this is not the end of what was written: \
             restore the file from a backup"
        )));
    }
    let mut torn = 0;
    pieces(
        &*last.file,
        &last.path,
        end - segment.start,
        last.len,
        &mut |at, bytes| {
            if let Some(byte) = bytes.iter().rposition(|byte| *byte != 0) {
                torn = segment.start + at + byte as u64 + 1 - end;
            }
            true
        },
    )?;
    Ok(torn)
}

/// The offset of a whole frame's header behind `end`, if there is one.
fn frame_behind(segment: &Segment, last: &Found, end: u64) -> Result<Option<u64>, StoreError> {
    let mut later = None;
    pieces(
        &*last.file,
        &last.path,
        end - segment.start,
        last.len,
        &mut |at, bytes| {
            later = memchr::memmem::find_iter(bytes, &FRAME_MAGIC)
                .map(|found| (segment.start + at + found as u64, &bytes[found..]))
                .filter(|(offset, _)| *offset > end)
                .find(|(offset, bytes)| FrameHeader::decode(bytes, segment.salt, *offset).is_ok())
                .map(|(offset, _)| offset);
            later.is_none()
        },
    )?;
    Ok(later)
}

/// Calls `each` with pieces of `[from, to)` of a file, each longer by a frame's header than the step to the next one,
/// until it says false.
fn pieces(
    file: &dyn DiskFile,
    path: &Path,
    from: u64,
    to: u64,
    each: &mut dyn FnMut(u64, &[u8]) -> bool,
) -> Result<(), StoreError> {
    let mut bytes = Vec::new();
    let mut at = from;
    while at < to {
        bytes.resize(in_memory(to - at).min(SEARCH_BYTES + FRAME_HEADER), 0);
        file.read_at(&mut bytes, at)
            .map_err(|error| failed(path, "reading", &error))?;
        if !each(at, &bytes) {
            break;
        }
        at += SEARCH_BYTES as u64;
    }
    Ok(())
}

/// Looks at the checksums of the newest segments before the last one, as far as they have `bytes_max` bytes together: of a log
/// that is not large all damage is met before anything is built upon it, and a large one costs a start no more than this.
pub(super) fn check_newest(
    disk: &dyn Disk,
    segments: &[Arc<Segment>],
    bytes_max: u64,
) -> Result<(), StoreError> {
    let mut left = bytes_max;
    for pair in segments.windows(2).rev() {
        let (segment, end) = (&pair[0], pair[1].start);
        let Some(rest) = left.checked_sub(end - segment.start) else {
            break;
        };
        left = rest;
        let mut walk = Walk::new(disk, segment, segment.body(), end)?;
        while let Some(header) = walk.next()? {
            if let Header::Block(block) = header {
                walk.check(&block)?;
            }
        }
    }
    Ok(())
}

/// Makes a segment's file with its header, durably.
pub(super) fn write_header(
    disk: &dyn Disk,
    directory: &Path,
    file: &dyn DiskFile,
    header: &SegmentHeader,
) -> Result<(), StoreError> {
    let written = file.write_at(&header.encode(), 0).and_then(|()| file.sync());
    written
        .and_then(|()| disk.sync_directory(directory))
        .map_err(|error| failed(&path(directory, header.start), "starting", &error))
}
