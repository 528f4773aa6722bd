//! The files of a partition's views: written once from front to back, then only read, and removed when neither a manifest
//! nor a reader needs them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use turnpike_domain::port::StoreError;

use crate::disk::{Disk, DiskFile};

/// Bytes gathered before a write.
const WRITE_BYTES: usize = 1024 * 1024;
/// Bytes written before they are made durable, so that a large merge never leaves a flood of dirty pages for the log's
/// next `fdatasync` to wait behind.
const SYNC_BYTES: u64 = 16 * 1024 * 1024;

/// Says which file failed, and how.
pub(super) fn failed(path: &Path, doing: &str, error: &io::Error) -> StoreError {
    let text = format!("{doing} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full(text),
        _ => StoreError::Failed(text),
    }
}

/// Says where bytes are not what was written.
pub(super) fn damaged(path: &Path, offset: u64, what: &str) -> StoreError {
    StoreError::Damaged(format!("{} at offset {offset}: {what}", path.display()))
}

/// The directory of one partition's views.
pub(super) struct Directory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl Directory {
    /// The directory of `partition` below that of all views; makes both where they are absent.
    pub(super) fn open(disk: Arc<dyn Disk>, views: &Path, partition: u32) -> Result<Self, StoreError> {
        let directory = Self::existing(disk, views, partition);
        let Self { disk, path } = &directory;
        disk.create_directory(path)
            .map_err(|error| failed(path, "making", &error))?;
        // The partition's own directory and the one of all views may both be new.
        for parent in path.ancestors().skip(1).take(2) {
            disk.sync_directory(parent)
                .map_err(|error| failed(parent, "syncing", &error))?;
        }
        Ok(directory)
    }

    /// The same directory to be read, as it is; empty where there is none.
    pub(super) fn existing(disk: Arc<dyn Disk>, views: &Path, partition: u32) -> Self {
        let path = views.join(format!("partition-{partition:05}"));
        Self { disk, path }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the file `name`.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The names of the files in it.
    pub(super) fn names(&self) -> Result<Vec<String>, StoreError> {
        let paths = self
            .disk
            .list(&self.path)
            .map_err(|error| failed(&self.path, "listing", &error))?;
        let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
        Ok(paths.iter().filter_map(name).collect())
    }

    /// Starts a new file.
    pub(super) fn create(&self, name: &str) -> Result<Writer, StoreError> {
        let path = self.path_of(name);
        let file = self
            .disk
            .create(&path)
            .map_err(|error| failed(&path, "making", &error))?;
        Ok(Writer {
            file: StoredFile {
                disk: Arc::clone(&self.disk),
                path,
                file,
                unwanted: AtomicBool::new(true),
            },
            buffer: Vec::new(),
            written: 0,
            synced: 0,
        })
    }

    /// Opens a file that must be there with `len` bytes.
    pub(super) fn open_file(&self, name: &str, len: u64) -> Result<StoredFile, StoreError> {
        let file = self.open_any(name)?;
        let found = file.len()?;
        if found == len {
            Ok(file)
        } else {
            Err(damaged(
                &file.path,
                found.min(len),
                &format!("the file has {found} bytes instead of {len}"),
            ))
        }
    }

    /// Opens a file of any length.
    pub(super) fn open_any(&self, name: &str) -> Result<StoredFile, StoreError> {
        let path = self.path_of(name);
        match self.disk.open(&path) {
            Ok(file) => Ok(StoredFile {
                disk: Arc::clone(&self.disk),
                path,
                file,
                unwanted: AtomicBool::new(false),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(damaged(&path, 0, "the file is missing"))
            }
            Err(error) => Err(failed(&path, "opening", &error)),
        }
    }

    /// Gives the file `from` the name `to`, in place of what had it.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let path = self.path_of(to);
        self.disk
            .rename(&self.path_of(from), &path)
            .map_err(|error| failed(&path, "replacing", &error))
    }

    /// Removes a file if it is there.
    pub(super) fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path_of(name);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path, "removing", &error)),
            _ => Ok(()),
        }
    }

    /// Makes the names in it durable.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.disk
            .sync_directory(&self.path)
            .map_err(|error| failed(&self.path, "syncing", &error))
    }
}

/// A finished file. Removed when dropped, unless it is wanted.
pub(super) struct StoredFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    unwanted: AtomicBool,
}

impl StoredFile {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its name in the directory.
    pub(super) fn name(&self) -> String {
        self.path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> Result<u64, StoreError> {
        self.file
            .len()
            .map_err(|error| failed(&self.path, "measuring", &error))
    }

    /// Reads exactly `buffer` from `offset`.
    pub(super) fn read_into(&self, buffer: &mut [u8], offset: u64) -> Result<(), StoreError> {
        self.file.read_at(buffer, offset).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                self.damaged(offset, "the file ends too early")
            } else {
                failed(&self.path, "reading", &error)
            }
        })
    }

    /// Reads `len` bytes from `offset`.
    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let mut buffer = vec![0; len];
        self.read_into(&mut buffer, offset)?;
        Ok(buffer)
    }

    /// Tells the operating system that `len` bytes from `offset` will be read soon.
    pub(super) fn will_need(&self, offset: u64, len: u64) {
        self.file.will_need(offset, len);
    }

    /// Tells the operating system that its pages are not needed in the cache.
    pub(super) fn drop_cache(&self) {
        self.file.drop_cache();
    }

    /// Says that bytes of it are not what was written.
    pub(super) fn damaged(&self, offset: u64, what: &str) -> StoreError {
        damaged(&self.path, offset, what)
    }

    /// Keeps it beyond this process: a manifest names it, or may.
    pub(super) fn keep(&self) {
        self.unwanted.store(false, Ordering::Release);
    }

    /// Lets it go as soon as nobody reads it: no manifest names it any more.
    pub(super) fn retire(&self) {
        self.unwanted.store(true, Ordering::Release);
    }
}

impl Drop for StoredFile {
    fn drop(&mut self) {
        if !self.unwanted.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = self.disk.remove(&self.path) {
            // Harmless: the next start removes files that no manifest names.
            tracing::warn!(path = %self.path.display(), %error, "a file that is no longer needed could not be removed");
        }
    }
}

/// Writes a file from front to back. Dropped before [`Writer::finish`], it takes the file with it.
pub(super) struct Writer {
    file: StoredFile,
    buffer: Vec<u8>,
    written: u64,
    synced: u64,
}

impl Writer {
    /// Where the next byte goes.
    pub(super) fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Appends bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()?;
            if self.written - self.synced >= SYNC_BYTES {
                self.sync()?;
            }
        }
        Ok(())
    }

    /// Makes all durable. The file is still removed when it is dropped, until it is told to be kept.
    pub(super) fn finish(mut self) -> Result<StoredFile, StoreError> {
        self.flush()?;
        self.sync()?;
        Ok(self.file)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.file
            .file
            .write_at(&self.buffer, self.written)
            .map_err(|error| failed(&self.file.path, "writing", &error))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.file
            .file
            .sync()
            .map_err(|error| failed(&self.file.path, "syncing", &error))?;
        self.synced = self.written;
        Ok(())
    }
}
