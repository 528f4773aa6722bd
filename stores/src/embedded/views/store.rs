//! The runs of a partition: opened, published by a new manifest, merged.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::{MergeRows, Row, RowSource};

use super::file::{Directory, StoredFile};
use super::ids::{self, IdRun, IdRunWriter, Table, bits_per_name};
use super::manifest::{self, Manifest};
use super::options::ViewsOptions;
use super::policy::{self, Candidate};
use super::rows::{BlockCache, Folded, Merged, RowRun, RowRunWriter};
use super::version::{Meta, Version};
use crate::disk::Disk;
use crate::fault::FailPoints;

/// The runs.
pub(super) struct Store {
    pub(super) options: ViewsOptions,
    pub(super) merge: Arc<dyn MergeRows>,
    pub(super) cache: Arc<BlockCache>,
    /// Tells merges to end without a result.
    pub(super) stopped: AtomicBool,
    directory: Directory,
    fail: Arc<FailPoints>,
    version: ArcSwap<Version>,
    /// Held while a manifest is replaced; says why none will be any more.
    publishing: Mutex<Option<String>>,
    next_number: AtomicU64,
    /// Numbers of runs that are being merged.
    busy: Mutex<HashSet<u64>>,
}

/// Runs that are being merged, until this is dropped.
struct Claim<'a> {
    store: &'a Store,
    numbers: Vec<u64>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut busy = self.store.busy.lock();
        for number in &self.numbers {
            busy.remove(number);
        }
    }
}

/// Runs of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunKind {
    Ids,
    Rows,
}

impl Store {
    /// Opens the partition's last published version, and removes files that it does not name.
    pub(super) fn open(
        options: ViewsOptions,
        merge: Arc<dyn MergeRows>,
        disk: Arc<dyn Disk>,
        fail: Arc<FailPoints>,
    ) -> Result<Self, StoreError> {
        let directory = Directory::open(disk, &options.directory, options.partition)?;
        let mut version = Version::last(&directory, options.partition)?;
        manifest::refuse_other_log(&directory, version.log, options.log)?;
        // What version 1 wrote names none: it gets one with the next checkpoint.
        version.log = version.log.or(options.log);
        let names = directory.names()?;
        let wanted: HashSet<String> = version.files().map(|(name, _)| name).collect();
        let mut highest = 0;
        for name in &names {
            let number = number_of(name);
            highest = highest.max(number.unwrap_or(0));
            let ours = number.is_some() || name == manifest::NEW_FILE_NAME;
            if ours && !wanted.contains(name) {
                directory.remove(name)?;
            }
        }
        Ok(Self {
            cache: Arc::new(BlockCache::new(options.cache_bytes_max)),
            options,
            merge,
            directory,
            fail,
            version: ArcSwap::from_pointee(version),
            publishing: Mutex::new(None),
            next_number: AtomicU64::new(highest + 1),
            busy: Mutex::default(),
            stopped: AtomicBool::new(false),
        })
    }

    /// What the views are now.
    pub(super) fn version(&self) -> Arc<Version> {
        self.version.load_full()
    }

    /// Writes a run of the entries of `tables`, newest first.
    pub(super) fn write_ids(&self, tables: &[Arc<Table>]) -> Result<Option<IdRun>, StoreError> {
        // A name may stand in several.
        let names_max = tables.iter().map(|table| table.len() as u64).sum();
        if names_max == 0 {
            return Ok(None);
        }
        let mut writer = self.id_writer(names_max, false)?;
        for (name, entry) in ids::sorted(tables.iter().map(AsRef::as_ref)) {
            writer.push(name, entry)?;
        }
        let run = writer.finish()?;
        self.fail.pass("views.ids_written")?;
        Ok(Some(run))
    }

    /// Writes a run of rows as they come.
    pub(super) fn write_rows(&self, rows: &dyn RowSource) -> Result<Option<RowRun>, StoreError> {
        let mut writer = None;
        let mut write = |key: &[u8], value: &[u8]| {
            let writer = match &mut writer {
                Some(open) => open,
                None => writer.insert(RowRunWriter::create(&self.directory, self.number())?),
            };
            writer.push(key, value)
        };
        let mut folded = Folded::new(self.merge.as_ref());
        rows.each(&mut |key, value| folded.push(key, value, &mut write))?;
        folded.flush(&mut write)?;
        let Some(writer) = writer else {
            return Ok(None);
        };
        let run = writer.finish()?;
        self.fail.pass("views.rows_written")?;
        Ok(run)
    }

    /// Makes the owner's meta durable.
    pub(super) fn write_meta(&self, bytes: Vec<u8>) -> Result<Meta, StoreError> {
        let meta = Meta::store(&self.directory, self.number(), bytes)?;
        if meta.has_file() {
            self.fail.pass("views.meta_written")?;
        }
        Ok(meta)
    }

    /// Replaces the current version by what `edit` makes of it, in one durable step.
    ///
    /// An error before the manifest is renamed leaves all as it was. After one while it is renamed nobody knows which manifest
    /// the next start will find: then no file of either is removed and nothing is published any more.
    pub(super) fn publish(&self, edit: impl FnOnce(&mut Version)) -> Result<(), StoreError> {
        let mut poison = self.publishing.lock();
        if let Some(why) = poison.as_ref() {
            return Err(StoreError::Poisoned(why.clone()));
        }
        let current = self.version.load_full();
        let mut next = Version::clone(&current);
        edit(&mut next);
        next.manifest(self.options.partition).write(&self.directory)?;
        self.fail.pass("views.before_manifest")?;
        next.files().for_each(|(_, file)| file.keep());
        if let Err(error) =
            Manifest::install(&self.directory).and_then(|()| self.fail.pass("views.after_manifest"))
        {
            let why = error.to_string();
            *poison = Some(why.clone());
            return Err(StoreError::Poisoned(why));
        }
        let named: HashSet<String> = next.files().map(|(name, _)| name).collect();
        current
            .files()
            .filter(|(name, _)| !named.contains(name))
            .for_each(|(_, file): (_, &StoredFile)| file.retire());
        self.version.store(Arc::new(next));
        Ok(())
    }

    /// Merges the runs that are due and of which the inputs together have a number of bytes in `bytes`; `false` when none are.
    pub(super) fn merge_due(&self, bytes: &Range<u64>) -> Result<bool, StoreError> {
        for kind in [RunKind::Ids, RunKind::Rows] {
            if self.merge_chosen(kind, |runs| policy::choose(runs, bytes.clone()))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Merges the cheapest runs while there are more of a kind than are allowed.
    pub(super) fn merge_excess(&self) -> Result<(), StoreError> {
        for kind in [RunKind::Ids, RunKind::Rows] {
            while self.candidates(kind).len() >= policy::RUNS_MAX {
                if !self.merge_chosen(kind, policy::cheapest)? {
                    break;
                }
            }
        }
        Ok(())
    }

    fn merge_chosen(
        &self,
        kind: RunKind,
        choose: impl FnOnce(&[Candidate]) -> Option<Range<usize>>,
    ) -> Result<bool, StoreError> {
        let (claim, version, range) = {
            let mut busy = self.busy.lock();
            let version = self.version();
            let Some(range) = choose(&candidates(&version, kind, &busy)) else {
                return Ok(false);
            };
            let numbers = numbers(&version, kind)[range.clone()].to_vec();
            busy.extend(&numbers);
            let claim = Claim { store: self, numbers };
            (claim, version, range)
        };
        match kind {
            RunKind::Ids => self.merge_ids(&claim.numbers, &version.ids[range])?,
            RunKind::Rows => self.merge_rows(&claim.numbers, &version.rows[range])?,
        }
        Ok(true)
    }

    fn merge_ids(&self, numbers: &[u64], runs: &[Arc<IdRun>]) -> Result<(), StoreError> {
        let names = runs.iter().map(|run| run.named().entries).sum();
        let mut writer = self.id_writer(names, true)?;
        if !ids::merge(runs, &mut writer, &|| self.is_stopped())? {
            return Ok(());
        }
        let merged = Arc::new(writer.finish()?);
        if names > self.options.table_ids as u64 * 4 {
            merged.file().drop_cache();
        }
        self.fail.pass("views.merged")?;
        self.publish(|version| {
            let at = place(version.ids.iter().map(|run| run.named().number), numbers);
            version.ids.splice(at, [Arc::clone(&merged)]);
        })
    }

    fn merge_rows(&self, numbers: &[u64], runs: &[Arc<RowRun>]) -> Result<(), StoreError> {
        let mut writer = RowRunWriter::create(&self.directory, self.number())?;
        let mut rows = Merged::all(runs, &self.merge);
        let mut row = Row {
            key: Vec::new(),
            value: Vec::new(),
        };
        while rows.read(&mut row)? {
            writer.push(&row.key, &row.value)?;
            if self.is_stopped() {
                return Ok(());
            }
        }
        let merged = writer.finish()?.map(Arc::new);
        for run in runs {
            run.file().drop_cache();
        }
        self.fail.pass("views.merged")?;
        self.publish(|version| {
            let at = place(version.rows.iter().map(|run| run.named().number), numbers);
            version.rows.splice(at, merged.clone());
        })
    }

    fn id_writer(&self, names: u64, merged: bool) -> Result<IdRunWriter, StoreError> {
        let taken: u64 = self.version().ids.iter().map(|run| run.filter_bytes()).sum();
        let max = self.options.filter_bytes_max;
        // A merge gives back the filters of its inputs only when it is done: until then both are there.
        let left = max.saturating_sub(taken);
        let large = merged && names > self.options.table_ids as u64 * 4 && taken + names * 3 <= max / 2;
        let bits = bits_per_name(names, left, large);
        IdRunWriter::create(&self.directory, self.number(), names, bits)
    }

    fn candidates(&self, kind: RunKind) -> Vec<Candidate> {
        candidates(&self.version(), kind, &self.busy.lock())
    }

    fn number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// Where the runs with `numbers` stand: together, for only this merge may replace them.
fn place(runs: impl Iterator<Item = u64>, numbers: &[u64]) -> Range<usize> {
    let start = runs.take_while(|number| numbers.first() != Some(number)).count();
    start..start + numbers.len()
}

fn numbers(version: &Version, kind: RunKind) -> Vec<u64> {
    match kind {
        RunKind::Ids => version.ids.iter().map(|run| run.named().number).collect(),
        RunKind::Rows => version.rows.iter().map(|run| run.named().number).collect(),
    }
}

fn candidates(version: &Version, kind: RunKind, busy: &HashSet<u64>) -> Vec<Candidate> {
    let runs: Vec<_> = match kind {
        RunKind::Ids => version.ids.iter().map(|run| run.named()).collect(),
        RunKind::Rows => version.rows.iter().map(|run| run.named()).collect(),
    };
    let candidate = |run: &super::manifest::RunName| Candidate {
        bytes: run.len,
        busy: busy.contains(&run.number),
    };
    runs.iter().map(candidate).collect()
}

/// The number in the name of a file of ours.
fn number_of(name: &str) -> Option<u64> {
    let (stem, end) = name.split_once('.')?;
    let (kind, number) = stem.split_once('-')?;
    matches!((kind, end), ("ids" | "rows", "run") | ("meta", "bin"))
        .then(|| u64::from_str_radix(number, 16).ok())
        .flatten()
}
