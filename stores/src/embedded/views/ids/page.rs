//! A page of an id run: 4,096 bytes, read with one request, that hold sorted entries of one fixed size.
//!
//! The highest bits, which all names of a page share, are kept once; so is the lowest block offset of its positions. What remains is
//! packed: digest, then the name's low bits and the position's bits, rounded up to whole bytes.

use turnpike_domain::identity::EventName;
use turnpike_domain::port::views::IdEntry;
use turnpike_domain::record::Position;

use crate::embedded::views::bytes::Reader;

/// Bytes of a page.
pub(in super::super) const PAGE_LEN: usize = 4_096;
/// Bytes that a buffer must have behind a page, so that its last entry can be read with loads of fixed size.
pub(in super::super) const SLACK: usize = 32;
const HEADER_LEN: usize = 36;
const DIGEST_LEN: usize = 8;

/// How the entries of a page are packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Packing {
    /// Bits of a name that differ within the page.
    name: u32,
    /// Bits of a block offset above the lowest one.
    offset: u32,
    /// Bits of an index in a block.
    index: u32,
}

impl Packing {
    fn entry_len(self) -> usize {
        DIGEST_LEN + (self.name + self.offset + self.index).div_ceil(8) as usize
    }

    fn name_mask(self) -> u128 {
        u128::MAX.checked_shr(128 - self.name).unwrap_or(0)
    }
}

/// Gathers entries until a page is full.
#[derive(Debug, Default)]
pub(in super::super) struct PageBuilder {
    entries: Vec<(EventName, IdEntry)>,
    lowest: u64,
    highest: u64,
    indexes: u16,
}

impl PageBuilder {
    /// Adds an entry behind the others; `false` when the page is full and must be written first.
    pub(in super::super) fn push(&mut self, name: EventName, entry: IdEntry) -> bool {
        let offset = entry.position.offset();
        let (mut lowest, mut highest) = (offset, offset);
        if !self.entries.is_empty() {
            (lowest, highest) = (self.lowest.min(offset), self.highest.max(offset));
        }
        let indexes = self.indexes | entry.position.index();
        let packing = self.packing(name, highest - lowest, indexes);
        if HEADER_LEN + (self.entries.len() + 1) * packing.entry_len() > PAGE_LEN {
            return false;
        }
        (self.lowest, self.highest, self.indexes) = (lowest, highest, indexes);
        self.entries.push((name, entry));
        true
    }

    /// The first name of the page.
    pub(in super::super) fn first(&self) -> Option<EventName> {
        self.entries.first().map(|(name, _)| *name)
    }

    /// Appends the page to `out`, and starts the next one.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a page holds few entries, of fields of at most 128 bits"
    )]
    pub(in super::super) fn finish(&mut self, out: &mut Vec<u8>) {
        let (Some(first), Some((last, _))) = (self.first(), self.entries.last()) else {
            return;
        };
        let packing = self.packing(*last, self.highest - self.lowest, self.indexes);
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.entries.len() as u16).to_le_bytes());
        out.extend_from_slice(&[
            packing.name as u8,
            packing.offset as u8,
            packing.index as u8,
            0,
            0,
            0,
        ]);
        out.extend_from_slice(&self.lowest.to_le_bytes());
        out.extend_from_slice(&first.0.to_le_bytes());
        for (name, entry) in &self.entries {
            let position =
                (entry.position.offset() - self.lowest) << packing.index | u64::from(entry.position.index());
            out.extend_from_slice(&entry.digest.to_le_bytes());
            let packed = pack(name.0 & packing.name_mask(), position, packing.name);
            out.extend_from_slice(&packed[..packing.entry_len() - DIGEST_LEN]);
        }
        out.resize(start + PAGE_LEN, 0);
        let checksum = crc32c::crc32c(&out[start + 4..]);
        out[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
        self.entries.clear();
        self.indexes = 0;
    }

    /// How the page is packed when `last` is its last name.
    fn packing(&self, last: EventName, offsets: u64, indexes: u16) -> Packing {
        let first = self.first().unwrap_or(last);
        Packing {
            name: 128 - (first.0 ^ last.0).leading_zeros(),
            offset: 64 - offsets.leading_zeros(),
            index: 16 - indexes.leading_zeros(),
        }
    }
}

/// 192 bits: `name_bits` of a name, and the position above them.
fn pack(name: u128, position: u64, name_bits: u32) -> [u8; 24] {
    let low = name | u128::from(position).checked_shl(name_bits).unwrap_or(0);
    let above = 128 - name_bits;
    let high = position.checked_shr(above).unwrap_or(0);
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&low.to_le_bytes());
    bytes[16..].copy_from_slice(&high.to_le_bytes());
    bytes
}

/// A page as it was read.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Page<'a> {
    bytes: &'a [u8],
    count: usize,
    packing: Packing,
    entry_len: usize,
    lowest: u64,
    first: u128,
}

impl<'a> Page<'a> {
    /// Reads the page at the front of `bytes`, which must have [`SLACK`] more bytes than a page. `Err` says what is wrong.
    pub(in super::super) fn parse(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let Some(page) = bytes.get(..PAGE_LEN).filter(|_| bytes.len() >= PAGE_LEN + SLACK) else {
            return Err("the page is cut short");
        };
        let mut reader = Reader::new(page);
        if reader.u32() != Some(crc32c::crc32c(&page[4..])) {
            return Err("the checksum of the page does not match");
        }
        Self::header(&mut reader)
            .map(|page| Page { bytes, ..page })
            .filter(|page| {
                page.packing.name <= 128 && page.packing.offset + page.packing.index <= 64
                    // The slack covers what loads of fixed size read beyond the page.
                    && HEADER_LEN + page.count * page.entry_len <= PAGE_LEN
            })
            .ok_or("the header of the page makes no sense")
    }

    fn header(reader: &mut Reader<'_>) -> Option<Page<'static>> {
        let count = u16::from_le_bytes(reader.array()?) as usize;
        let [name, offset, index, _, _, _] = reader.array()?.map(|byte: u8| u32::from(byte));
        let packing = Packing { name, offset, index };
        Some(Page {
            bytes: &[],
            count,
            packing,
            entry_len: packing.entry_len(),
            lowest: reader.u64()?,
            first: u128::from_le_bytes(reader.array()?),
        })
    }

    /// Entries in it.
    pub(in super::super) fn len(&self) -> usize {
        self.count
    }

    /// The entry of `name`.
    pub(in super::super) fn find(&self, name: EventName) -> Option<IdEntry> {
        let mask = self.packing.name_mask();
        if (self.first ^ name.0) & !mask != 0 {
            return None;
        }
        let (mut from, mut until) = (0, self.count);
        while from < until {
            let middle = usize::midpoint(from, until);
            let (found, entry) = self.get(middle);
            match found.cmp(&name) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Equal => return Some(entry),
                std::cmp::Ordering::Greater => until = middle,
            }
        }
        None
    }

    /// Entry `at`, which must be less than [`Page::len`].
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the field is cut from its neighbours by masks"
    )]
    #[inline]
    pub(in super::super) fn get(&self, at: usize) -> (EventName, IdEntry) {
        let start = HEADER_LEN + at * self.entry_len;
        let bytes: &[u8; 32] = self.bytes[start..].first_chunk().unwrap_or(&[0; 32]);
        let digest = u64::from_le_bytes(*part(bytes, 0));
        let low = u128::from_le_bytes(*part(bytes, 8));
        let high = u64::from_le_bytes(*part(bytes, 24));
        let Packing { name, offset, index } = self.packing;
        let above = 128 - name;
        let mut position = low.checked_shr(name).unwrap_or(0) as u64;
        position |= high.checked_shl(above).unwrap_or(0);
        position &= u64::MAX.checked_shr(64 - offset - index).unwrap_or(0);
        let block = self.lowest + position.checked_shr(index).unwrap_or(0);
        let index = position as u16 & u16::MAX.checked_shr(16 - index).unwrap_or(0);
        let mask = self.packing.name_mask();
        let entry = IdEntry {
            digest,
            position: Position::new(block, index),
        };
        (EventName(self.first & !mask | low & mask), entry)
    }
}

/// `N` bytes from `at`: both are constants wherever this is called, so nothing is left of it but a load.
#[inline]
fn part<const N: usize>(bytes: &[u8; 32], at: usize) -> &[u8; N] {
    bytes[at..].first_chunk().unwrap_or(&[0; N])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::views::{entry, name};
    use proptest::prelude::*;

    fn build(entries: &[(EventName, IdEntry)]) -> (Vec<u8>, usize) {
        let mut builder = PageBuilder::default();
        let fitted = entries
            .iter()
            .take_while(|(name, entry)| builder.push(*name, *entry))
            .count();
        let mut bytes = Vec::new();
        builder.finish(&mut bytes);
        assert_eq!(bytes.len(), PAGE_LEN);
        // Whatever stands behind a page must not matter.
        bytes.resize(PAGE_LEN + SLACK, 0xff);
        (bytes, fitted)
    }

    proptest! {
        #[test]
        fn pages_survive(mut names in prop::collection::vec(any::<u128>(), 1..300), narrow in 0_u32..128, first in 0_u64..1 << 48, offsets in 0_u32..48, indexes in any::<u16>(), digest in any::<u64>()) {
            for name in &mut names { *name >>= narrow; }
            names.sort_unstable();
            names.dedup();
            let entries: Vec<_> = names.iter().enumerate().map(|(at, name)| {
                let spread = digest.wrapping_mul(at as u64 + 1);
                let offset = (first + (spread & ((1 << offsets) - 1))) & ((1 << 48) - 1);
                (EventName(*name), entry(digest ^ spread, Position::new(offset, spread as u16 & indexes).0))
            }).collect();
            let (bytes, fitted) = build(&entries);
            prop_assert!(fitted == entries.len() || fitted >= (PAGE_LEN - HEADER_LEN) / 32);
            let page = Page::parse(&bytes).unwrap();
            prop_assert_eq!(page.len(), fitted);
            for (at, (name, entry)) in entries.iter().enumerate() {
                let expected = (at < fitted).then_some(*entry);
                prop_assert_eq!(page.find(*name), expected);
                if at < fitted { prop_assert_eq!(page.get(at), (*name, *entry)); }
            }
            prop_assert_eq!(page.find(EventName(names[0] ^ 1 << 127)).is_some(), names[..fitted].contains(&(names[0] ^ 1 << 127)));
        }
    }

    #[test]
    fn entries_are_small() {
        // As in a run of ten million: names share 16 bits or so, positions span 1 GB of blocks of up to 4,096 records.
        let mut entries: Vec<_> = (0..300)
            .map(|n| {
                (
                    EventName(name(n).0 >> 16),
                    entry(n, Position::new(name(n).0 as u64 >> 34, n as u16).0),
                )
            })
            .collect();
        entries.sort_by_key(|(name, _)| *name);
        let (_, fitted) = build(&entries);
        assert!(fitted >= (PAGE_LEN - HEADER_LEN) / 28, "{fitted} in a page");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut entries: Vec<_> = (0..40).map(|n| (name(n), entry(n, n))).collect();
        entries.sort_by_key(|(name, _)| *name);
        let (bytes, _) = build(&entries);
        for bit in 0..PAGE_LEN * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Page::parse(&flipped).is_err(), "bit {bit}");
        }
    }
}
