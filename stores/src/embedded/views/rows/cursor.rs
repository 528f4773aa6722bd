//! A place in a run of rows, moving forwards or backwards within a range of keys.

use std::cmp::Ordering;
use std::sync::Arc;

use turnpike_domain::port::StoreError;

use super::block::{Block, RowAt};
use super::cache::BlockCache;
use super::run::RowRun;

/// Which way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Back,
}

/// What a scan covers.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    /// The first key.
    pub(super) from: Vec<u8>,
    /// The key behind the last; `None` is behind every key.
    pub(super) until: Option<Vec<u8>>,
}

impl Bounds {
    /// The last block that can hold a key in the bounds; `None` when all keys of `run` are behind them.
    fn last_block(&self, run: &RowRun) -> Option<usize> {
        let until = self.until.as_deref();
        until
            .map_or(run.blocks(), |until| run.blocks_before(until))
            .checked_sub(1)
    }

    /// The first block that can hold a key in the bounds.
    fn first_block(&self, run: &RowRun) -> usize {
        // The block before the first one that starts at or behind the key may reach into the bounds.
        run.blocks_before(&self.from).saturating_sub(1)
    }
}

/// A row of a run. Cursors are ordered so that the one whose row comes first in a scan is the greatest.
pub(super) struct Cursor {
    run: Arc<RowRun>,
    cache: Option<Arc<BlockCache>>,
    direction: Direction,
    block: Arc<Block>,
    block_at: usize,
    row: RowAt,
    /// The block with the last row in the direction of the scan, and the row in it.
    last: (usize, usize),
}

impl Cursor {
    /// The first row of a scan; `None` when there is none in the bounds.
    pub(super) fn open(
        run: &Arc<RowRun>,
        cache: Option<&Arc<BlockCache>>,
        bounds: &Bounds,
        direction: Direction,
    ) -> Result<Option<Self>, StoreError> {
        let Some(last_block) = bounds.last_block(run) else {
            return Ok(None);
        };
        let mut cursor = Self {
            run: Arc::clone(run),
            cache: cache.cloned(),
            direction,
            block: Arc::default(),
            block_at: 0,
            row: RowAt::default(),
            last: (0, 0),
        };
        let Some(lowest) = cursor.lowest(bounds, last_block)? else {
            return Ok(None);
        };
        let Some(highest) = cursor.highest(bounds, last_block)? else {
            return Ok(None);
        };
        if lowest > highest {
            return Ok(None);
        }
        let (first, last) = match direction {
            Direction::Forward => (lowest, highest),
            Direction::Back => (highest, lowest),
        };
        cursor.block = cursor.load(first.0)?;
        cursor.block_at = first.0;
        let row = first.1.min(cursor.block.len() - 1);
        cursor.block.seek(row, &mut cursor.row);
        cursor.last = last;
        Ok(Some(cursor))
    }

    /// Where the first key at or behind the lower bound is.
    fn lowest(&self, bounds: &Bounds, last_block: usize) -> Result<Option<(usize, usize)>, StoreError> {
        let at = bounds.first_block(&self.run);
        if at > last_block {
            return Ok(None);
        }
        let block = self.load(at)?;
        let row = block.before(&bounds.from);
        Ok(if row < block.len() {
            Some((at, row))
        } else {
            (at < last_block).then_some((at + 1, 0))
        })
    }

    /// Where the last key before the upper bound is.
    fn highest(&self, bounds: &Bounds, last_block: usize) -> Result<Option<(usize, usize)>, StoreError> {
        let Some(until) = &bounds.until else {
            return Ok(Some((last_block, usize::MAX)));
        };
        let rows = self.load(last_block)?.before(until);
        Ok(rows.checked_sub(1).map(|row| (last_block, row)))
    }

    fn load(&self, at: usize) -> Result<Arc<Block>, StoreError> {
        match &self.cache {
            Some(cache) => cache.get((self.run.named().number, at), || self.run.read(at)),
            None => self.run.read(at).map(Arc::new),
        }
    }

    /// The key of the row.
    pub(super) fn key(&self) -> &[u8] {
        self.row.key()
    }

    /// The value of the row.
    pub(super) fn value(&self) -> &[u8] {
        self.block.value(&self.row)
    }

    /// Goes to the next row; `false` at the end.
    pub(super) fn advance(&mut self) -> Result<bool, StoreError> {
        let number = self.row.number();
        if (self.block_at, number) == self.last {
            return Ok(false);
        }
        match self.direction {
            Direction::Forward if number + 1 < self.block.len() => {
                self.block.next(&mut self.row);
            }
            Direction::Forward if self.block_at >= self.last.0 => return Ok(false),
            Direction::Forward => {
                self.block_at += 1;
                self.block = self.load(self.block_at)?;
                self.block.seek(0, &mut self.row);
            }
            Direction::Back if number > 0 => self.block.seek(number - 1, &mut self.row),
            Direction::Back => {
                self.block_at -= 1;
                self.block = self.load(self.block_at)?;
                self.block.seek(self.block.len() - 1, &mut self.row);
            }
        }
        Ok(true)
    }
}

impl Ord for Cursor {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.key().cmp(other.key());
        match self.direction {
            Direction::Forward => order.reverse(),
            Direction::Back => order,
        }
    }
}

impl PartialOrd for Cursor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Cursor {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Cursor {}
