use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use crate::wiring::data_dir::{BESIDE, DATA, DataDir, DataDirError, FORMAT, RESTORING, lock, sync};

/// Whether a file of ours says what a directory is: a link of that name is somebody else's.
pub(super) fn is_marked(marker: &Path) -> bool {
    fs::symlink_metadata(marker).is_ok_and(|metadata| metadata.is_file())
}

/// Makes the file that says what a directory is. One that is there already keeps its bytes, and a link is not followed.
pub(super) fn mark(marker: &Path) -> io::Result<()> {
    match File::create_new(marker) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_marked(marker) => Ok(()),
        made => made.map(drop),
    }
}

/// Whether a directory has no other entries than `these`.
pub(super) fn has_only(path: &Path, these: &[&str]) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if !these.iter().any(|this| name == *this) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A directory into which a backup is restored: locked, and refused to everybody else until that has ended. Dropped before, what
/// was made in it is removed.
#[derive(Debug)]
pub(super) struct Claimed {
    path: PathBuf,
    lock: Option<File>,
}

impl Claimed {
    /// Takes an empty directory, which is made where there is none, or one in which a restore was interrupted.
    pub(super) fn take(path: &Path) -> Result<Self, DataDirError> {
        let failed = |error| DataDirError::Io {
            path: path.to_owned(),
            error,
        };
        // Files hold secrets and usage: what is made from now on is closed to other users, whatever the caller's mask.
        rustix::process::umask(Mode::from_raw_mode(0o077));
        fs::create_dir_all(path).map_err(failed)?;
        let marker = path.join(RESTORING);
        // A file system of its own has a directory for what its check finds; a lock alone is left by a stop right behind it.
        if !is_marked(&marker) && !has_only(path, &["lost+found", "lock"]).map_err(failed)? {
            return Err(DataDirError::NotEmpty(path.to_owned()));
        }
        let claimed = Self {
            path: path.to_owned(),
            lock: Some(lock(path)?),
        };
        mark(&marker).map_err(failed)?;
        claimed.clear().map_err(failed)?;
        sync(path).map_err(failed)?;
        Ok(claimed)
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is there now, to be looked at.
    pub(super) fn look(&self) -> Result<DataDir, DataDirError> {
        DataDir::finish(&self.path, None)
    }

    /// All of it is there and durable: it is a data directory from now on.
    pub(super) fn finish(mut self) -> Result<(), DataDirError> {
        let removed = fs::remove_file(self.path.join(RESTORING)).and_then(|()| sync(&self.path));
        removed.map_err(|error| DataDirError::Io {
            path: self.path.clone(),
            error,
        })?;
        self.lock = None;
        Ok(())
    }

    /// Removes what a restore has made, but for its marker and the lock.
    fn clear(&self) -> io::Result<()> {
        let made = DATA.iter().chain(&[FORMAT]).chain(&BESIDE);
        for part in made.filter(|part| **part != "lock") {
            let path = self.path.join(part);
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if self.lock.is_none() {
            return;
        }
        let removed = self
            .clear()
            .and_then(|()| fs::remove_file(self.path.join("lock")))
            .and_then(|()| fs::remove_file(self.path.join(RESTORING)));
        if let Err(error) = removed {
            // Its marker says so to whoever comes next.
            tracing::warn!(path = %self.path.display(), %error, "what a restore has made could not be removed");
        }
    }
}
