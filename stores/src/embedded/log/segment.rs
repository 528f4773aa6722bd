//! Segments: their names, their files, and where their frames start.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use turnpike_domain::port::StoreError;

use super::format::{Broken, FrameHeader, SEGMENT_HEADER};
use crate::disk::{Disk, DiskFile};

/// A frame start is kept in memory for every so many bytes of a segment.
const MARK_EVERY: u64 = 256 * 1024;

/// A segment that can be read.
pub(super) struct Segment {
    /// Offset in the log of its first byte.
    pub(super) start: u64,
    /// Its file.
    pub(super) path: PathBuf,
    /// What the checksums in it start from.
    pub(super) salt: u32,
    file: Mutex<Weak<dyn DiskFile>>,
    marks: Mutex<Marks>,
}

/// Some frame starts, so that a frame is found without walking the whole segment.
#[derive(Debug)]
struct Marks {
    starts: Vec<u64>,
    /// Behind the last frame that was looked at.
    behind: u64,
}

/// The name of the segment that starts at `start`.
pub(super) fn path(directory: &Path, start: u64) -> PathBuf {
    directory.join(format!("{start:020}.log"))
}

/// The start that a file's name says, if it is a segment's.
pub(super) fn start_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
    (name.len() == 20).then(|| name.parse().ok())?
}

impl Segment {
    pub(super) fn new(path: PathBuf, start: u64, salt: u32, file: &Arc<dyn DiskFile>) -> Self {
        Self {
            start,
            path,
            salt,
            file: Mutex::new(Arc::downgrade(file)),
            marks: Mutex::new(Marks {
                starts: Vec::new(),
                behind: start + SEGMENT_HEADER as u64,
            }),
        }
    }

    /// Offset of the first frame.
    pub(super) const fn body(&self) -> u64 {
        self.start + SEGMENT_HEADER as u64
    }

    /// Its file, opened unless somebody has it open.
    pub(super) fn file(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>, StoreError> {
        let mut kept = self.file.lock();
        if let Some(file) = kept.upgrade() {
            return Ok(file);
        }
        let file: Arc<dyn DiskFile> = disk
            .open(&self.path)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    StoreError::Gone(format!("segment {} was deleted", self.path.display()))
                }
                _ => failed(&self.path, "opening", &error),
            })?
            .into();
        *kept = Arc::downgrade(&file);
        Ok(file)
    }

    /// Notes a frame. Frames are noted in their order, without a gap.
    pub(super) fn note(&self, frame: &FrameHeader) {
        let mut marks = self.marks.lock();
        if frame.offset != marks.behind {
            return;
        }
        let due = marks
            .starts
            .last()
            .is_none_or(|last| frame.offset - last >= MARK_EVERY);
        if due {
            marks.starts.push(frame.offset);
        }
        marks.behind = frame.end();
    }

    /// A frame start at or before `offset`, close to it, as far as frames were noted.
    pub(super) fn frame_before(&self, offset: u64) -> u64 {
        let marks = self.marks.lock();
        let at = marks.starts.partition_point(|start| *start <= offset);
        at.checked_sub(1).map_or(self.body(), |at| marks.starts[at])
    }

    /// Behind the last frame that was noted.
    pub(super) fn noted(&self) -> u64 {
        self.marks.lock().behind
    }

    /// The damage found at `offset`.
    pub(super) fn damage(&self, offset: u64, broken: Broken) -> StoreError {
        damage(&self.path, offset - self.start, offset, broken)
    }
}

/// Damage in a file of the log: names the file, the byte in it and the offset in the log.
pub(super) fn damage(path: &Path, byte: u64, offset: u64, broken: Broken) -> StoreError {
    StoreError::Damaged(format!(
        "{}, byte {byte} (log offset {offset}): {broken}",
        path.display()
    ))
}

/// A failed operation on a file or directory of the log.
pub(super) fn failed(path: &Path, doing: &str, error: &std::io::Error) -> StoreError {
    StoreError::Failed(format!("{doing} {}: {error}", path.display()))
}

/// The segments that are kept, in order.
#[derive(Default)]
pub(super) struct Segments(RwLock<Arc<Vec<Arc<Segment>>>>);

impl Segments {
    pub(super) fn new(segments: Vec<Arc<Segment>>) -> Self {
        Self(RwLock::new(Arc::new(segments)))
    }

    /// All of them, as they are now.
    pub(super) fn all(&self) -> Arc<Vec<Arc<Segment>>> {
        Arc::clone(&self.0.read())
    }

    pub(super) fn push(&self, segment: Arc<Segment>) {
        let mut segments = self.0.write();
        Arc::make_mut(&mut segments).push(segment);
    }

    /// Takes the first segment out of the list, if another is left behind it.
    pub(super) fn pop_first(&self) -> Option<Arc<Segment>> {
        let mut segments = self.0.write();
        (segments.len() > 1).then(|| Arc::make_mut(&mut segments).remove(0))
    }

    /// Where the first one starts.
    pub(super) fn first(&self) -> u64 {
        self.0.read().first().map_or(0, |segment| segment.start)
    }
}

/// Index of the segment that holds `offset`; the first one where it lies before all.
pub(super) fn index_of(segments: &[Arc<Segment>], offset: u64) -> usize {
    segments
        .partition_point(|segment| segment.start <= offset)
        .saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultDisk;

    #[test]
    fn names_sort_as_their_starts() {
        let directory = Path::new("/log");
        let (low, high) = (path(directory, 9), path(directory, 10));
        assert!(low < high);
        assert_eq!(start_of(&high), Some(10));
        for other in [
            "/log/10.log",
            "/log/0000000000000000001x.log",
            "/log/00000000000000000010",
        ] {
            assert_eq!(start_of(Path::new(other)), None);
        }
    }

    #[test]
    fn marks_find_a_frame_close_before_an_offset() {
        let disk = FaultDisk::new(0);
        let file = disk.create(Path::new("/a")).unwrap().into();
        let segment = Segment::new(PathBuf::from("/a"), 1_000, 0, &file);
        let mut offset = segment.body();
        let mut starts = Vec::new();
        for sequence in 0..1_000 {
            let frame = FrameHeader {
                offset,
                sequence,
                body: 10_000,
                blocks: 1,
            };
            segment.note(&frame);
            starts.push(offset);
            offset = frame.end();
        }
        assert_eq!(segment.noted(), offset);
        assert!(segment.marks.lock().starts.len() < 50);
        for probe in (segment.body()..offset).step_by(7_919) {
            let found = segment.frame_before(probe);
            assert!(found <= probe && probe - found < MARK_EVERY + 20_000 && starts.contains(&found));
        }
        let stray = FrameHeader {
            offset: offset + 1,
            sequence: 0,
            body: 0,
            blocks: 0,
        };
        segment.note(&stray);
        assert_eq!(segment.noted(), offset, "a frame behind a gap is not noted");
    }
}
