//! Backups: a copy of a data directory at one instant, taken beside the process that uses it, and a data directory made of one.

mod claim;
mod files;
mod list;
mod restore;
mod take;

use std::io;
use std::path::{Path, PathBuf};

use turnpike_domain::port::StoreError;

pub(crate) use list::List;
pub(crate) use restore::restore;
pub(crate) use take::{Taken, take};

use super::data_dir::DataDirError;
use super::embedded::StartError;

/// Called with the bytes that are done and the bytes in all, as far as they are known.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Why there is no backup, or no data directory of it. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// Something is there.
    #[error("{0} is there already: choose another name for the backup")]
    Exists(PathBuf),
    /// It would be lost with what it is a copy of.
    #[error("{0} lies in the data directory: choose a place outside it, best on another disk")]
    Within(PathBuf),
    /// Another process writes there.
    #[error("another backup is being written to {0}: wait for it, or choose another name")]
    Busy(PathBuf),
    /// A process uses it, whatever is in it.
    #[error("{0} is in use by another process (lock file {0}/lock): choose another name for the backup")]
    Used(PathBuf),
    /// The disk would be full.
    #[error(
        "there is not enough space for {path}: {needed} bytes are needed and {free} may be used (of the disk with the data, 5 % are left \
         free, for intake stops there)"
    )]
    NoSpace {
        /// The backup.
        path: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// The first start of the directory has not ended.
    #[error("there is nothing in {0} to back up yet: it was never served")]
    Unborn(PathBuf),
    /// It was lost, for there is a log.
    #[error(
        "{0} is missing beside a log: it was lost, and a copy without it would be of no use; `turnpike doctor` says what is wrong"
    )]
    NoDatabase(PathBuf),
    /// It is none.
    #[error("{0} is no backup: it has no backup.json, which is written last")]
    NoBackup(PathBuf),
    /// A newer program wrote it.
    #[error(
        "{path} has version {found} of the format of backups, and this program knows versions up to {known}: use the newer turnpike that \
         took it"
    )]
    Newer {
        /// The list of its files.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A file is not what was written.
    #[error("{path} is damaged: {reason}; use another backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file system refused.
    #[error("{doing} {path}: {error}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The failure.
        error: io::Error,
    },
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Its parts.
    #[error(transparent)]
    Parts(#[from] StartError),
    /// One of its stores.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BackupError {
    /// The failure of an operation on a file.
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { doing, path, error }
    }

    /// Whether a file was not there.
    fn is_missing(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}
