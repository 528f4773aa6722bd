//! How far a log reaches that a process may be writing to, for those who copy it.

use std::path::{Path, PathBuf};

use turnpike_domain::port::StoreError;

use super::recovery;
use crate::disk::Disk;

/// The files of a log, and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// What tells the log from every other one.
    pub identity: u64,
    /// The start of each segment and its file, in order. Each but the last is whole and never written to again.
    pub segments: Vec<(u64, PathBuf)>,
    /// The offset behind the last whole frame: everything that was durable before the call lies before it.
    pub end: u64,
}

/// What there is of the log in a directory; `None` where there is none yet. Changes nothing.
///
/// Under a process that writes, a frame may be met that is written just now, or a segment that retention deletes. That is no
/// damage, so it is looked again: what was whole behind such a frame proves that the frame is whole by now, and a deleted
/// segment is listed no more. Only what is found a second time is told.
///
/// # Errors
/// [`StoreError::Damaged`] names the file and the byte.
pub fn extent(disk: &dyn Disk, directory: &Path) -> Result<Option<Extent>, StoreError> {
    let mut met = None;
    loop {
        match recovery::chain(disk, directory) {
            Err(error) if met.as_ref() != Some(&error) => met = Some(error),
            Err(error) => return Err(error),
            Ok(Err(_)) => return Ok(None),
            Ok(Ok(chain)) => {
                let segments = chain.segments.iter();
                return Ok(Some(Extent {
                    identity: chain.identity,
                    segments: segments
                        .map(|segment| (segment.start, segment.path.clone()))
                        .collect(),
                    end: chain.tail.end,
                }));
            }
        }
    }
}
