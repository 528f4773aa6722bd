//! Merging runs of ids that follow each other in age into one.

use std::sync::Arc;

use turnpike_domain::identity::EventName;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::IdEntry;

use super::page::PAGE_LEN;
use super::run::{IdRun, IdRunWriter};

/// Pages read at once.
const CHUNK: usize = 128;
/// Pages read from an input before the operating system is told to forget them (64 MB).
const FORGET: usize = 64 * 1024 * 1024 / PAGE_LEN;

/// Writes the entries of `runs`, newest first, to `writer`: of equal names the newest one. `false` when `stopped` said so.
pub(in super::super) fn merge(
    runs: &[Arc<IdRun>],
    writer: &mut IdRunWriter,
    stopped: &dyn Fn() -> bool,
) -> Result<bool, StoreError> {
    let mut cursors = Vec::with_capacity(runs.len());
    for run in runs {
        let mut cursor = Cursor {
            run: Arc::clone(run),
            entries: Vec::new(),
            at: 0,
            page: 0,
            buffer: Vec::new(),
        };
        cursor.refill()?;
        cursors.push(cursor);
    }
    while let Some(next) = cursors.iter().filter_map(Cursor::name).min() {
        let mut newest = None;
        for cursor in &mut cursors {
            if cursor.name() == Some(next) {
                newest = newest.or(Some(cursor.entries[cursor.at].1));
                cursor.at += 1;
                if cursor.at == cursor.entries.len() {
                    if stopped() {
                        return Ok(false);
                    }
                    cursor.refill()?;
                }
            }
        }
        if let Some(entry) = newest {
            writer.push(next, entry)?;
        }
    }
    for run in runs {
        run.file().drop_cache();
    }
    Ok(true)
}

/// Where the merge stands in a run.
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
