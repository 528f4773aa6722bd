use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use serde::{Deserialize, Serialize};
use turnpike_domain::limits::PARTITIONS_MAX;
use turnpike_stores::fault::FailPoints;

/// The layout of the directory. A program refuses a directory of another version by name.
const FORMAT_VERSION: u32 = 1;

/// Why a data directory cannot be used. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// Another process has it.
    #[error(
        "the data directory {0} is in use by another process (lock file {0}/lock); stop that process or choose another --data-dir"
    )]
    InUse(PathBuf),
    /// Made by a program that keeps its data differently.
    #[error(
        "the data directory {path} has format version {found}; this program reads version {FORMAT_VERSION}: use the release that wrote it"
    )]
    Version {
        /// The directory.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Its description cannot be read.
    #[error("{path} is damaged: {reason}; restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// What says how its data is laid out is gone.
    #[error(
        "{path}/format.toml is missing, though there is data beside it: restore it from a backup, or write it anew with the lines `format_version = {FORMAT_VERSION}` and `partitions = N`, with the number that it was made with (views/ has {partitions} of them now)"
    )]
    Unlabelled {
        /// The directory.
        path: PathBuf,
        /// As many as there are directories of views.
        partitions: usize,
    },
    /// It was made with another number of partitions.
    #[error(
        "{path}/format.toml says {said} partitions, but the directory was made with {made}: restore the file from a backup, or put that number right"
    )]
    Partitions {
        /// The directory.
        path: PathBuf,
        /// What the file says.
        said: u32,
        /// What the database says.
        made: u32,
    },
    /// There is none.
    #[error("there is no data directory at {0}; `turnpike serve` makes one")]
    Absent(PathBuf),
    /// It is a backup.
    #[error(
        "{0} is a backup, and would be none any more once it was used: `turnpike restore {0} --data-dir DIR` makes a data directory of it"
    )]
    Backup(PathBuf),
    /// A restore into it did not end.
    #[error(
        "a restore into {0} was interrupted, so it is not whole: run `turnpike restore` into it again, which begins anew"
    )]
    HalfRestored(PathBuf),
    /// A backup that was being made there is not whole.
    #[error(
        "{0} is not whole: `turnpike backup` is making a backup in it, or was interrupted ({0}/{BACKING_UP}), and the next one to that name \
         deletes what is there; take the backup again, and `turnpike restore` it into another directory"
    )]
    HalfBackedUp(PathBuf),
    /// Something is there already.
    #[error("{0} is not empty: a backup is restored into a directory that is empty or not there")]
    NotEmpty(PathBuf),
    /// The file system refused.
    #[error("cannot use the data directory {path}: {error}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The failure.
        error: io::Error,
    },
}

/// `format.toml`: what must never change while the directory lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Format {
    format_version: u32,
    partitions: u32,
}

/// The file of [`Format`].
pub(super) const FORMAT: &str = "format.toml";
/// What stands beside [`FORMAT`]: without it these cannot be understood.
pub(super) const DATA: [&str; 3] = ["log", "views", "turnpike.db"];
/// What makes a directory a backup: the list of its files, which is written last.
pub(super) const BACKUP: &str = "backup.json";
/// Stands in a directory until a restore into it has ended.
pub(super) const RESTORING: &str = "restore.incomplete";
/// Stands in a directory in which a backup is being made, from before anything else does: all in it may go.
pub(super) const BACKING_UP: &str = ".backup-incomplete";
/// Files and directories that belong here beside [`FORMAT`] and [`DATA`]: the lock, and what SQLite keeps while the database is made,
/// is open or was not closed.
pub(super) const BESIDE: [&str; 4] = [
    "lock",
    "turnpike.db-journal",
    "turnpike.db-wal",
    "turnpike.db-shm",
];

/// A data directory, locked by this process until it is dropped, unless it is only looked at.
///
/// ```text
/// lock          held while a process uses the directory
/// format.toml   format version and number of partitions
/// log/          the segments of the event log: the truth for usage
/// views/        what is derived from the log; may be deleted
/// turnpike.db   SQLite: catalog, customers, invoices: the truth for money
/// ```
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    format: Format,
    _lock: Option<File>,
}

impl DataDir {
    /// Opens the directory, making it with `partitions` where there is none.
    ///
    /// # Errors
    /// Also where data stands in it without `format.toml`: another number of partitions would not find its ids.
    pub(crate) fn open_or_create(
        path: &Path,
        partitions: u32,
        fail: &FailPoints,
    ) -> Result<Self, DataDirError> {
        let failed = |error| DataDirError::Io {
            path: path.to_owned(),
            error,
        };
        if !path.exists() {
            // Only what was made here is closed to others: a directory that was there keeps its mode.
            fs::create_dir_all(path).map_err(failed)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        let lock = lock(path)?;
        refuse_unfit(path)?;
        let file = path.join(FORMAT);
        if !file.exists() {
            refuse_unlabelled(path)?;
            let format = Format {
                format_version: FORMAT_VERSION,
                partitions: partitions.max(1),
            };
            write_durably(path, &file, &format, fail).map_err(failed)?;
        }
        Self::finish(path, Some(lock))
    }

    /// Opens a directory that must exist.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        Self::demand(path)?;
        Self::finish(path, Some(lock(path)?))
    }

    /// Looks at a directory that must exist, beside the process that may be using it: for reading.
    pub(crate) fn look(path: &Path) -> Result<Self, DataDirError> {
        Self::demand(path)?;
        Self::finish(path, None)
    }

    fn demand(path: &Path) -> Result<(), DataDirError> {
        refuse_unfit(path)?;
        if path.join(FORMAT).exists() {
            return Ok(());
        }
        refuse_unlabelled(path)?;
        Err(DataDirError::Absent(path.to_owned()))
    }

    /// Reads what the directory says of itself.
    pub(super) fn finish(path: &Path, lock: Option<File>) -> Result<Self, DataDirError> {
        let file = path.join(FORMAT);
        let damaged = |reason: String| DataDirError::Damaged {
            path: file.clone(),
            reason,
        };
        let text = fs::read_to_string(&file).map_err(|error| DataDirError::Io {
            path: file.clone(),
            error,
        })?;
        let format: Format = toml::from_str(&text).map_err(|error| damaged(error.message().to_owned()))?;
        if format.format_version != FORMAT_VERSION {
            return Err(DataDirError::Version {
                path: path.to_owned(),
                found: format.format_version,
            });
        }
        if !(1..=PARTITIONS_MAX).contains(&format.partitions) {
            return Err(damaged(format!("partitions must be 1 to {PARTITIONS_MAX}")));
        }
        // Files hold secrets and usage: what is made from now on is closed to other users, whatever the caller's mask.
        rustix::process::umask(Mode::from_raw_mode(0o077));
        Ok(Self {
            path: path.to_owned(),
            format,
            _lock: lock,
        })
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of files and directories in it that no part of the engine knows, sorted.
    ///
    /// # Errors
    /// Where the directory cannot be listed.
    pub(crate) fn strangers(&self) -> io::Result<Vec<String>> {
        let mut strangers = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let known = name == FORMAT || DATA.contains(&name.as_str()) || BESIDE.contains(&name.as_str());
            strangers.extend((!known).then_some(name));
        }
        strangers.sort();
        Ok(strangers)
    }

    /// Where the log is.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where all views are.
    pub(crate) fn views(&self) -> PathBuf {
        self.path.join("views")
    }

    /// The SQL database.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join("turnpike.db")
    }

    /// An error where the directory was made with another number of partitions than it says.
    pub(crate) fn check_partitions(&self, made: u32) -> Result<(), DataDirError> {
        if made == self.format.partitions {
            return Ok(());
        }
        Err(DataDirError::Partitions {
            path: self.path.clone(),
            said: self.format.partitions,
            made,
        })
    }

    /// The number of partitions, fixed when the directory was made.
    pub(crate) fn partitions(&self) -> u32 {
        self.format.partitions
    }
}

/// An error for a directory that is no data directory though it looks like one.
fn refuse_unfit(path: &Path) -> Result<(), DataDirError> {
    // A link that leads nowhere is there too.
    let has = |name: &str| path.join(name).symlink_metadata().is_ok();
    if has(BACKUP) {
        return Err(DataDirError::Backup(path.to_owned()));
    }
    if has(RESTORING) {
        return Err(DataDirError::HalfRestored(path.to_owned()));
    }
    if has(BACKING_UP) {
        return Err(DataDirError::HalfBackedUp(path.to_owned()));
    }
    Ok(())
}

/// Makes the names in a directory durable.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// An error where there is data: without its description it would be read wrongly.
fn refuse_unlabelled(path: &Path) -> Result<(), DataDirError> {
    if !DATA.into_iter().any(|part| path.join(part).exists()) {
        return Ok(());
    }
    let partitions = fs::read_dir(path.join("views")).map_or(0, Iterator::count);
    Err(DataDirError::Unlabelled {
        path: path.to_owned(),
        partitions,
    })
}

/// Locks the directory against all other processes. A link in the lock's place is not followed.
pub(super) fn lock(path: &Path) -> Result<File, DataDirError> {
    let file = path.join("lock");
    let failed = |error: io::Error| DataDirError::Io {
        path: file.clone(),
        error,
    };
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&file)
        .map_err(failed)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DataDirError::InUse(path.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

/// Writes beside, syncs, and renames, so that the file is there whole or not at all.
fn write_durably(directory: &Path, file: &Path, format: &Format, fail: &FailPoints) -> io::Result<()> {
    let text = toml::to_string(format).map_err(io::Error::other)?;
    let beside = file.with_extension("new");
    let mut out = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&beside)?;
    out.write_all(
        b"# Made by turnpike; not to be edited. It must be backed up with the rest of this directory.\n",
    )?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fail.pass("data_dir.format_written").map_err(io::Error::other)?;
    fs::rename(&beside, file)?;
    sync(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, partitions: u32) -> Result<DataDir, DataDirError> {
        DataDir::open_or_create(path, partitions, &FailPoints::default())
    }

    #[test]
    fn what_is_fixed_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new");
        assert_eq!(open(&path, 3).unwrap().partitions(), 3);
        assert_eq!(open(&path, 8).unwrap().partitions(), 3);
        assert_eq!(DataDir::open(&path).unwrap().partitions(), 3);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("format.toml"))), (0o700, 0o600));
    }

    #[test]
    fn a_second_user_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path(), 1).unwrap();
        assert!(matches!(open(directory.path(), 1), Err(DataDirError::InUse(_))));
        assert!(matches!(
            DataDir::open(directory.path()),
            Err(DataDirError::InUse(_))
        ));
        drop(first);
        assert!(open(directory.path(), 1).is_ok());
    }

    #[test]
    fn data_without_its_format_is_not_taken_for_a_new_directory() {
        for there in DATA {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path();
            fs::create_dir(path.join(there)).unwrap();
            for opened in [open(path, 2), DataDir::open(path)] {
                assert!(matches!(opened, Err(DataDirError::Unlabelled { .. })), "{there}");
            }
            assert!(!path.join(FORMAT).exists(), "nothing was made");
        }
    }

    #[test]
    fn a_stop_before_the_format_is_in_place_leaves_a_directory_that_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let fail = FailPoints::parse("data_dir.format_written:1:error").unwrap();
        let stopped = DataDir::open_or_create(directory.path(), 5, &fail);
        assert!(matches!(stopped, Err(DataDirError::Io { .. })));
        assert!(matches!(
            DataDir::open(directory.path()),
            Err(DataDirError::Absent(_))
        ));
        assert_eq!(open(directory.path(), 3).unwrap().partitions(), 3);
    }

    #[test]
    fn a_backup_and_what_an_interrupted_command_left_are_not_used() {
        for (file, told) in [
            (BACKUP, "is a backup"),
            (RESTORING, "a restore into"),
            (BACKING_UP, "is not whole"),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path();
            for labelled in [false, true] {
                fs::write(path.join(file), "").unwrap();
                for opened in [open(path, 2), DataDir::open(path), DataDir::look(path)] {
                    let refused = opened.map(|_| ()).unwrap_err().to_string();
                    assert!(refused.contains(told), "{labelled} {refused}");
                }
                fs::remove_file(path.join(file)).unwrap();
                drop(open(path, 2).unwrap());
            }
        }
    }

    #[test]
    fn what_does_not_belong_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = open(directory.path(), 1).unwrap();
        for name in DATA.into_iter().chain(BESIDE).chain(["views.old", "notes.txt"]) {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(data_dir.strangers().unwrap(), ["notes.txt", "views.old"]);
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(
            DataDir::open(directory.path()),
            Err(DataDirError::Absent(_))
        ));
        drop(open(directory.path(), 2).unwrap());
        let file = directory.path().join("format.toml");
        let good = fs::read_to_string(&file).unwrap();
        fs::write(&file, good.replace("format_version = 1", "format_version = 7")).unwrap();
        assert!(matches!(
            open(directory.path(), 2),
            Err(DataDirError::Version { found: 7, .. })
        ));
        for bad in [
            "",
            "format_version = 1",
            &good.replace("partitions = 2", "partitions = 0"),
            &good.replace("partitions = 2", "partitions = 257"),
            &format!("{good}more = 1"),
        ] {
            fs::write(&file, bad).unwrap();
            assert!(
                matches!(open(directory.path(), 2), Err(DataDirError::Damaged { .. })),
                "{bad}"
            );
        }
    }
}
