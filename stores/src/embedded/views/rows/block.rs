//! A block of rows: sorted, keys without what they share with the one before, compressed, with a checksum.

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

/// A block as it was read.
#[derive(Debug, Default)]
pub(super) struct Block {
    bytes: Vec<u8>,
    /// Where key and value of each row end; the key starts where the row before ends.
    ends: Vec<(u32, u32)>,
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
        if stored_len == raw_len {
            return Self::decode(body, rows).ok_or("the rows of the block cannot be read");
        }
        let raw = lz4_flex::block::decompress(body, raw_len as usize)
            .ok()
            .filter(|raw| raw.len() == raw_len as usize)
            .ok_or("the block cannot be decompressed")?;
        Self::decode(&raw, rows).ok_or("the rows of the block cannot be read")
    }

    fn decode(raw: &[u8], rows: u32) -> Option<Self> {
        let mut reader = Reader::new(raw);
        let mut block = Self {
            bytes: Vec::with_capacity(raw.len() * 2),
            ends: Vec::new(),
        };
        let mut last = 0..0;
        for _ in 0..rows {
            let (shared, suffix, value) = (reader.length()?, reader.length()?, reader.length()?);
            if shared > last.len() {
                return None;
            }
            let start = block.bytes.len();
            block.bytes.extend_from_within(last.start..last.start + shared);
            block.bytes.extend_from_slice(reader.slice(suffix)?);
            last = start..block.bytes.len();
            block.bytes.extend_from_slice(reader.slice(value)?);
            let end = |at: usize| u32::try_from(at).ok();
            block.ends.push((end(last.end)?, end(block.bytes.len())?));
        }
        (reader.is_empty() && rows > 0).then_some(block)
    }

    /// Rows in it; at least one.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes that it takes in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<(u32, u32)>()
    }

    /// The key of row `at`.
    pub(super) fn key(&self, at: usize) -> &[u8] {
        &self.bytes[self.start(at)..self.ends[at].0 as usize]
    }

    /// The value of row `at`.
    pub(super) fn value(&self, at: usize) -> &[u8] {
        let (from, until) = self.ends[at];
        &self.bytes[from as usize..until as usize]
    }

    /// The number of rows with keys before `key`.
    pub(super) fn before(&self, key: &[u8]) -> usize {
        let (mut from, mut until) = (0, self.len());
        while from < until {
            let middle = usize::midpoint(from, until);
            if self.key(middle) < key {
                from = middle + 1;
            } else {
                until = middle;
            }
        }
        from
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.ends[before].1 as usize)
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
            let read: Vec<_> = (0..block.len()).map(|at| (block.key(at).to_vec(), block.value(at).to_vec())).collect();
            prop_assert_eq!(block.before(&asked), rows.range(..asked).count());
            prop_assert_eq!(read, rows.into_iter().collect::<Vec<_>>());
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
