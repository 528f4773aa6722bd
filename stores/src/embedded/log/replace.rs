//! Small files beside the segments, replaced as a whole.

use std::path::Path;

use turnpike_domain::port::StoreError;

use super::segment::failed;
use crate::disk::Disk;
use crate::width::in_memory;

/// Puts `bytes` in place of the file `name` in `directory`, durably: after a stop at any step it is the old one or the new
/// one. `between` runs once the new one is durable, and before it is in place.
pub(super) fn replace(
    disk: &dyn Disk,
    directory: &Path,
    name: &str,
    bytes: &[u8],
    between: impl FnOnce() -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (path, beside) = (directory.join(name), directory.join(format!("{name}.new")));
    match disk.remove(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed(&beside, "removing", &error));
        }
        _ => {}
    }
    let written = disk.create(&beside).and_then(|file| {
        file.write_at(bytes, 0)?;
        file.sync()
    });
    written.map_err(|error| failed(&beside, "writing", &error))?;
    between()?;
    let placed = disk
        .rename(&beside, &path)
        .and_then(|()| disk.sync_directory(directory));
    placed.map_err(|error| failed(&path, "replacing", &error))
}

/// The bytes of the file `name` in `directory`; `None` where there is none. At most `len_max` of them.
pub(super) fn read(
    disk: &dyn Disk,
    directory: &Path,
    name: &str,
    len_max: usize,
) -> Result<Option<Vec<u8>>, StoreError> {
    let path = directory.join(name);
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&path, "opening", &error)),
    };
    let len = file.len().map_err(|error| failed(&path, "measuring", &error))?;
    let mut bytes = vec![0; in_memory(len.min(len_max as u64))];
    file.read_at(&mut bytes, 0)
        .map_err(|error| failed(&path, "reading", &error))?;
    Ok(Some(bytes))
}

/// A file that is not what was written.
pub(super) fn damaged(directory: &Path, name: &str) -> StoreError {
    let path = directory.join(name);
    StoreError::Damaged(format!(
        "{}, byte 0: it is not what was written; restore it from a backup",
        path.display()
    ))
}
