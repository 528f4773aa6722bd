//! Rows of several runs as one sequence, values of equal keys added.

use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Range;
use std::sync::Arc;

use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::{MergeRows, Row};

use super::cache::BlockCache;
use super::cursor::{Bounds, Cursor, Direction};
use super::run::RowRun;

/// A key, and the sum of its values, if anything is left of them.
type Sum = (Vec<u8>, Option<Vec<u8>>);

/// Merged rows. Ends behind the first error.
pub(in super::super) struct Merged {
    cursors: BinaryHeap<Cursor>,
    merge: Arc<dyn MergeRows>,
    failure: Option<StoreError>,
}

impl Merged {
    /// The rows of `runs` with keys in `keys`.
    pub(in super::super) fn scan(
        runs: &[Arc<RowRun>],
        cache: &Arc<BlockCache>,
        merge: &Arc<dyn MergeRows>,
        keys: Range<Vec<u8>>,
        direction: Direction,
    ) -> Self {
        let bounds = Bounds {
            from: keys.start,
            until: Some(keys.end),
        };
        Self::open(runs, Some(cache), merge, &bounds, direction)
    }

    /// All rows of `runs`, past the cache.
    pub(in super::super) fn all(runs: &[Arc<RowRun>], merge: &Arc<dyn MergeRows>) -> Self {
        let bounds = Bounds {
            from: Vec::new(),
            until: None,
        };
        Self::open(runs, None, merge, &bounds, Direction::Forward)
    }

    fn open(
        runs: &[Arc<RowRun>],
        cache: Option<&Arc<BlockCache>>,
        merge: &Arc<dyn MergeRows>,
        bounds: &Bounds,
        direction: Direction,
    ) -> Self {
        let mut merged = Self {
            cursors: BinaryHeap::with_capacity(runs.len()),
            merge: Arc::clone(merge),
            failure: None,
        };
        if bounds.until.as_ref().is_some_and(|until| bounds.from >= *until) {
            return merged;
        }
        for run in runs {
            match Cursor::open(run, cache, bounds, direction) {
                Ok(cursor) => merged.cursors.extend(cursor),
                Err(error) => merged.failure = Some(error),
            }
        }
        merged
    }

    /// The next key; `None` at the end.
    fn step(&mut self) -> Result<Option<Sum>, StoreError> {
        let Some(first) = self.cursors.peek_mut() else {
            return Ok(None);
        };
        let key = first.key().to_vec();
        let mut sum = Some(first.value().to_vec());
        advance(first)?;
        while let Some(next) = self.cursors.peek_mut().filter(|next| next.key() == key) {
            sum = match sum {
                Some(sum) => self.merge.merge(&key, &sum, next.value())?,
                None => Some(next.value().to_vec()),
            };
            advance(next)?;
        }
        Ok(Some((key, sum)))
    }
}

fn advance(mut cursor: PeekMut<'_, Cursor>) -> Result<(), StoreError> {
    if !cursor.advance()? {
        PeekMut::pop(cursor);
    }
    Ok(())
}

impl Iterator for Merged {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failure.take() {
            self.cursors.clear();
            return Some(Err(error));
        }
        loop {
            match self.step() {
                Ok(Some((key, Some(value)))) => return Some(Ok(Row { key, value })),
                Ok(Some((_, None))) => {}
                Ok(None) => return None,
                Err(error) => {
                    self.cursors.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

/// Adds values of equal keys in `rows`, whose keys ascend. An error when they do not.
pub(in super::super) fn fold(rows: Vec<Row>, merge: &dyn MergeRows) -> Result<Vec<Row>, StoreError> {
    if !rows.is_sorted_by(|a, b| a.key <= b.key) {
        return Err(StoreError::Failed(
            "rows of a checkpoint must have ascending keys".into(),
        ));
    }
    if rows.is_sorted_by(|a, b| a.key < b.key) {
        return Ok(rows);
    }
    let mut folded = Vec::with_capacity(rows.len());
    for same in rows.chunk_by(|a, b| a.key == b.key) {
        let mut sum: Option<Vec<u8>> = None;
        for row in same {
            sum = match sum {
                Some(sum) => merge.merge(&row.key, &sum, &row.value)?,
                None => Some(row.value.clone()),
            };
        }
        let key = || same[0].key.clone();
        folded.extend(sum.map(|value| Row { key: key(), value }));
    }
    Ok(folded)
}
