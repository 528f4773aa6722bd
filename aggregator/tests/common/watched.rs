//! Views in memory whose scans are watched, and whose checkpoints fail while they are told to.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use turnpike_aggregator::rows;
use turnpike_domain::identity::EventName;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::{
    IdEntry, IdIter, Row, RowIter, RowSource, Rows, TakeSummand, ViewStats, Views,
};
use turnpike_domain::record::Position;
use turnpike_stores::memory::MemoryViews;

/// What is seen of the scans over stored rows, and what is done to views.
#[derive(Default)]
pub struct Watch {
    /// Rows that were read.
    pub read: AtomicUsize,
    /// Scans that are under way, and the most that ever were.
    pub scans: AtomicUsize,
    pub most_scans: AtomicUsize,
    /// While set, a scan waits at its 500th row.
    pub held: AtomicBool,
    /// While set, checkpoints find the disk full.
    pub fails: AtomicBool,
}

/// The views of so many partitions.
pub fn watched(partitions: usize, watch: &Arc<Watch>) -> Vec<Arc<dyn Views>> {
    let views = |_| {
        Arc::new(Watched {
            views: MemoryViews::new(rows::merge()),
            watch: Arc::clone(watch),
        }) as Arc<dyn Views>
    };
    (0..partitions).map(views).collect()
}

struct Watched {
    views: MemoryViews,
    watch: Arc<Watch>,
}

struct WatchedRows {
    rows: Arc<dyn Rows>,
    watch: Arc<Watch>,
}

struct Scan {
    rows: RowIter,
    seen: Seen,
}

/// What one scan has seen.
struct Seen {
    watch: Arc<Watch>,
    rows: usize,
}

impl Seen {
    fn begin(watch: &Arc<Watch>) -> Self {
        let scans = watch.scans.fetch_add(1, SeqCst) + 1;
        watch.most_scans.fetch_max(scans, SeqCst);
        Self {
            watch: Arc::clone(watch),
            rows: 0,
        }
    }

    fn row(&mut self) {
        self.rows += 1;
        while self.rows == 500 && self.watch.held.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.watch.read.fetch_add(1, SeqCst);
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.watch.scans.fetch_sub(1, SeqCst);
    }
}

impl Iterator for Scan {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.seen.row();
        self.rows.next()
    }
}

impl WatchedRows {
    fn watched(&self, rows: RowIter) -> RowIter {
        let seen = Seen::begin(&self.watch);
        Box::new(Scan { rows, seen })
    }
}

impl Rows for WatchedRows {
    fn scan(&self, keys: Range<Vec<u8>>) -> RowIter {
        self.watched(self.rows.scan(keys))
    }

    fn scan_back(&self, keys: Range<Vec<u8>>) -> RowIter {
        self.watched(self.rows.scan_back(keys))
    }

    fn summands(&self, keys: Range<&[u8]>, take: &mut TakeSummand<'_>) -> Result<(), StoreError> {
        let mut seen = Seen::begin(&self.watch);
        self.rows.summands(keys, &mut |key, value| {
            seen.row();
            take(key, value)
        })
    }
}

impl Views for Watched {
    fn position(&self) -> Position {
        self.views.position()
    }

    fn meta(&self) -> Vec<u8> {
        self.views.meta()
    }

    fn probe(&self, names: &[EventName]) -> Result<Vec<Option<IdEntry>>, StoreError> {
        self.views.probe(names)
    }

    fn remember(&self, entries: &[(EventName, IdEntry)]) -> Result<(), StoreError> {
        self.views.remember(entries)
    }

    fn ids(&self) -> IdIter {
        self.views.ids()
    }

    fn rows(&self) -> Arc<dyn Rows> {
        Arc::new(WatchedRows {
            rows: self.views.rows(),
            watch: Arc::clone(&self.watch),
        })
    }

    fn wants_checkpoint(&self) -> bool {
        self.views.wants_checkpoint()
    }

    fn begin_checkpoint(&self) -> Result<(), StoreError> {
        self.views.begin_checkpoint()
    }

    fn finish_checkpoint(
        &self,
        position: Position,
        rows: &dyn RowSource,
        meta: Vec<u8>,
    ) -> Result<(), StoreError> {
        if self.watch.fails.load(SeqCst) {
            return Err(StoreError::Full("no space left on device".to_owned()));
        }
        self.views.finish_checkpoint(position, rows, meta)
    }

    fn unwritten_bytes(&self) -> usize {
        self.views.unwritten_bytes()
    }

    fn stats(&self) -> ViewStats {
        self.views.stats()
    }
}
