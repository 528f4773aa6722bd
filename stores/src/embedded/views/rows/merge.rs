//! Rows of several runs as one sequence, values of equal keys added.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Range;
use std::sync::Arc;

use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::{MergeRows, Row, TakeRow};

use super::cache::BlockCache;
use super::cursor::{Bounds, Cursor, Direction};
use super::run::RowRun;

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

    /// Makes `row` the next one; `false` at the end.
    pub(in super::super) fn read(&mut self, row: &mut Row) -> Result<bool, StoreError> {
        let read = self.failure.take().map_or_else(|| self.step(row), Err);
        if read.is_err() {
            self.cursors.clear();
        }
        read
    }

    fn step(&mut self, row: &mut Row) -> Result<bool, StoreError> {
        loop {
            let Some(first) = self.cursors.peek_mut() else {
                return Ok(false);
            };
            replace(&mut row.key, first.key());
            replace(&mut row.value, first.value());
            advance(first)?;
            let mut any = true;
            while let Some(next) = self.cursors.peek_mut().filter(|next| next.key() == row.key) {
                if any {
                    let sum = self.merge.merge(&row.key, &row.value, next.value())?;
                    any = sum.is_some();
                    row.value = sum.unwrap_or_default();
                } else {
                    any = true;
                    replace(&mut row.value, next.value());
                }
                advance(next)?;
            }
            if any {
                return Ok(true);
            }
        }
    }
}

fn replace(bytes: &mut Vec<u8>, by: &[u8]) {
    bytes.clear();
    bytes.extend_from_slice(by);
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
        let mut row = Row {
            key: Vec::new(),
            value: Vec::new(),
        };
        match self.read(&mut row) {
            Ok(true) => Some(Ok(row)),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

/// Adds up neighbours with equal keys among rows with ascending keys. Each sum is handed on when the next key comes.
pub(in super::super) struct Folded<'r> {
    merge: &'r dyn MergeRows,
    key: Vec<u8>,
    /// `None` before the first row, and where nothing is left of the key's values.
    sum: Option<Vec<u8>>,
    /// Kept from row to row.
    spare: Vec<u8>,
}

impl<'r> Folded<'r> {
    pub(in super::super) fn new(merge: &'r dyn MergeRows) -> Self {
        Self {
            merge,
            key: Vec::new(),
            sum: None,
            spare: Vec::new(),
        }
    }

    /// Takes the next row; `write` gets the sum before it when that is complete. An error where keys do not ascend.
    pub(in super::super) fn push(
        &mut self,
        key: &[u8],
        value: &[u8],
        write: &mut TakeRow<'_>,
    ) -> Result<(), StoreError> {
        match self.key.as_slice().cmp(key) {
            Ordering::Less => {
                self.flush(write)?;
                self.key.clear();
                self.key.extend_from_slice(key);
                let mut sum = std::mem::take(&mut self.spare);
                sum.extend_from_slice(value);
                self.sum = Some(sum);
            }
            Ordering::Equal => {
                self.sum = match &self.sum {
                    Some(sum) => self.merge.merge(key, sum, value)?,
                    None => Some(value.to_vec()),
                };
            }
            Ordering::Greater => {
                return Err(StoreError::Failed(
                    "rows of a checkpoint must have ascending keys".into(),
                ));
            }
        }
        Ok(())
    }

    /// Hands on the last sum.
    pub(in super::super) fn flush(&mut self, write: &mut TakeRow<'_>) -> Result<(), StoreError> {
        if let Some(mut sum) = self.sum.take() {
            write(&self.key, &sum)?;
            sum.clear();
            self.spare = sum;
        }
        Ok(())
    }
}
