//! The file system as the embedded stores use it, so that tests can make it fail.

use crate::width::in_memory;
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A directory tree.
pub trait Disk: Send + Sync {
    /// Makes a new file; an error when it exists.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Renames, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The files of a directory, sorted by name; empty when there is no such directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes a directory and those above it.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// Makes names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Bytes free for us, and bytes used and free together, of the file system that holds `path`; what only the
    /// superuser may use counts as neither, as `df` has it.
    fn space(&self, path: &Path) -> io::Result<(u64, u64)>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Reads exactly `buffer` from `offset`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes data durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// The length.
    fn len(&self) -> io::Result<u64>;
    /// Whether there is nothing in it.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space up to `len`, extending the file with zeros; an error when the disk has not that much.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Tells the operating system that the pages of the file are not needed in its cache.
    fn drop_cache(&self);
    /// Tells the operating system that `len` bytes from `offset` will be read soon, without waiting for them.
    fn will_need(&self, _offset: u64, _len: u64) {}
}

/// The real one.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(path)?,
        )))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(
            OpenOptions::new().read(true).write(true).open(path)?,
        )))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        match std::fs::read_dir(directory) {
            Ok(entries) => {
                for entry in entries {
                    paths.push(entry?.path());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        paths.sort();
        Ok(paths)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::statvfs(path)?;
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        Ok((
            stat.f_bavail * stat.f_frsize,
            (used + stat.f_bavail) * stat.f_frsize,
        ))
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        use rustix::io::Errno;
        match rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, len) {
            // File systems that cannot reserve space can still be made to give it.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                const ZEROS: &[u8] = &[0; 64 * 1024];
                let mut at = self.len()?;
                while at < len {
                    let step = (len - at).min(ZEROS.len() as u64);
                    self.write_at(&ZEROS[..in_memory(step)], at)?;
                    at += step;
                }
                Ok(())
            }
            result => result.map_err(io::Error::from),
        }
    }

    fn drop_cache(&self) {
        // Advice only: nothing depends on whether it is taken.
        let _ = rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed);
    }

    fn will_need(&self, offset: u64, len: u64) {
        // Advice only, as above.
        let _ = rustix::fs::fadvise(
            &self.0,
            offset,
            NonZeroU64::new(len),
            rustix::fs::Advice::WillNeed,
        );
    }
}
