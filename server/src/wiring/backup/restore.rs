use std::path::Path;

use turnpike_stores::sql::{SqlPlace, settle};

use super::claim::Claimed;
use super::files::{Copying, Source};
use super::list::{Entry, List};
use super::{BackupError, Progress};
use crate::wiring::stores::Stores;

/// Makes a data directory at `to` of the backup in `backup`; what the backup has. Every byte is checked on its way. On an error
/// nothing is left.
///
/// # Errors
/// [`BackupError::Damaged`] names the file that is not what was written, and [`BackupError::Parts`] the part that a newer program
/// made.
pub(crate) async fn restore(backup: &Path, to: &Path, progress: Progress<'_>) -> Result<List, BackupError> {
    let list = List::read(backup)?;
    let claimed = Claimed::take(to)?;
    let mut copying = Copying::new(claimed.path(), false, list.bytes(), progress);
    for entry in &list.files {
        one(&mut copying, backup, entry)?;
    }
    copying.finish()?;
    let data_dir = claimed.look()?;
    Stores::check_together(&data_dir).await?;
    settle(&SqlPlace::File(data_dir.database())).await?;
    claimed.finish()?;
    Ok(list)
}

fn one(copying: &mut Copying<'_>, backup: &Path, entry: &Entry) -> Result<(), BackupError> {
    let path = backup.join(&entry.path);
    let damaged = |reason: String| BackupError::Damaged {
        path: path.clone(),
        reason,
    };
    if !path.exists() {
        return Err(damaged("it is missing".to_owned()));
    }
    let source = Source::open(path.clone())?;
    let len = source.len()?;
    if len != entry.bytes {
        return Err(damaged(format!("it has {len} bytes instead of {}", entry.bytes)));
    }
    if copying.copy(&entry.path, &source, len)? == entry {
        return Ok(());
    }
    Err(damaged("its checksum does not match".to_owned()))
}
