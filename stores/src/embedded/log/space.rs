//! Space on the disk is taken before a block is, so that a full disk is met while it can still be refused.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use turnpike_domain::limits::DISK_USED_PERCENT_MAX;
use turnpike_domain::port::StoreError;

use super::group::Target;
use super::segment::failed;
use crate::disk::Disk;

/// Takes space for segments.
pub(super) struct Space {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    /// Bytes that are taken at once where there is plenty.
    pub(super) chunk: u64,
}

impl Space {
    /// Bytes that may still be taken before the disk is as full as intake allows, and what to say where there are none.
    fn budget(&self) -> Result<(u64, String), StoreError> {
        let space = self.disk.space(&self.directory);
        let (free, total) =
            space.map_err(|error| failed(&self.directory, "measuring the space for", &error))?;
        let used = total.saturating_sub(free);
        let line = total / 100 * DISK_USED_PERCENT_MAX;
        let full = format!(
            "{used} of {total} bytes of the data directory's disk are used; events are taken below \
             {DISK_USED_PERCENT_MAX} %: free some space or move the data directory to a larger disk"
        );
        Ok((line.saturating_sub(used), full))
    }

    /// An error when the disk is as full as intake allows.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.budget()? {
            (0, full) => Err(StoreError::Full(full)),
            _ => Ok(()),
        }
    }

    /// Makes sure that the file of `target` has space for `len` bytes. On an error nothing has changed.
    pub(super) fn ensure(&self, target: &Target, len: u64) -> Result<(), StoreError> {
        let allocated = target.allocated.load(Ordering::Acquire);
        if len <= allocated {
            return Ok(());
        }
        let (budget, full) = self.budget()?;
        let needed = len - allocated;
        if needed > budget {
            return Err(StoreError::Full(full));
        }
        // On a small or nearly full disk ahead only in small steps.
        let ahead = allocated + needed.max(self.chunk.min(budget / 4));
        for wanted in [ahead, len] {
            match target.file.allocate(wanted) {
                Ok(()) => {
                    target.allocated.store(wanted, Ordering::Release);
                    return Ok(());
                }
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(failed(&target.path, "taking space for", &error)),
            }
        }
        Err(StoreError::Full(full))
    }
}

/// Whether the disk, or our share of it, is full.
pub(super) fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
