//! A blocked Bloom filter: says of most absent names, with one cache line read, that they are not in a run.
//!
//! A block has 8 words of 64 bits; a name sets one bit in each word of one block. The block is chosen by the name's high
//! bits, so a filter built from sorted names is written from front to back; the bits by bits 16..64 of its low half (the
//! lowest ones say little: they choose the partition). With b bits per name about 512 / b names share a block: of a word
//! a share 1 − (63/64)^(512/b) is set, and its eighth power, weighted by the Poisson spread over blocks, of absent names pass: 0.09 % at
//! 16 bits, 0.009 % at 24 (Putze, Sanders, Singler 2007, "Cache-, hash- and space-efficient Bloom filters").

use turnpike_domain::identity::EventName;
use turnpike_domain::port::StoreError;

use crate::embedded::views::file::{StoredFile, Writer};
use crate::embedded::views::footer::Section;
use crate::width::{in_memory, place_of};

const BLOCK_BITS: u64 = 512;
/// Blocks handled at once while reading and writing.
const CHUNK: usize = 4_096;

#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Block([u64; 8]);

/// A filter.
#[derive(Debug)]
pub(in super::super) struct Filter {
    blocks: Vec<Block>,
}

impl Filter {
    /// An empty filter for `names` names with `bits` bits each.
    pub(in super::super) fn new(names: u64, bits: u64) -> Self {
        let blocks = in_memory((names * bits).div_ceil(BLOCK_BITS).max(1));
        Self {
            blocks: vec![Block::default(); blocks],
        }
    }

    /// Bytes that it takes in memory and on disk.
    pub(in super::super) fn bytes(&self) -> u64 {
        (self.blocks.len() * size_of::<Block>()) as u64
    }

    /// Adds a name.
    pub(in super::super) fn insert(&mut self, name: EventName) {
        let at = self.block_of(name);
        let block = &mut self.blocks[at].0;
        for (word, bit) in block.iter_mut().zip(bits(name)) {
            *word |= 1 << bit;
        }
    }

    /// Reads a word of the name's block, so that it is on its way into the cache. Touch a group of names before they are
    /// tested: the reads overlap, for none waits for another.
    #[inline]
    pub(in super::super) fn touch(&self, name: EventName) -> u64 {
        self.blocks[self.block_of(name)].0[0]
    }

    /// Whether the name may have been added. Has no branch, so that many tests overlap.
    #[inline]
    pub(in super::super) fn may_contain(&self, name: EventName) -> bool {
        let block = &self.blocks[self.block_of(name)].0;
        let all = block
            .iter()
            .zip(bits(name))
            .fold(1, |all, (word, bit)| all & (word >> bit));
        all != 0
    }

    #[inline]
    fn block_of(&self, name: EventName) -> usize {
        place_of(name.0, self.blocks.len())
    }

    /// Appends its bytes to a run.
    pub(in super::super) fn write(&self, writer: &mut Writer) -> Result<Section, StoreError> {
        let mut section = Section {
            offset: writer.offset(),
            len: self.bytes(),
            checksum: 0,
        };
        let mut bytes = Vec::new();
        for blocks in self.blocks.chunks(CHUNK) {
            bytes.clear();
            bytes.extend(blocks.iter().flat_map(|block| block.0).flat_map(u64::to_le_bytes));
            section.checksum = crc32c::crc32c_append(section.checksum, &bytes);
            writer.push(&bytes)?;
        }
        Ok(section)
    }

    /// Reads a filter back.
    pub(in super::super) fn read(file: &StoredFile, section: &Section) -> Result<Self, StoreError> {
        let bad = |what: &str| file.damaged(section.offset, what);
        if section.len == 0 || !section.len.is_multiple_of(size_of::<Block>() as u64) {
            return Err(bad("the filter has no whole number of blocks"));
        }
        let mut left = in_memory(section.len) / size_of::<Block>();
        let mut blocks = Vec::with_capacity(left);
        let (mut offset, mut checksum) = (section.offset, 0);
        while left > 0 {
            let bytes = file.read(offset, left.min(CHUNK) * size_of::<Block>())?;
            checksum = crc32c::crc32c_append(checksum, &bytes);
            offset += bytes.len() as u64;
            for block in bytes.as_chunks::<64>().0 {
                let words = block.as_chunks().0;
                blocks.push(Block(std::array::from_fn(|at| u64::from_le_bytes(words[at]))));
                left -= 1;
            }
        }
        if checksum == section.checksum {
            Ok(Self { blocks })
        } else {
            Err(bad("the checksum of the filter does not match"))
        }
    }
}

/// The bit of each word.
#[expect(clippy::cast_possible_truncation, reason = "the lower half of a hash")]
#[inline]
fn bits(name: EventName) -> [u64; 8] {
    let bits = name.0 as u64 >> 16;
    std::array::from_fn(|word| bits >> (6 * word) & 63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::views::name;

    /// Absent names that pass, in a million.
    fn false_positives(names: u64, bits: u64) -> usize {
        let mut filter = Filter::new(names, bits);
        (0..names).for_each(|n| filter.insert(name(n)));
        assert!(
            (0..names).all(|n| filter.may_contain(name(n))),
            "a name that was added must pass"
        );
        (names..names + 1_000_000)
            .filter(|n| filter.may_contain(name(*n)))
            .count()
    }

    #[test]
    fn few_absent_names_pass() {
        // Computed for the Poisson spread: 850 and 87; four standard deviations on both sides.
        let at_16 = false_positives(200_000, 16);
        assert!((700..1_000).contains(&at_16), "{at_16} of a million at 16 bits");
        let at_24 = false_positives(200_000, 24);
        assert!((40..135).contains(&at_24), "{at_24} of a million at 24 bits");
    }

    #[test]
    fn partitions_do_not_weaken_it() {
        // All names of one of 64 partitions share their lowest six bits.
        let of_partition = |n: u64| EventName(name(n).0 & !0x3f | 0x11);
        let mut filter = Filter::new(100_000, 16);
        (0..100_000).for_each(|n| filter.insert(of_partition(n)));
        let passed = (100_000..1_100_000)
            .filter(|n| filter.may_contain(of_partition(*n)))
            .count();
        assert!(passed < 1_000, "{passed} of a million");
    }
}
