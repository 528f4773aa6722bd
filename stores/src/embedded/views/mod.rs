//! The views of a partition on disk: ids, rows, and the manifest that publishes both with the log position that they
//! contain. `docs/views-format.md` describes the bytes.
//!
//! New ids are in tables in memory; a checkpoint writes a table and the owner's rows as new runs and replaces the
//! manifest. Runs are immutable; a version (the runs of one manifest) is read without a lock, and its files stay until the
//! last reader has let go.

mod background;
mod bytes;
mod file;
mod footer;
mod ids;
mod manifest;
mod options;
mod policy;
mod rows;
mod store;
#[cfg(test)]
mod tests;
mod version;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use turnpike_domain::identity::EventName;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::{
    IdEntry, IdIter, MergeRows, RowIter, RowSource, Rows, TakeSummand, ViewStats, Views,
};
use turnpike_domain::record::Position;

pub use manifest::{Published, look, published};
pub use options::ViewsOptions;

use crate::disk::Disk;
use crate::fault::FailPoints;
use background::Background;
use file::Directory;
use ids::Table;
use rows::{BlockCache, Direction, Merged, RowRun};
use store::Store;
use version::Version;

/// The views of a partition in a directory.
pub struct EmbeddedViews {
    store: Arc<Store>,
    tables: RwLock<Tables>,
    /// Held while a checkpoint is finished: one at a time.
    finishing: Mutex<()>,
    background: Background,
}

/// The new ids.
struct Tables {
    active: Table,
    /// Tables that the next finished checkpoint will write, newest first. More than one only after a failure.
    frozen: Vec<Arc<Table>>,
}

impl EmbeddedViews {
    /// Opens the views of a partition as their last finished checkpoint left them; empty where there is none.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] names the file and offset where bytes are not what was written.
    pub fn open(
        options: ViewsOptions,
        merge: Arc<dyn MergeRows>,
        disk: Arc<dyn Disk>,
        fail: Arc<FailPoints>,
    ) -> Result<Arc<Self>, StoreError> {
        let table = Table::new(options.table_ids);
        let store = Arc::new(Store::open(options, merge, disk, fail)?);
        Ok(Arc::new(Self {
            tables: RwLock::new(Tables {
                active: table,
                frozen: Vec::new(),
            }),
            finishing: Mutex::new(()),
            background: Background::start(&store)?,
            store,
        }))
    }

    /// Merges all runs that are due, and returns how many merges there were.
    pub fn merge_all(&self) -> Result<usize, StoreError> {
        let mut merges = 0;
        while self.store.merge_due(&(0..u64::MAX))? {
            merges += 1;
        }
        Ok(merges)
    }

    /// Reads all runs of the last finished checkpoint and compares them with their checksums.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] names the first file and offset that is not as it was written.
    pub fn verify(&self) -> Result<(), StoreError> {
        self.store.version().verify()
    }
}

/// Reads all runs of a partition that no process has open, as [`EmbeddedViews::verify`] does. Changes nothing.
///
/// # Errors
/// [`StoreError::Damaged`] names the first file and offset that is not as it was written.
pub fn verify(disk: &Arc<dyn Disk>, views: &Path, partition: u32) -> Result<(), StoreError> {
    let directory = Directory::existing(Arc::clone(disk), views, partition);
    Version::last(&directory, partition)?.verify()
}

impl Views for EmbeddedViews {
    fn position(&self) -> Position {
        self.store.version().position
    }

    fn meta(&self) -> Vec<u8> {
        self.store.version().meta.bytes.clone()
    }

    fn probe(&self, names: &[EventName]) -> Result<Vec<Option<IdEntry>>, StoreError> {
        let mut found = vec![None; names.len()];
        self.tables.read().probe(names, &mut found);
        // Loaded after the tables were read: ids that have left them meanwhile are in the runs of this version.
        let version = self.store.version();
        ids::probe(&version.ids, names, &mut found)?;
        Ok(found)
    }

    fn remember(&self, entries: &[(EventName, IdEntry)]) -> Result<(), StoreError> {
        let mut tables = self.tables.write();
        for (name, entry) in entries {
            tables.active.insert(*name, *entry);
        }
        Ok(())
    }

    fn ids(&self) -> IdIter {
        Box::new(ids::Merged::open(&self.store.version().ids))
    }

    fn rows(&self) -> Arc<dyn Rows> {
        Arc::new(EmbeddedRows {
            runs: self.store.version().rows.clone(),
            cache: Arc::clone(&self.store.cache),
            merge: Arc::clone(&self.store.merge),
        })
    }

    fn wants_checkpoint(&self) -> bool {
        self.tables.read().active.len() >= self.store.options.table_ids
    }

    fn begin_checkpoint(&self) -> Result<(), StoreError> {
        let mut tables = self.tables.write();
        if !tables.active.is_empty() {
            let empty = Table::new(self.store.options.table_ids);
            let active = std::mem::replace(&mut tables.active, empty);
            tables.frozen.insert(0, Arc::new(active));
        }
        Ok(())
    }

    fn finish_checkpoint(
        &self,
        position: Position,
        rows: &dyn RowSource,
        meta: Vec<u8>,
    ) -> Result<(), StoreError> {
        let _one_at_a_time = self.finishing.lock();
        self.store.merge_excess()?;
        let frozen = self.tables.read().frozen.clone();
        let ids = self.store.write_ids(&frozen)?.map(Arc::new);
        let rows = self.store.write_rows(rows)?.map(Arc::new);
        let meta = Arc::new(self.store.write_meta(meta)?);
        self.store.publish(|version| {
            version.position = position;
            version.meta = meta;
            version.ids.splice(0..0, ids);
            version.rows.splice(0..0, rows);
        })?;
        let written = |table: &Arc<Table>| frozen.iter().any(|written| Arc::ptr_eq(table, written));
        self.tables.write().frozen.retain(|table| !written(table));
        self.background.wake();
        Ok(())
    }

    fn unwritten_bytes(&self) -> usize {
        self.tables.read().sizes().1
    }

    fn stats(&self) -> ViewStats {
        let version = self.store.version();
        let (table_ids, table_bytes) = self.tables.read().sizes();
        let run_ids: u64 = version.ids.iter().map(|run| run.named().entries).sum();
        let run_bytes: u64 = version.ids.iter().map(|run| run.memory_bytes()).sum();
        let index_bytes: u64 = version.rows.iter().map(|run| run.memory_bytes()).sum();
        ViewStats {
            ids: table_ids + run_ids,
            memory_bytes: table_bytes as u64
                + run_bytes
                + index_bytes
                + self.store.cache.memory_bytes()
                + version.meta.bytes.len() as u64,
            disk_bytes: version.disk_bytes(),
        }
    }
}

impl Tables {
    /// Looks names up, in the newest table first.
    fn probe(&self, names: &[EventName], found: &mut [Option<IdEntry>]) {
        self.active.probe(names, found);
        for table in &self.frozen {
            table.probe(names, found);
        }
    }

    /// Ids, and bytes in memory.
    fn sizes(&self) -> (u64, usize) {
        let tables = || std::iter::once(&self.active).chain(self.frozen.iter().map(AsRef::as_ref));
        (
            tables().map(|table| table.len() as u64).sum(),
            tables().map(Table::memory_bytes).sum(),
        )
    }
}

/// The rows of one version.
struct EmbeddedRows {
    runs: Vec<Arc<RowRun>>,
    cache: Arc<BlockCache>,
    merge: Arc<dyn MergeRows>,
}

impl EmbeddedRows {
    fn open(&self, keys: Range<Vec<u8>>, direction: Direction) -> RowIter {
        Box::new(Merged::scan(
            &self.runs,
            &self.cache,
            &self.merge,
            keys,
            direction,
        ))
    }
}

impl Rows for EmbeddedRows {
    fn scan(&self, keys: Range<Vec<u8>>) -> RowIter {
        self.open(keys, Direction::Forward)
    }

    fn scan_back(&self, keys: Range<Vec<u8>>) -> RowIter {
        self.open(keys, Direction::Back)
    }

    fn summands(&self, keys: Range<&[u8]>, take: &mut TakeSummand<'_>) -> Result<(), StoreError> {
        rows::summands(&self.runs, &self.cache, keys, take)
    }
}

/// Refuses files of a newer format by name.
fn check_version(path: &Path, found: u32, known: u32) -> Result<(), StoreError> {
    match found {
        0 => Err(file::damaged(path, 8, "there is no format with version 0")),
        found if found > known => Err(StoreError::Failed(format!(
            "{} has format version {found}, but this program knows versions up to {known}: start the newer program that wrote it, \
             or remove the directory of the views to have them derived from the log again",
            path.display()
        ))),
        _ => Ok(()),
    }
}
