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

/// Rows with ascending keys, values of equal keys added. An error where the keys do not ascend.
pub(in super::super) struct Folded<'r> {
    rows: std::iter::Peekable<&'r mut dyn Iterator<Item = Row>>,
    merge: &'r dyn MergeRows,
}

impl<'r> Folded<'r> {
    pub(in super::super) fn new(rows: &'r mut dyn Iterator<Item = Row>, merge: &'r dyn MergeRows) -> Self {
        Self {
            rows: rows.peekable(),
            merge,
        }
    }

    /// The next key and its sum; `None` at the end.
    fn step(&mut self) -> Result<Option<Sum>, StoreError> {
        let Some(Row { key, value }) = self.rows.next() else {
            return Ok(None);
        };
        let mut sum = Some(value);
        while let Some(next) = self.rows.next_if(|next| next.key == key) {
            sum = match sum {
                Some(sum) => self.merge.merge(&key, &sum, &next.value)?,
                None => Some(next.value),
            };
        }
        if self.rows.peek().is_some_and(|next| next.key < key) {
            return Err(StoreError::Failed(
                "rows of a checkpoint must have ascending keys".into(),
            ));
        }
        Ok(Some((key, sum)))
    }
}

impl Iterator for Folded<'_> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step().transpose()? {
                Ok((key, Some(value))) => return Some(Ok(Row { key, value })),
                Ok((_, None)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
