//! Merging runs of ids that follow each other in age into one.

use std::sync::Arc;

use turnpike_domain::identity::EventName;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::IdEntry;

use super::page::PAGE_LEN;
use super::run::{IdRun, IdRunWriter};

/// Pages read at once.
const CHUNK: usize = 128;
/// Entries written before it is asked again whether to stop.
const STOP_ENTRIES: usize = 16_384;
/// Pages read from an input before the operating system is told to forget them (64 MB).
const FORGET: usize = 64 * 1024 * 1024 / PAGE_LEN;

/// Writes the entries of `runs`, newest first, to `writer`: of equal names the newest one. `false` when `stopped` said so.
pub(in super::super) fn merge(
    runs: &[Arc<IdRun>],
    writer: &mut IdRunWriter,
    stopped: &dyn Fn() -> bool,
) -> Result<bool, StoreError> {
    for (at, id) in Merged::open(runs).enumerate() {
        let (name, entry) = id?;
        writer.push(name, entry)?;
        if at % STOP_ENTRIES == 0 && stopped() {
            return Ok(false);
        }
    }
    for run in runs {
        run.file().drop_cache();
    }
    Ok(true)
}

/// The entries of several runs in the order of their names: of equal names the newest one. Ends behind the first error.
pub(in super::super) struct Merged {
    /// Newest first.
    cursors: Vec<Cursor>,
    failure: Option<StoreError>,
}

impl Merged {
    /// All entries of `runs`, which are newest first.
    pub(in super::super) fn open(runs: &[Arc<IdRun>]) -> Self {
        let mut merged = Self {
            cursors: Vec::with_capacity(runs.len()),
            failure: None,
        };
        for run in runs {
            let mut cursor = Cursor {
                run: Arc::clone(run),
                entries: Vec::new(),
                at: 0,
                page: 0,
                buffer: Vec::new(),
            };
            match cursor.refill() {
                Ok(()) => merged.cursors.push(cursor),
                Err(error) => merged.failure = Some(error),
            }
        }
        merged
    }

    fn step(&mut self) -> Result<Option<(EventName, IdEntry)>, StoreError> {
        let Some(next) = self.cursors.iter().filter_map(Cursor::name).min() else {
            return Ok(None);
        };
        let mut newest = None;
        for cursor in &mut self.cursors {
            if cursor.name() == Some(next) {
                newest = newest.or(Some((next, cursor.entries[cursor.at].1)));
                cursor.at += 1;
                if cursor.at == cursor.entries.len() {
                    cursor.refill()?;
                }
            }
        }
        Ok(newest)
    }
}

impl Iterator for Merged {
    type Item = Result<(EventName, IdEntry), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match self.failure.take() {
            Some(error) => Err(error),
            None => self.step(),
        };
        if next.is_err() {
            self.cursors.clear();
        }
        next.transpose()
    }
}

/// Where a merge stands in a run.
struct Cursor {
    run: Arc<IdRun>,
    entries: Vec<(EventName, IdEntry)>,
    at: usize,
    /// The next page to read.
    page: usize,
    buffer: Vec<u8>,
}

impl Cursor {
    fn name(&self) -> Option<EventName> {
        self.entries.get(self.at).map(|(name, _)| *name)
    }

    fn refill(&mut self) -> Result<(), StoreError> {
        self.entries.clear();
        self.at = 0;
        let count = CHUNK.min(self.run.pages() - self.page);
        if count == 0 {
            return Ok(());
        }
        self.run.read_pages(self.page, count, &mut self.buffer)?;
        for at in 0..count {
            let page = self.run.parse(&self.buffer, self.page, at)?;
            self.entries.extend((0..page.len()).map(|index| page.get(index)));
        }
        self.page += count;
        if self.page % FORGET < CHUNK {
            self.run.file().drop_cache();
        }
        Ok(())
    }
}
