use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use turnpike_domain::limits::DISK_USED_PERCENT_MAX;
use turnpike_domain::port::StoreError;
use turnpike_domain::time::{Clock as _, Timestamp};
use turnpike_stores::disk::{Disk, RealDisk};
use turnpike_stores::embedded::{log, views};
use turnpike_stores::machine::MachineClock;
use turnpike_stores::sql::{self, SqlPlace};

use super::claim::{has_only, is_marked, mark};
use super::files::{Copying, Source, bytes_below};
use super::list::{List, LogPart};
use super::{BackupError, Progress};
use crate::wiring::data_dir::{BACKING_UP, BACKUP, DataDir, DataDirError, FORMAT, lock, sync};
use crate::wiring::stores::Stores;

/// What a backup came to.
pub(crate) struct Taken {
    pub(crate) list: List,
    /// Bytes of files that share their place on the disk with the data directory's.
    pub(crate) linked: u64,
}

/// Segments by their start, kept open: one that retention deletes meanwhile can still be copied.
type Pinned = BTreeMap<u64, Source>;

/// Copies the data directory at `data` as it is at one instant to `target`, whether a process uses it or not. With `link`, files
/// that are never written to again get a second name where the file system can give one.
///
/// The instant is that at which the database is copied: while nobody can change it, the log's end is measured. So the log has all
/// that the database speaks of, and nothing that speaks of what the database has not; the views are older than both. That is what
/// a loss of power at that instant would leave.
pub(crate) async fn take(
    data: &Path,
    target: &Path,
    link: bool,
    progress: Progress<'_>,
) -> Result<Taken, BackupError> {
    let data_dir = DataDir::look(data)?;
    if !data_dir.database().exists() {
        let unborn = bytes_below(&data_dir.log()).is_ok_and(|bytes| bytes == 0);
        return Err(if unborn {
            BackupError::Unborn(data.to_owned())
        } else {
            BackupError::NoDatabase(data_dir.database())
        });
    }
    let scratch = Scratch::make(&data_dir, target)?;
    let total = room(&data_dir, &scratch, link)?;
    let mut copying = Copying::new(&scratch.path, link, total, progress);
    let (taken_at, log) = parts(&data_dir, &scratch.path, &mut copying).await?;
    together(&scratch.path).await?;
    copying.note(&name(&data_dir.database()))?;
    let (files, linked) = copying.finish()?;
    let list = List::new(taken_at, log, files);
    scratch.finish(&list)?;
    Ok(Taken { list, linked })
}

/// Copies all parts, each no newer than the next: what the log's end is held against comes before it.
async fn parts(
    data_dir: &DataDir,
    scratch: &Path,
    copying: &mut Copying<'_>,
) -> Result<(Timestamp, LogPart), BackupError> {
    let format = Source::open(data_dir.path().join(FORMAT))?;
    copying.copy(FORMAT, &format, format.len()?)?;
    beside(data_dir, copying, "control")?;
    let mut pinned = Pinned::new();
    again(|| pin(data_dir, &mut pinned))?;
    for partition in 0..data_dir.partitions() {
        let (manifest, files) = again(|| published(data_dir, partition))?;
        for source in files {
            copying.keep(&below(data_dir, &source.path), &source)?;
        }
        if let Some((path, bytes)) = manifest {
            copying.put(&below(data_dir, &path), &bytes)?;
        }
    }
    beside(data_dir, copying, "horizon")?;
    let place = SqlPlace::File(data_dir.database());
    let to = scratch.join(name(&data_dir.database()));
    let (taken_at, extent) = sql::copy(&place, &to, || {
        let extent = again(|| pin(data_dir, &mut pinned)).map_err(|error| match error {
            BackupError::Store(error) => error,
            other => StoreError::Failed(other.to_string()),
        })?;
        Ok((MachineClock.machine_now(), extent))
    })
    .await?;
    Ok((taken_at, segments(data_dir, &pinned, &extent, copying)?))
}

/// Opens all segments that are not open yet; how far the log reaches.
fn pin(data_dir: &DataDir, pinned: &mut Pinned) -> Result<log::Extent, BackupError> {
    let extent = log::extent(&RealDisk, &data_dir.log())?
        .ok_or_else(|| BackupError::Unborn(data_dir.path().to_owned()))?;
    for (start, path) in &extent.segments {
        if !pinned.contains_key(start) {
            pinned.insert(*start, Source::open(path.clone())?);
        }
    }
    Ok(extent)
}

/// Copies the log up to its end: the segment that it lies in is written to, those before it never again.
fn segments(
    data_dir: &DataDir,
    pinned: &Pinned,
    extent: &log::Extent,
    copying: &mut Copying<'_>,
) -> Result<LogPart, BackupError> {
    let within: Vec<_> = pinned.range(..extent.end).collect();
    for (at, (start, source)) in within.iter().enumerate() {
        let path = below(data_dir, &source.path);
        match within.get(at + 1) {
            Some((next, _)) if source.len()? == *next - *start => copying.keep(&path, source)?,
            next => {
                let end = next.map_or(extent.end, |(next, _)| **next);
                copying.copy(&path, source, end - *start)?
            }
        };
    }
    Ok(LogPart {
        identity: format!("{:016x}", extent.identity),
        first: within.first().map_or(0, |(start, _)| **start),
        end: extent.end,
    })
}

/// A manifest's place and bytes.
type Manifest = (PathBuf, Vec<u8>);

/// What is published of a partition, and its files, open.
fn published(data_dir: &DataDir, partition: u32) -> Result<(Option<Manifest>, Vec<Source>), BackupError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let Some(published) = views::published(&disk, &data_dir.views(), partition)? else {
        return Ok((None, Vec::new()));
    };
    let files = published.files.iter();
    let files = files.map(|name| Source::open(published.directory.join(name)));
    let (name, bytes) = published.manifest;
    Ok((
        Some((published.directory.join(name), bytes)),
        files.collect::<Result<_, _>>()?,
    ))
}

/// Copies a small file among the segments, which is replaced as a whole or in one write.
fn beside(data_dir: &DataDir, copying: &mut Copying<'_>, name: &str) -> Result<(), BackupError> {
    let path = data_dir.log().join(name);
    match fs::read(&path) {
        Ok(bytes) => copying.put(&below(data_dir, &path), &bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(BackupError::io("reading", &path)(error)),
    }
}

/// Tries again where a file was gone: the process that uses the directory removes what it needs no more, and names it no more.
/// A file that is missed twice is missing.
fn again<T>(mut attempt: impl FnMut() -> Result<T, BackupError>) -> Result<T, BackupError> {
    let mut missed = None;
    loop {
        match attempt() {
            Err(error) if error.is_missing() && missed.as_ref() != Some(&error.to_string()) => {
                missed = Some(error.to_string());
            }
            ended => return ended,
        }
    }
}

/// What was copied must be what a start demands.
async fn together(scratch: &Path) -> Result<(), BackupError> {
    // Not looked at as others do, whom its mark refuses.
    let copy = DataDir::finish(scratch, None)?;
    Stores::check_together(&copy).await?;
    Ok(sql::settle(&SqlPlace::File(copy.database())).await?)
}

/// The bytes of all, where there is room for those of them that are copied.
fn room(data_dir: &DataDir, scratch: &Scratch, link: bool) -> Result<u64, BackupError> {
    let measured = |path: &Path| bytes_below(path).map_err(BackupError::io("measuring", path));
    let database = data_dir.database();
    let database = fs::metadata(&database).map_err(BackupError::io("measuring", &database))?;
    let place = &scratch.path;
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let same = device(place) == device(data_dir.path());
    // What is given a second name takes no space; the last segment is copied in any case.
    let extent = log::extent(&RealDisk, &data_dir.log())?;
    let extent = extent.ok_or_else(|| BackupError::Unborn(data_dir.path().to_owned()))?;
    let within = |(start, _): &&(u64, PathBuf)| *start < extent.end;
    let last = extent
        .segments
        .iter()
        .rfind(within)
        .map_or(0, |(start, _)| extent.end - *start);
    // What lies ready behind its end is not copied.
    let log = extent.end - extent.segments.first().map_or(0, |(start, _)| *start);
    let total = database.len() + log + measured(&data_dir.views()).unwrap_or(0);
    let needed = if same && link {
        database.len() + last
    } else {
        total
    };
    let (free, all) = RealDisk
        .space(place)
        .map_err(BackupError::io("measuring", place))?;
    let spared = if same {
        all / 100 * (100 - DISK_USED_PERCENT_MAX)
    } else {
        0
    };
    let free = free.saturating_sub(spared);
    if needed > free {
        return Err(BackupError::NoSpace {
            path: place.clone(),
            needed,
            free,
        });
    }
    Ok(total)
}

/// A path as in the data directory.
fn below(data_dir: &DataDir, path: &Path) -> String {
    let below = path.strip_prefix(data_dir.path()).unwrap_or(path);
    below.to_string_lossy().into_owned()
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// A directory beside the target, which becomes the target when it is whole. Dropped before, it is removed.
struct Scratch {
    path: PathBuf,
    target: PathBuf,
    /// Locked while a process writes there.
    lock: Option<File>,
}

impl Scratch {
    fn make(data_dir: &DataDir, target: &Path) -> Result<Self, BackupError> {
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let whole = |path: &Path| fs::canonicalize(path).map_err(BackupError::io("finding", path));
        let (parent, data) = (whole(parent)?, whole(data_dir.path())?);
        let Some(name) = target.file_name() else {
            return Err(BackupError::Exists(target.to_owned()));
        };
        let target = parent.join(name);
        let mut beside = name.to_owned();
        beside.push(".incomplete");
        let path = parent.join(beside);
        if parent.starts_with(&data) || data.starts_with(&path) {
            return Err(BackupError::Within(target));
        }
        if fs::symlink_metadata(&target).is_ok() {
            return Err(BackupError::Exists(target));
        }
        claim(&path)?;
        let writing = File::open(&path).map_err(BackupError::io("opening", &path))?;
        if flock(&writing, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(BackupError::Busy(target));
        }
        // Whoever serves it has that lock, whatever else is there; whoever has taken it once it was marked goes away again.
        let used = lock(&path).map_err(|error| match error {
            DataDirError::InUse(path) => BackupError::Used(path),
            other => other.into(),
        })?;
        check_ours(&path)?;
        let scratch = Self {
            path,
            target,
            lock: Some(writing),
        };
        let begun = mark(&scratch.path.join(BACKING_UP)).and_then(|()| scratch.clear());
        drop(used);
        begun.map_err(BackupError::io("emptying", &scratch.path))?;
        Ok(scratch)
    }

    /// Removes what one that was interrupted left.
    fn clear(&self) -> std::io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_name() == BACKING_UP {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(&path)?;
            } else {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Makes a backup of it: with the list, and under its name.
    fn finish(mut self, list: &List) -> Result<(), BackupError> {
        let mut silent = |_, _| {};
        let mut last = Copying::new(&self.path, false, 0, &mut silent);
        last.put(BACKUP, list.text().as_bytes())?;
        last.finish()?;
        if fs::symlink_metadata(&self.target).is_ok() {
            return Err(BackupError::Exists(self.target.clone()));
        }
        fs::rename(&self.path, &self.target).map_err(BackupError::io("naming", &self.target))?;
        self.lock = None;
        let mark = self.target.join(BACKING_UP);
        fs::remove_file(&mark).map_err(BackupError::io("removing", &mark))?;
        let parent = self
            .target
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        sync(parent).map_err(BackupError::io("syncing", parent))
    }
}

/// Makes a directory, or takes one that is empty or that an interrupted backup left. Whatever else has that name is somebody's.
fn claim(path: &Path) -> Result<(), BackupError> {
    let error = match fs::create_dir(path) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    if error.kind() != std::io::ErrorKind::AlreadyExists {
        return Err(BackupError::io("making", path)(error));
    }
    check_ours(path)
}

fn check_ours(path: &Path) -> Result<(), BackupError> {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    // A lock alone is left by a stop right behind it.
    let ours = || is_marked(&path.join(BACKING_UP)) || has_only(path, &["lock"]).unwrap_or(false);
    if is_directory && ours() {
        return Ok(());
    }
    Err(BackupError::Exists(path.to_owned()))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.lock.is_some() && fs::remove_dir_all(&self.path).is_err() {
            // The next backup to the same place empties it, and nobody takes it for whole.
            tracing::warn!(path = %self.path.display(), "what is left of a backup could not be removed");
        }
    }
}
