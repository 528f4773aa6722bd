//! Before which time events may have been deleted: a small file beside the segments, replaced as a whole before any
//! segment goes, so that nobody takes a sum of what is left for the sum of all.

use std::path::{Path, PathBuf};

use turnpike_domain::port::StoreError;
use turnpike_domain::time::Timestamp;

use super::segment::failed;
use crate::disk::Disk;
use crate::fault::FailPoints;

const MAGIC: [u8; 8] = *b"TPHORIZ1";
const LEN: usize = 20;

fn path(directory: &Path) -> PathBuf {
    directory.join("horizon")
}

fn encode(horizon: Timestamp) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&horizon.micros().to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..16]);
    bytes[16..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The horizon of the log in `directory`; `None` where nothing has ever been deleted.
///
/// # Errors
/// [`StoreError::Damaged`] where it is not what was written.
pub fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<Timestamp>, StoreError> {
    let path = path(directory);
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&path, "opening", &error)),
    };
    let damaged = || {
        StoreError::Damaged(format!(
            "{}, byte 0: it is not what was written; restore it from a backup",
            path.display()
        ))
    };
    if file.len().map_err(|error| failed(&path, "measuring", &error))? != LEN as u64 {
        return Err(damaged());
    }
    let mut bytes = [0; LEN];
    file.read_at(&mut bytes, 0)
        .map_err(|error| failed(&path, "reading", &error))?;
    let mut micros = [0; 8];
    micros.copy_from_slice(&bytes[8..16]);
    let horizon = Timestamp::from_micros_clamped(i64::from_le_bytes(micros));
    if encode(horizon) == bytes {
        Ok(Some(horizon))
    } else {
        Err(damaged())
    }
}

/// Replaces the horizon, durably.
pub(super) fn write(
    disk: &dyn Disk,
    directory: &Path,
    horizon: Timestamp,
    fail: &FailPoints,
) -> Result<(), StoreError> {
    let (path, beside) = (path(directory), directory.join("horizon.new"));
    match disk.remove(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed(&beside, "removing", &error));
        }
        _ => {}
    }
    let written = disk.create(&beside).and_then(|file| {
        file.write_at(&encode(horizon), 0)?;
        file.sync()
    });
    written.map_err(|error| failed(&beside, "writing", &error))?;
    fail.pass("log.horizon_written")?;
    let placed = disk
        .rename(&beside, &path)
        .and_then(|()| disk.sync_directory(directory));
    placed.map_err(|error| failed(&path, "replacing", &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultDisk;

    #[test]
    fn it_is_read_as_it_was_written_and_damage_is_told() {
        let (disk, directory) = (FaultDisk::new(0), Path::new("/log"));
        disk.create_directory(directory).unwrap();
        assert_eq!(read(&disk, directory), Ok(None));
        for micros in [0, 1_767_225_600_000_000] {
            let horizon = Timestamp::from_micros_clamped(micros);
            write(&disk, directory, horizon, &FailPoints::default()).unwrap();
            assert_eq!(read(&disk, directory), Ok(Some(horizon)));
        }
        let file = disk.open(&path(directory)).unwrap();
        for at in 0..LEN as u64 {
            let mut byte = [0];
            file.read_at(&mut byte, at).unwrap();
            file.write_at(&[byte[0] ^ 4], at).unwrap();
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
    fn a_stop_at_any_step_leaves_the_old_one_or_the_new_one() {
        let (old, new) = (
            Timestamp::from_micros_clamped(1),
            Timestamp::from_micros_clamped(2),
        );
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
