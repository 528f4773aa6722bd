//! How far the database beside the log has come: a small file among the segments, so that an older copy of the database
//! is noticed. It would give numbers of tenants and meters a second time, and so one's usage to another.
//!
//! The file has two slots of one size. A mark is written over the older of them, in one step behind each commit of the
//! database: a stop in between leaves a mark that is too low, which refuses nothing, and the next start raises it.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use turnpike_domain::port::StoreError;

use super::replace::{damaged, read as read_small, replace};
use super::segment::failed;
use crate::disk::{Disk, DiskFile};

/// The file's name.
const NAME: &str = "control";
/// The last byte is the version as a digit.
const MAGIC: [u8; 8] = *b"TPCTROL1";
/// Bytes from one slot to the next: no disk writes a part of so many that lie in a row.
const SLOT: usize = 512;
const LEN: usize = 28;

/// The generation that the database beside a log had reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Identity of the log.
    pub(super) log: u64,
    /// Changes that the database had kept.
    pub(super) generation: u64,
}

impl Mark {
    fn encode(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.log.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..24]);
        bytes[24..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let mark = Self {
            log: word(8)?,
            generation: word(16)?,
        };
        (mark.encode() == *bytes.get(..LEN)?).then_some(mark)
    }
}

/// The mark beside the log in `directory`; `None` where none was ever made.
///
/// # Errors
/// [`StoreError::Damaged`] where neither slot is what was written.
pub(super) fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<Mark>, StoreError> {
    let Some(bytes) = read_small(disk, directory, NAME, 2 * SLOT)? else {
        return Ok(None);
    };
    let slots = bytes.chunks(SLOT).filter_map(Mark::decode);
    let newest = slots.max_by_key(|mark| mark.generation);
    newest.map(Some).ok_or_else(|| damaged(directory, NAME))
}

/// The mark of an open database.
pub struct ControlMark {
    log: u64,
    path: PathBuf,
    /// The file, and the slot that is written next.
    next: Mutex<(Box<dyn DiskFile>, usize)>,
}

impl ControlMark {
    /// Brings the mark beside the log with identity `log` to the `generation` of the database that is open, and keeps it
    /// to be moved on. [`super::Expected`] has refused a database that is older than its mark.
    pub fn open(disk: &dyn Disk, directory: &Path, log: u64, generation: u64) -> Result<Self, StoreError> {
        let mark = Mark { log, generation };
        if read(disk, directory)? != Some(mark) {
            let mut bytes = vec![0; 2 * SLOT];
            bytes[..LEN].copy_from_slice(&mark.encode());
            bytes[SLOT..SLOT + LEN].copy_from_slice(&mark.encode());
            replace(disk, directory, NAME, &bytes, || Ok(()))?;
        }
        let path = directory.join(NAME);
        let file = disk
            .open(&path)
            .map_err(|error| failed(&path, "opening", &error))?;
        let mut first = [0; LEN];
        file.read_at(&mut first, 0)
            .map_err(|error| failed(&path, "reading", &error))?;
        let next = usize::from(Mark::decode(&first) == Some(mark));
        Ok(Self {
            log,
            path,
            next: Mutex::new((file, next)),
        })
    }

    /// Keeps that the database has reached `generation`, durably.
    pub fn keep(&self, generation: u64) -> Result<(), StoreError> {
        let mark = Mark {
            log: self.log,
            generation,
        };
        let mut next = self.next.lock();
        let (file, slot) = &mut *next;
        let written = file.write_at(&mark.encode(), (*slot * SLOT) as u64);
        written
            .and_then(|()| file.sync())
            .map_err(|error| failed(&self.path, "writing", &error))?;
        // Only now is the other one the older.
        *slot = 1 - *slot;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultDisk;

    const DIRECTORY: &str = "/log";

    fn disk(seed: u64) -> FaultDisk {
        let disk = FaultDisk::new(seed);
        disk.create_directory(Path::new(DIRECTORY)).unwrap();
        disk
    }

    fn open(disk: &FaultDisk, generation: u64) -> Result<ControlMark, StoreError> {
        ControlMark::open(disk, Path::new(DIRECTORY), 7, generation)
    }

    fn kept(disk: &FaultDisk) -> Option<u64> {
        let mark = read(disk, Path::new(DIRECTORY)).unwrap()?;
        assert_eq!(mark.log, 7);
        Some(mark.generation)
    }

    #[test]
    fn the_highest_is_read_and_damage_of_both_slots_told() {
        let disk = disk(0);
        assert_eq!(kept(&disk), None);
        let mark = open(&disk, 3).unwrap();
        assert_eq!(kept(&disk), Some(3));
        for generation in 4..9 {
            mark.keep(generation).unwrap();
            assert_eq!(kept(&disk), Some(generation));
        }
        // One slot holds 8, the other one 7.
        let file = disk.open(&Path::new(DIRECTORY).join(NAME)).unwrap();
        let mut found = Vec::new();
        for slot in [0, SLOT as u64] {
            let mut bytes = [0; LEN];
            file.read_at(&mut bytes, slot).unwrap();
            file.write_at(&[0xff; LEN], slot).unwrap();
            found.push(kept(&disk).unwrap());
            file.write_at(&bytes, slot).unwrap();
        }
        found.sort_unstable();
        assert_eq!(found, [7, 8]);
        file.write_at(&[0xff; 2 * SLOT], 0).unwrap();
        let refused = read(&disk, Path::new(DIRECTORY)).unwrap_err();
        assert!(
            matches!(&refused, StoreError::Damaged(text) if text.contains("/log/control")),
            "{refused}"
        );
    }

    #[test]
    fn a_stop_at_any_step_leaves_the_old_one_or_the_new_one() {
        let mut left = [0, 0];
        for step in 0..12 {
            for seed in 0..10 {
                let disk = disk(seed);
                let mark = open(&disk, 1).unwrap();
                mark.keep(2).unwrap();
                disk.cut_power_after(step);
                let raised = open(&disk, 5).and_then(|mark| mark.keep(6));
                let found = kept(&disk.crash()).unwrap();
                assert!(if raised.is_ok() {
                    found == 6
                } else {
                    [2, 5, 6].contains(&found)
                });
                left[usize::from(found > 2)] += 1;
            }
        }
        assert!(left[0] > 0 && left[1] > 0, "{left:?}");
    }
}
