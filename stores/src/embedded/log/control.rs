//! How far the database beside the log has come, and on which branch of its history: a small file among the segments, so
//! that an older copy of the database is noticed, and one that went another way. Either would give numbers of tenants and
//! meters a second time, and so one's usage to another.
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
const MAGIC: [u8; 8] = *b"TPCTROL2";
/// Version 1 had no branch.
const MAGIC_V1: [u8; 8] = *b"TPCTROL1";
/// Bytes from one slot to the next: no disk writes a part of so many that lie in a row.
const SLOT: usize = 512;
const LEN: usize = 36;
const LEN_V1: usize = 28;

/// The generation that the database beside a log had reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Identity of the log.
    pub(super) log: u64,
    /// Changes that the database had kept.
    pub(super) generation: u64,
    /// The branch of its history that it was on; unknown where version 1 of the file was written.
    pub(super) branch: Option<u64>,
}

impl Mark {
    /// The bytes of a slot: those of version 1 where the branch is unknown.
    fn encode(self) -> Vec<u8> {
        let mut bytes = if self.branch.is_some() { MAGIC } else { MAGIC_V1 }.to_vec();
        for word in [Some(self.log), Some(self.generation), self.branch]
            .into_iter()
            .flatten()
        {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let (branch, len) = match bytes.strip_prefix(&MAGIC_V1) {
            Some(_) => (None, LEN_V1),
            None => (Some(word(24)?), LEN),
        };
        let mark = Self {
            log: word(8)?,
            generation: word(16)?,
            branch,
        };
        (mark.encode() == bytes.get(..len)?).then_some(mark)
    }
}

/// The branch that the file beside the log in `directory` names; `None` where there is none, or one without.
///
/// # Errors
/// As [`read`].
pub fn branch(disk: &dyn Disk, directory: &Path) -> Result<Option<u64>, StoreError> {
    Ok(read(disk, directory)?.and_then(|mark| mark.branch))
}

/// The mark beside the log in `directory`; `None` where none was ever made.
///
/// # Errors
/// [`StoreError::Damaged`] where neither slot is what was written, [`StoreError::Failed`] where a newer version wrote them.
pub(super) fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<Mark>, StoreError> {
    let Some(bytes) = read_small(disk, directory, NAME, 2 * SLOT)? else {
        return Ok(None);
    };
    let slots = bytes.chunks(SLOT).filter_map(Mark::decode);
    let newest = slots.max_by_key(|mark| mark.generation);
    newest.map(Some).ok_or_else(|| {
        let version = bytes
            .strip_prefix(&MAGIC[..MAGIC.len() - 1])
            .and_then(<[u8]>::first);
        match version {
            Some(version @ b'3'..=b'9') => StoreError::Failed(format!(
                "{} has version {} of its format, and this program knows versions up to 2: start a newer turnpike",
                directory.join(NAME).display(),
                version - b'0'
            )),
            _ => damaged(directory, NAME),
        }
    })
}

/// The mark of an open database.
pub struct ControlMark {
    log: u64,
    branch: u64,
    path: PathBuf,
    /// The file, and the slot that is written next.
    next: Mutex<(Box<dyn DiskFile>, usize)>,
}

impl ControlMark {
    /// Brings the mark beside the log with identity `log` to the `generation` and the `branch` of the database that is open,
    /// and keeps it to be moved on. [`super::Expected`] has refused a database that is older than its mark.
    pub fn open(
        disk: &dyn Disk,
        directory: &Path,
        log: u64,
        (generation, branch): (u64, u64),
    ) -> Result<Self, StoreError> {
        let mark = Mark {
            log,
            generation,
            branch: Some(branch),
        };
        if read(disk, directory)? != Some(mark) {
            let mut bytes = vec![0; 2 * SLOT];
            for slot in bytes.chunks_mut(SLOT) {
                slot[..LEN].copy_from_slice(&mark.encode());
            }
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
            branch,
            path,
            next: Mutex::new((file, next)),
        })
    }

    /// Keeps that the database has reached `generation`, durably.
    pub fn keep(&self, generation: u64) -> Result<(), StoreError> {
        let mark = Mark {
            log: self.log,
            generation,
            branch: Some(self.branch),
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
        ControlMark::open(disk, Path::new(DIRECTORY), 7, (generation, 11))
    }

    fn kept(disk: &FaultDisk) -> Option<u64> {
        let mark = read(disk, Path::new(DIRECTORY)).unwrap()?;
        assert_eq!((mark.log, mark.branch), (7, Some(11)));
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
    fn the_first_version_is_read_and_written_over() {
        let disk = disk(0);
        // As version 1 wrote it: magic, identity, generation, checksum.
        let mut bytes = b"TPCTROL1".to_vec();
        bytes.extend_from_slice(&7_u64.to_le_bytes());
        bytes.extend_from_slice(&5_u64.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.resize(2 * SLOT, 0);
        disk.put(&Path::new(DIRECTORY).join(NAME), &bytes);
        let first = read(&disk, Path::new(DIRECTORY)).unwrap().unwrap();
        assert_eq!((first.log, first.generation, first.branch), (7, 5, None));
        open(&disk, 5).unwrap().keep(6).unwrap();
        assert_eq!(kept(&disk), Some(6));
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
