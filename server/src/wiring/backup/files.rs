use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::list::Entry;
use super::{BackupError, Progress};
use crate::wiring::data_dir::sync;

/// Bytes that are read at once.
const PIECE: u64 = 1024 * 1024;

/// A file to be copied.
pub(super) struct Source {
    /// Where it is, or was: what was opened is what is copied.
    pub(super) path: PathBuf,
    pub(super) file: File,
}

impl Source {
    pub(super) fn open(path: PathBuf) -> Result<Self, BackupError> {
        let file = File::open(&path).map_err(BackupError::io("opening", &path))?;
        Ok(Self { path, file })
    }

    pub(super) fn len(&self) -> Result<u64, BackupError> {
        let metadata = self.file.metadata();
        Ok(metadata.map_err(BackupError::io("measuring", &self.path))?.len())
    }

    /// Calls `each` with its first `len` bytes, piece by piece.
    fn read(
        &self,
        len: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let mut piece = Vec::new();
        let mut at = 0;
        while at < len {
            piece.resize(usize::try_from(PIECE.min(len - at)).unwrap_or_default(), 0);
            let read = self.file.read_exact_at(&mut piece, at);
            read.map_err(BackupError::io("reading", &self.path))?;
            each(&piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Gives the file another name, if the file system can; the name must then be this file's.
    fn link(&self, target: &Path) -> bool {
        if fs::hard_link(&self.path, target).is_err() {
            return false;
        }
        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let of_ours = self.file.metadata().map(place);
        let of_target = fs::metadata(target).map(place);
        let same = of_ours.is_ok() && of_ours.ok() == of_target.ok();
        if !same {
            // The copy that follows finds it there if it stays.
            let _ = fs::remove_file(target);
        }
        same
    }
}

/// Files on their way into a directory, durable and with a checksum each.
pub(super) struct Copying<'a> {
    to: PathBuf,
    /// Whether files that are never written to again are given a second name in place of a copy.
    link: bool,
    directories: BTreeSet<PathBuf>,
    entries: Vec<Entry>,
    done: u64,
    total: u64,
    /// Bytes of files that were given a second name.
    linked: u64,
    progress: Progress<'a>,
}

impl<'a> Copying<'a> {
    /// Into the directory `to`; `total` bytes as far as it is known.
    pub(super) fn new(to: &Path, link: bool, total: u64, progress: Progress<'a>) -> Self {
        Self {
            to: to.to_owned(),
            link,
            directories: BTreeSet::from([to.to_owned()]),
            entries: Vec::new(),
            done: 0,
            total,
            linked: 0,
            progress,
        }
    }

    /// Copies the first `len` bytes of a file to `path`, as something that may be written to.
    pub(super) fn copy(&mut self, path: &str, source: &Source, len: u64) -> Result<&Entry, BackupError> {
        let target = self.place(path)?;
        let failed = |error| BackupError::io("writing", &target)(error);
        let mut out = create(&target)?;
        let mut hash = blake3::Hasher::new();
        source.read(len, |piece| {
            hash.update(piece);
            self.moved(piece.len() as u64);
            out.write_all(piece).map_err(failed)
        })?;
        out.sync_all().map_err(failed)?;
        Ok(self.enter(path, len, &hash))
    }

    /// The same for a whole file that is never written to again.
    pub(super) fn keep(&mut self, path: &str, source: &Source) -> Result<&Entry, BackupError> {
        let (target, len) = (self.place(path)?, source.len()?);
        if !self.link || !source.link(&target) {
            return self.copy(path, source, len);
        }
        self.linked += len;
        self.sum(path, source, len)
    }

    /// Writes `bytes` to `path`.
    pub(super) fn put(&mut self, path: &str, bytes: &[u8]) -> Result<(), BackupError> {
        let target = self.place(path)?;
        let mut out = create(&target)?;
        let written = out.write_all(bytes).and_then(|()| out.sync_all());
        written.map_err(BackupError::io("writing", &target))?;
        self.enter(path, bytes.len() as u64, blake3::Hasher::new().update(bytes));
        Ok(())
    }

    /// Takes note of a file that was written to `path` by others, and is durable.
    pub(super) fn note(&mut self, path: &str) -> Result<(), BackupError> {
        let source = Source::open(self.to.join(path))?;
        let len = source.len()?;
        self.sum(path, &source, len).map(|_| ())
    }

    /// Makes the names of all files durable; what was copied, and how many bytes of it were given a second name only.
    pub(super) fn finish(self) -> Result<(Vec<Entry>, u64), BackupError> {
        for directory in &self.directories {
            sync(directory).map_err(BackupError::io("syncing", directory))?;
        }
        Ok((self.entries, self.linked))
    }

    fn sum(&mut self, path: &str, source: &Source, len: u64) -> Result<&Entry, BackupError> {
        let mut hash = blake3::Hasher::new();
        source.read(len, |piece| {
            hash.update(piece);
            self.moved(piece.len() as u64);
            Ok(())
        })?;
        Ok(self.enter(path, len, &hash))
    }

    fn enter(&mut self, path: &str, bytes: u64, hash: &blake3::Hasher) -> &Entry {
        let at = self.entries.len();
        self.entries.push(Entry {
            path: path.to_owned(),
            bytes,
            blake3: hash.finalize().to_hex().to_string(),
        });
        &self.entries[at]
    }

    fn moved(&mut self, bytes: u64) {
        self.done += bytes;
        (self.progress)(self.done, self.total.max(self.done));
    }

    /// Where `path` is, with the directories above it.
    fn place(&mut self, path: &str) -> Result<PathBuf, BackupError> {
        let target = self.to.join(path);
        let above = target.ancestors().skip(1);
        for directory in above.take_while(|directory| **directory != self.to) {
            fs::create_dir_all(directory).map_err(BackupError::io("making", directory))?;
            self.directories.insert(directory.to_owned());
        }
        Ok(target)
    }
}

fn create(target: &Path) -> Result<File, BackupError> {
    let mut options = OpenOptions::new();
    options.create_new(true).write(true).mode(0o600);
    options.open(target).map_err(BackupError::io("making", target))
}

/// Bytes of all files below a directory; those that go meanwhile are not counted.
pub(super) fn bytes_below(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)?.filter_map(Result::ok) {
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()).unwrap_or(0),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        };
    }
    Ok(bytes)
}
