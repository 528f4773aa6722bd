//! A block of rows: sorted, keys without what they share with the one before, compressed, with a checksum.

use std::ops::Range;

use crate::embedded::views::bytes::{Reader, shared_prefix};
use crate::width::push_varint;

/// Bytes of rows, before compression, after which a block is closed.
const BLOCK_BYTES: usize = 16 * 1024;
/// Bytes of a block's header.
pub(super) const HEADER_LEN: usize = 16;
/// Bytes of a block before compression at the most.
const RAW_MAX: usize = 1 << 30;

/// Gathers rows until a block is full.
#[derive(Debug, Default)]
pub(super) struct BlockBuilder {
    raw: Vec<u8>,
    last: Vec<u8>,
    rows: u32,
}

impl BlockBuilder {
    /// Adds a row behind the others. `Err` when it alone is too large for any block.
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if key.len().saturating_add(value.len()) > RAW_MAX - BLOCK_BYTES - 64 {
            return Err("the row is larger than a block can be");
        }
        let shared = shared_prefix(&self.last, key);
        push_varint(&mut self.raw, shared as u64);
        push_varint(&mut self.raw, (key.len() - shared) as u64);
        push_varint(&mut self.raw, value.len() as u64);
        self.raw.extend_from_slice(&key[shared..]);
        self.raw.extend_from_slice(value);
        self.last.truncate(shared);
        self.last.extend_from_slice(&key[shared..]);
        self.rows += 1;
        Ok(())
    }

    /// Whether there is no row in it.
    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether it should be written.
    pub(super) fn is_full(&self) -> bool {
        self.raw.len() >= BLOCK_BYTES
    }

    /// The bytes of the block; starts the next one.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a block ends soon after its size is reached"
    )]
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let compressed = lz4_flex::block::compress(&self.raw);
        // What does not shrink is kept as it is, told by equal lengths.
        let body = if compressed.len() < self.raw.len() {
            &compressed
        } else {
            &self.raw
        };
        let mut block = Vec::with_capacity(HEADER_LEN + body.len());
        block.extend_from_slice(&[0; 4]);
        for number in [body.len() as u32, self.raw.len() as u32, self.rows] {
            block.extend_from_slice(&number.to_le_bytes());
        }
        block.extend_from_slice(body);
        let checksum = crc32c::crc32c(&block[4..]);
        block[..4].copy_from_slice(&checksum.to_le_bytes());
        self.raw.clear();
        self.last.clear();
        self.rows = 0;
        block
    }
}

/// Rows from one mark to the next.
const MARK_ROWS: usize = 16;

/// A block as it was read: its rows stay packed as they were written, so that many blocks fit the memory, and every 16th has
/// a mark, from which on the others are read.
#[derive(Debug, Default)]
pub(super) struct Block {
    raw: Vec<u8>,
    rows: usize,
    /// The keys of the rows with marks, one behind the other.
    keys: Vec<u8>,
    /// For each mark: where its key ends in `keys`, and where its row begins in `raw`.
    marks: Vec<(u32, u32)>,
}

/// A row of a block, unpacked.
#[derive(Debug, Default)]
pub(super) struct RowAt {
    number: usize,
    key: Vec<u8>,
    /// Where its value is in the block, behind which the next row begins.
    value: Range<usize>,
}

impl Block {
    /// Reads a block. `Err` says what is wrong.
    pub(super) fn parse(stored: &[u8]) -> Result<Self, &'static str> {
        let mut reader = Reader::new(stored);
        let mut number = || reader.u32().ok_or("the block is cut short");
        let (checksum, stored_len, raw_len, rows) = (number()?, number()?, number()?, number()?);
        if checksum != crc32c::crc32c(&stored[4..]) {
            return Err("the checksum of the block does not match");
        }
        let body = reader
            .slice(stored_len as usize)
            .ok_or("the block is cut short")?;
        if !reader.is_empty() || raw_len as usize > RAW_MAX {
            return Err("the lengths of the block make no sense");
        }
        let raw = if stored_len == raw_len {
            body.to_vec()
        } else {
            lz4_flex::block::decompress(body, raw_len as usize)
                .ok()
                .filter(|raw| raw.len() == raw_len as usize)
                .ok_or("the block cannot be decompressed")?
        };
        Self::marked(raw, rows as usize).ok_or("the rows of the block cannot be read")
    }

    /// Reads over all rows; `None` where they are not what the block's header says.
    fn marked(raw: Vec<u8>, rows: usize) -> Option<Self> {
        let (mut keys, mut marks) = (Vec::new(), Vec::new());
        let mut row = RowAt::default();
        for number in 0..rows {
            let begin = row.value.end;
            row.read(&raw)?;
            if number.is_multiple_of(MARK_ROWS) {
                keys.extend_from_slice(&row.key);
                marks.push((u32::try_from(keys.len()).ok()?, u32::try_from(begin).ok()?));
            }
        }
        (row.value.end == raw.len() && rows > 0).then_some(Self {
            raw,
            rows,
            keys,
            marks,
        })
    }

    /// Rows in it; at least one.
    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// Bytes that it takes in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.raw.capacity() + self.keys.capacity() + self.marks.capacity() * size_of::<(u32, u32)>()
    }

    /// The value of a row of this block.
    pub(super) fn value(&self, row: &RowAt) -> &[u8] {
        &self.raw[row.value.clone()]
    }

    /// Goes to the row behind `row`; `false` where that is the last.
    pub(super) fn next(&self, row: &mut RowAt) -> bool {
        row.number += 1;
        // All rows were read before, so what is left can be.
        row.number < self.rows && row.read(&self.raw).is_some()
    }

    /// Goes to row `number`, which there is.
    pub(super) fn seek(&self, number: usize, row: &mut RowAt) {
        self.seek_mark(number / MARK_ROWS, row);
        while row.number < number && self.next(row) {}
    }

    /// Goes to the first row whose key is not before `key`; `false` where there is none.
    pub(super) fn find(&self, key: &[u8], row: &mut RowAt) -> bool {
        let (mut from, mut until) = (0, self.marks.len());
        while from < until {
            let middle = usize::midpoint(from, until);
            if self.marked_key(middle) < key {
                from = middle + 1;
            } else {
                until = middle;
            }
        }
        self.seek_mark(from.saturating_sub(1), row);
        while *row.key < *key {
            if !self.next(row) {
                return false;
            }
        }
        true
    }

    /// The number of rows with keys before `key`.
    pub(super) fn before(&self, key: &[u8]) -> usize {
        let mut row = RowAt::default();
        if self.find(key, &mut row) {
            row.number
        } else {
            self.rows
        }
    }

    fn seek_mark(&self, mark: usize, row: &mut RowAt) {
        row.number = mark * MARK_ROWS;
        row.key.clear();
        row.key.extend_from_slice(self.marked_key(mark));
        row.value.end = self.marks[mark].1 as usize;
        // What it shares with the row before it, it shares with itself.
        row.read(&self.raw);
    }

    fn marked_key(&self, mark: usize) -> &[u8] {
        let start = mark
            .checked_sub(1)
            .map_or(0, |before| self.marks[before].0 as usize);
        &self.keys[start..self.marks[mark].0 as usize]
    }
}

impl RowAt {
    /// Its place among the rows of the block.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Reads the row that begins behind this one; `None` where there is no whole one.
    fn read(&mut self, raw: &[u8]) -> Option<()> {
        let mut reader = Reader::new(raw.get(self.value.end..)?);
        let (shared, suffix, value) = (reader.length()?, reader.length()?, reader.length()?);
        if shared > self.key.len() {
            return None;
        }
        let suffix = reader.slice(suffix)?;
        reader.slice(value)?;
        self.key.truncate(shared);
        self.key.extend_from_slice(suffix);
        let end = raw.len() - reader.left();
        self.value = end - value..end;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn build(rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
        let mut builder = BlockBuilder::default();
        for (key, value) in rows {
            builder.push(key, value).unwrap();
        }
        builder.finish()
    }

    proptest! {
        #[test]
        fn blocks_survive(rows in prop::collection::btree_map(prop::collection::vec(0_u8..3, 0..12), prop::collection::vec(any::<u8>(), 0..40), 1..100), asked in prop::collection::vec(0_u8..3, 0..12)) {
            let block = Block::parse(&build(&rows)).unwrap();
            let mut row = RowAt::default();
            let read = |row: &RowAt| (row.key().to_vec(), block.value(row).to_vec());
            let sought: Vec<_> = (0..block.len()).map(|at| { block.seek(at, &mut row); read(&row) }).collect();
            block.seek(0, &mut row);
            let mut walked = vec![read(&row)];
            while block.next(&mut row) {
                walked.push(read(&row));
            }
            prop_assert_eq!(&sought, &walked);
            prop_assert_eq!(block.before(&asked), rows.range(..asked.clone()).count());
            let found = block.find(&asked, &mut row).then(|| read(&row));
            prop_assert_eq!(found, rows.range(asked..).next().map(|(key, value)| (key.clone(), value.clone())));
            prop_assert_eq!(walked, rows.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let rows = (0..50_u8)
            .map(|n| (vec![1, 2, n], vec![n; usize::from(n)]))
            .collect();
        let bytes = build(&rows);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Block::parse(&flipped).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Block::parse(&bytes[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn a_row_larger_than_any_block_is_refused() {
        // Zeros that are never touched take no memory.
        let value = vec![0; RAW_MAX];
        assert!(BlockBuilder::default().push(b"k", &value).is_err());
    }
}
