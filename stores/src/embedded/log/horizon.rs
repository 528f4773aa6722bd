//! Before which time events may have been deleted, and where the log begins since: a small file beside the segments,
//! replaced as a whole before any segment goes, so that nobody takes a sum of what is left for the sum of all.

use std::path::Path;

use turnpike_domain::port::StoreError;
use turnpike_domain::time::Timestamp;

use super::replace::{damaged, read as read_small, replace};
use crate::disk::Disk;
use crate::fault::FailPoints;

/// The file's name.
const NAME: &str = "horizon";
/// All but the last byte of the magic, which is the version as a digit.
const MAGIC: [u8; 7] = *b"TPHORIZ";
/// Version 1 had no offset.
const VERSION: u8 = 2;
const LEN: usize = 28;
const LEN_V1: usize = 20;

/// What retention has deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// Events that count for a time before this may have been deleted, no others.
    pub before: Timestamp,
    /// The offset of the first segment that was to be kept. Unknown where version 1 of the file was written.
    pub first: Option<u64>,
}

impl Horizon {
    fn encode(self) -> Vec<u8> {
        let version = if self.first.is_some() { VERSION } else { 1 };
        let mut bytes = MAGIC.to_vec();
        bytes.push(b'0' + version);
        bytes.extend_from_slice(&self.before.micros().to_le_bytes());
        if let Some(first) = self.first {
            bytes.extend_from_slice(&first.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let horizon = Self {
            before: Timestamp::from_micros_clamped(word(8)?.cast_signed()),
            first: match bytes.len() {
                LEN_V1 => None,
                _ => Some(word(16)?),
            },
        };
        (horizon.encode() == bytes).then_some(horizon)
    }
}

/// The horizon of the log in `directory`; `None` where nothing has ever been deleted.
///
/// # Errors
/// [`StoreError::Damaged`] where it is not what was written, [`StoreError::Failed`] where a newer version wrote it.
pub fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<Horizon>, StoreError> {
    let Some(bytes) = read_small(disk, directory, NAME, LEN + 1)? else {
        return Ok(None);
    };
    if let Some(version @ b'3'..=b'9') = bytes.strip_prefix(&MAGIC).and_then(<[u8]>::first) {
        return Err(StoreError::Failed(format!(
            "{} has version {} of its format, and this program knows versions up to {VERSION}: start a newer turnpike",
            directory.join(NAME).display(),
            version - b'0'
        )));
    }
    Horizon::decode(&bytes)
        .map(Some)
        .ok_or_else(|| damaged(directory, NAME))
}

/// Replaces the horizon, durably.
pub(super) fn write(
    disk: &dyn Disk,
    directory: &Path,
    horizon: Horizon,
    fail: &FailPoints,
) -> Result<(), StoreError> {
    replace(disk, directory, NAME, &horizon.encode(), || {
        fail.pass("log.horizon_written")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultDisk;

    fn horizon(micros: i64, first: Option<u64>) -> Horizon {
        Horizon {
            before: Timestamp::from_micros_clamped(micros),
            first,
        }
    }

    #[test]
    fn it_is_read_as_it_was_written_and_damage_is_told() {
        let (disk, directory) = (FaultDisk::new(0), Path::new("/log"));
        disk.create_directory(directory).unwrap();
        assert_eq!(read(&disk, directory), Ok(None));
        for kept in [horizon(0, Some(0)), horizon(1_767_225_600_000_000, Some(1 << 40))] {
            write(&disk, directory, kept, &FailPoints::default()).unwrap();
            assert_eq!(read(&disk, directory), Ok(Some(kept)));
        }
        let file = disk.open(&directory.join(NAME)).unwrap();
        for at in 0..LEN as u64 {
            let mut byte = [0];
            file.read_at(&mut byte, at).unwrap();
            file.write_at(&[byte[0] ^ 0x44], at).unwrap();
            let error = read(&disk, directory).unwrap_err();
            assert!(
                matches!(&error, StoreError::Damaged(text) if text.contains("/log/horizon")),
                "{error}"
            );
            file.write_at(&byte, at).unwrap();
        }
        file.set_len(3).unwrap();
        assert!(matches!(read(&disk, directory), Err(StoreError::Damaged(_))));
    }

    #[test]
    fn the_first_version_is_read_and_a_newer_one_refused_by_name() {
        let (disk, directory) = (FaultDisk::new(0), Path::new("/log"));
        disk.create_directory(directory).unwrap();
        // As version 1 wrote it: magic, microseconds, checksum.
        let mut bytes = b"TPHORIZ1".to_vec();
        bytes.extend_from_slice(&7_i64.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        disk.put(&directory.join(NAME), &bytes);
        assert_eq!(read(&disk, directory), Ok(Some(horizon(7, None))));
        bytes[7] = b'3';
        disk.put(&directory.join(NAME), &bytes);
        let refused = read(&disk, directory).unwrap_err();
        assert!(
            matches!(&refused, StoreError::Failed(text) if text.contains("version 3")),
            "{refused}"
        );
    }

    #[test]
    fn a_stop_at_any_step_leaves_the_old_one_or_the_new_one() {
        let (old, new) = (horizon(1, Some(5)), horizon(2, Some(9)));
        let directory = Path::new("/log");
        let mut kept = [0, 0];
        for step in 0..8 {
            let disk = FaultDisk::new(step);
            disk.create_directory(directory).unwrap();
            write(&disk, directory, old, &FailPoints::default()).unwrap();
            disk.cut_power_after(step);
            let written = write(&disk, directory, new, &FailPoints::default()).is_ok();
            let found = read(&disk.crash(), directory).unwrap().unwrap();
            assert!(found == new || (found == old && !written));
            kept[usize::from(found == new)] += 1;
        }
        assert!(kept[0] > 0 && kept[1] > 0, "{kept:?}");
    }
}
