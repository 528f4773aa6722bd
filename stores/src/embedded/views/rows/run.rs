//! A sorted, immutable run of rows: blocks, then an index of their first keys, which is kept in memory.

use turnpike_domain::port::StoreError;

use super::block::{Block, BlockBuilder, HEADER_LEN, RowAt};
use crate::embedded::views::bytes::{Reader, shared_prefix};
use crate::embedded::views::file::{Directory, StoredFile, Writer};
use crate::embedded::views::footer::{FOOTER_LEN, Footer, Kind, Section};
use crate::embedded::views::manifest::RunName;
use crate::width::{in_memory, push_varint};

/// A run.
pub(in super::super) struct RowRun {
    file: StoredFile,
    named: RunName,
    index: Index,
}

/// The name of the file of run `number`.
pub(in super::super) fn file_name(number: u64) -> String {
    format!("rows-{number:016x}.run")
}

impl RowRun {
    /// Opens the run that a manifest names.
    pub(in super::super) fn open(directory: &Directory, named: RunName) -> Result<Self, StoreError> {
        let file = directory.open_file(&file_name(named.number), named.len)?;
        let footer = Footer::read(&file, Kind::Rows, named.number, named.checksum)?;
        let section = &footer.sections[0];
        let bytes = file.read(section.offset, in_memory(section.len))?;
        if crc32c::crc32c(&bytes) != section.checksum {
            return Err(file.damaged(section.offset, "the checksum of the block index does not match"));
        }
        let index = Index::decode(&bytes)
            .filter(|index| {
                index.len() > 0
                    && index.end() == footer.data_len
                    && section.offset + section.len + FOOTER_LEN as u64 == named.len
            })
            .ok_or_else(|| file.damaged(section.offset, "the block index does not fit the blocks"))?;
        Ok(Self { file, named, index })
    }

    /// What a manifest says of it.
    pub(in super::super) fn named(&self) -> RunName {
        self.named
    }

    /// The file.
    pub(in super::super) fn file(&self) -> &StoredFile {
        &self.file
    }

    /// Bytes that it takes in memory.
    pub(in super::super) fn memory_bytes(&self) -> u64 {
        (self.index.keys.capacity() + self.index.blocks.capacity() * size_of::<(usize, u64)>()) as u64
    }

    /// The number of blocks; at least one.
    pub(super) fn blocks(&self) -> usize {
        self.index.len()
    }

    /// The number of blocks whose first key is before `key`.
    pub(super) fn blocks_before(&self, key: &[u8]) -> usize {
        self.index.before(key)
    }

    /// Reads a block.
    pub(super) fn read(&self, at: usize) -> Result<Block, StoreError> {
        let (from, until) = self.index.offsets(at);
        let bytes = self.file.read(from, in_memory(until - from))?;
        Block::parse(&bytes).map_err(|what| self.file.damaged(from, what))
    }

    /// Reads all of it, and compares it with its checksums and its index.
    pub(in super::super) fn verify(&self) -> Result<(), StoreError> {
        let mut rows = 0;
        let mut last: Option<Vec<u8>> = None;
        for at in 0..self.blocks() {
            let block = self.read(at)?;
            let bad = |what: &str| Err(self.file.damaged(self.index.offsets(at).0, what));
            let mut row = RowAt::default();
            block.seek(0, &mut row);
            if row.key() != self.index.first(at) {
                return bad("the block does not start with the key of the index");
            }
            loop {
                if last.as_deref() >= Some(row.key()) {
                    return bad("the keys do not ascend");
                }
                last = Some(row.key().to_vec());
                if !block.next(&mut row) {
                    break;
                }
            }
            rows += block.len() as u64;
        }
        if rows != self.named.entries {
            return Err(self.file.damaged(0, "the run has another number of rows"));
        }
        Ok(())
    }
}

/// First keys and offsets of blocks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Index {
    /// The first keys, one behind the other.
    keys: Vec<u8>,
    /// For each block: where its first key ends in `keys`, and where it ends in the file.
    blocks: Vec<(usize, u64)>,
}

impl Index {
    fn push(&mut self, first: &[u8], end: u64) {
        self.keys.extend_from_slice(first);
        self.blocks.push((self.keys.len(), end));
    }

    fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Where the last block ends.
    fn end(&self) -> u64 {
        self.blocks.last().map_or(0, |(_, end)| *end)
    }

    /// The first key of block `at`.
    fn first(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.blocks[before].0);
        &self.keys[start..self.blocks[at].0]
    }

    /// From where to where block `at` goes.
    fn offsets(&self, at: usize) -> (u64, u64) {
        let start = at.checked_sub(1).map_or(0, |before| self.blocks[before].1);
        (start, self.blocks[at].1)
    }

    /// The number of first keys before `key`.
    fn before(&self, key: &[u8]) -> usize {
        let (mut from, mut until) = (0, self.len());
        while from < until {
            let middle = usize::midpoint(from, until);
            if self.first(middle) < key {
                from = middle + 1;
            } else {
                until = middle;
            }
        }
        from
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        push_varint(&mut out, self.len() as u64);
        let mut last: &[u8] = &[];
        for at in 0..self.len() {
            let (key, (from, until)) = (self.first(at), self.offsets(at));
            let shared = shared_prefix(last, key);
            push_varint(&mut out, shared as u64);
            push_varint(&mut out, (key.len() - shared) as u64);
            push_varint(&mut out, until - from);
            out.extend_from_slice(&key[shared..]);
            last = key;
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut index = Self::default();
        for _ in 0..reader.varint()? {
            let (shared, suffix) = (reader.length()?, reader.length()?);
            let len = reader.varint().filter(|len| *len > HEADER_LEN as u64)?;
            let last = index.len().checked_sub(1).map_or(0..0, |last| {
                let end = index.blocks[last].0;
                end - index.first(last).len()..end
            });
            if shared > last.len() {
                return None;
            }
            index.keys.extend_from_within(last.start..last.start + shared);
            index.keys.extend_from_slice(reader.slice(suffix)?);
            let end = index.end().checked_add(len)?;
            index.blocks.push((index.keys.len(), end));
        }
        reader.is_empty().then_some(index)
    }
}

/// Writes a run from ascending keys.
pub(in super::super) struct RowRunWriter {
    writer: Writer,
    number: u64,
    builder: BlockBuilder,
    /// The first key of the block that is being built.
    first: Vec<u8>,
    index: Index,
    rows: u64,
}

impl RowRunWriter {
    /// Starts run `number`.
    pub(in super::super) fn create(directory: &Directory, number: u64) -> Result<Self, StoreError> {
        Ok(Self {
            writer: directory.create(&file_name(number))?,
            number,
            builder: BlockBuilder::default(),
            first: Vec::new(),
            index: Index::default(),
            rows: 0,
        })
    }

    /// Appends a row; keys must ascend.
    pub(in super::super) fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        if self.builder.is_empty() {
            self.first.clear();
            self.first.extend_from_slice(key);
        }
        self.builder.push(key, value).map_err(|what| {
            StoreError::Failed(format!("writing {}: {what}", self.writer.path().display()))
        })?;
        self.rows += 1;
        if self.builder.is_full() {
            self.write_block()?;
        }
        Ok(())
    }

    /// Finishes the run and makes it durable. `None` when there was no row.
    pub(in super::super) fn finish(mut self) -> Result<Option<RowRun>, StoreError> {
        if self.rows == 0 {
            return Ok(None);
        }
        if !self.builder.is_empty() {
            self.write_block()?;
        }
        let data_len = self.writer.offset();
        let index = self.index.encode();
        let section = Section {
            offset: data_len,
            len: index.len() as u64,
            checksum: crc32c::crc32c(&index),
        };
        self.writer.push(&index)?;
        let footer = Footer {
            kind: Kind::Rows,
            number: self.number,
            entries: self.rows,
            data_len,
            sections: [section, Section::default()],
        };
        let checksum = footer.write(&mut self.writer)?;
        Ok(Some(RowRun {
            named: RunName {
                number: self.number,
                len: self.writer.offset(),
                entries: self.rows,
                checksum,
            },
            file: self.writer.finish()?,
            index: self.index,
        }))
    }

    fn write_block(&mut self) -> Result<(), StoreError> {
        self.writer.push(&self.builder.finish())?;
        self.index.push(&self.first, self.writer.offset());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn indexes_survive(keys in prop::collection::btree_set(prop::collection::vec(0_u8..3, 0..10), 0..60), asked in prop::collection::vec(0_u8..3, 0..10)) {
            let mut index = Index::default();
            for (key, at) in keys.iter().zip(1..) {
                index.push(key, at * at * 100);
            }
            prop_assert_eq!(index.before(&asked), keys.range(..asked).count());
            let firsts: BTreeSet<_> = (0..index.len()).map(|at| index.first(at).to_vec()).collect();
            prop_assert_eq!(firsts, keys);
            let bytes = index.encode();
            prop_assert_eq!(Index::decode(&bytes), Some(index));
            for len in 0..bytes.len() {
                prop_assert_eq!(Index::decode(&bytes[..len]), None);
            }
        }
    }
}
