//! The payload of a block: the records' lengths, then the records, compressed together.

use turnpike_domain::limits::BLOCK_RECORDS_MAX;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::log::Block;

use super::format::{BLOCK_BYTES_MAX, BLOCK_HEADER, BlockHeader, Broken, Codec};
use crate::width::push_varint;

/// How blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4: cheap enough that it saves more time on the disk than it costs.
    Lz4,
    /// Zstandard at this level: smaller, slower.
    Zstd(i32),
}

/// A block that is ready to be written, but for its place.
#[derive(Debug)]
pub(super) struct Packed {
    /// Its header; the offset is still 0.
    pub(super) header: BlockHeader,
    pub(super) payload: Vec<u8>,
}

impl Packed {
    /// Length of the block in the log.
    pub(super) fn len(&self) -> usize {
        BLOCK_HEADER + self.payload.len()
    }
}

/// Packs `block`; an error when no reader would take it.
#[expect(
    clippy::cast_possible_truncation,
    reason = "records and bytes were compared with their bounds"
)]
pub(super) fn pack(block: &Block, compression: Compression) -> Result<Packed, StoreError> {
    let records = block.ends.len();
    if records == 0 || records > BLOCK_RECORDS_MAX {
        return Err(StoreError::Failed(format!(
            "a block holds 1 to {BLOCK_RECORDS_MAX} records, not {records}"
        )));
    }
    let ordered =
        block.ends.is_sorted() && block.ends.last().map(|end| *end as usize) == Some(block.bytes.len());
    // Room for the lengths, and for what compression may add.
    if !ordered || block.bytes.len() > BLOCK_BYTES_MAX / 2 {
        return Err(StoreError::Failed(format!(
            "the records of a block must fill its bytes, at most {}",
            BLOCK_BYTES_MAX / 2
        )));
    }
    let plain = plain(block);
    let plain_len = plain.len();
    let (codec, payload) = compress(plain, compression)?;
    Ok(Packed {
        header: BlockHeader {
            codec,
            records: records as u16,
            offset: 0,
            partition: block.partition,
            stored: payload.len() as u32,
            plain: plain_len as u32,
            payload_crc: crc32c::crc32c(&payload),
            times: block.times,
        },
        payload,
    })
}

/// Lengths of the records (LEB128), then their bytes.
fn plain(block: &Block) -> Vec<u8> {
    let mut plain = Vec::with_capacity(block.bytes.len() + block.ends.len() * 2 + 8);
    let mut start = 0;
    for end in &block.ends {
        push_varint(&mut plain, u64::from(end - start));
        start = *end;
    }
    plain.extend_from_slice(&block.bytes);
    plain
}

/// Bytes below which LZ4 is not asked: one event alone hardly gets smaller, and clearing the table of what was seen costs
/// more than all else that is done for a block.
const LZ4_BYTES_MIN: usize = 256;

/// Compresses, where that makes it smaller.
fn compress(plain: Vec<u8>, compression: Compression) -> Result<(Codec, Vec<u8>), StoreError> {
    let (codec, packed) = match compression {
        Compression::None => return Ok((Codec::Plain, plain)),
        Compression::Lz4 if plain.len() < LZ4_BYTES_MIN => return Ok((Codec::Plain, plain)),
        Compression::Lz4 => (Codec::Lz4, lz4_flex::block::compress(&plain)),
        Compression::Zstd(level) => {
            let packed = zstd::bulk::compress(&plain, level)
                .map_err(|error| StoreError::Failed(format!("compression failed: {error}")))?;
            (Codec::Zstd, packed)
        }
    };
    if packed.len() < plain.len() {
        Ok((codec, packed))
    } else {
        Ok((Codec::Plain, plain))
    }
}

/// Whether the stored payload is what was written.
pub(super) fn check(header: &BlockHeader, payload: &[u8]) -> Result<(), Broken> {
    if crc32c::crc32c(payload) == header.payload_crc {
        Ok(())
    } else {
        Err("the checksum of the block's records does not match")
    }
}

/// Reads a payload back.
pub(super) fn unpack(header: &BlockHeader, payload: &[u8]) -> Result<Block, Broken> {
    check(header, payload)?;
    let unreadable = "the block's records cannot be unpacked";
    let plain_len = header.plain as usize;
    let plain = match header.codec {
        Codec::Plain => payload.to_vec(),
        Codec::Lz4 => lz4_flex::block::decompress(payload, plain_len).map_err(|_| unreadable)?,
        Codec::Zstd => zstd::bulk::decompress(payload, plain_len).map_err(|_| unreadable)?,
    };
    if plain.len() != plain_len {
        return Err(unreadable);
    }
    split(header, plain).ok_or(unreadable)
}

fn split(header: &BlockHeader, mut plain: Vec<u8>) -> Option<Block> {
    let mut ends = Vec::with_capacity(usize::from(header.records));
    let (mut at, mut end) = (0, 0_u32);
    for _ in 0..header.records {
        let mut length = 0_u32;
        for shift in (0..32).step_by(7) {
            let byte = *plain.get(at)?;
            at += 1;
            length |= u32::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                break;
            }
        }
        end = end.checked_add(length)?;
        ends.push(end);
    }
    plain.drain(..at);
    (end as usize == plain.len()).then_some(Block {
        partition: header.partition,
        bytes: plain,
        ends,
        times: header.times,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::log::{block, block_at};
    use proptest::prelude::*;

    fn compressions() -> [Compression; 3] {
        [Compression::None, Compression::Lz4, Compression::Zstd(1)]
    }

    proptest! {
        #[test]
        fn blocks_survive_the_codec_and_no_changed_byte_does(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..60),
            repeat in 1..20_usize, at in any::<prop::sample::Index>(), bit in 0..8_u32,
        ) {
            let mut block = block_at(3, 0, 5, 9);
            for _ in 0..repeat {
                for record in &records {
                    block.push(record);
                }
            }
            for compression in compressions() {
                let packed = pack(&block, compression).unwrap();
                prop_assert_eq!(unpack(&packed.header, &packed.payload).unwrap(), block.clone());
                let mut payload = packed.payload;
                let at = at.index(payload.len());
                payload[at] ^= 1 << bit;
                prop_assert!(unpack(&packed.header, &payload).is_err());
            }
        }

        #[test]
        fn hostile_payloads_are_refused_not_trusted(
            payload in prop::collection::vec(any::<u8>(), 0..100), plain in 0..1000_u32, records in any::<u16>(),
        ) {
            for codec in [Codec::Plain, Codec::Lz4, Codec::Zstd] {
                let header = BlockHeader {
                    codec, records, offset: 0, partition: 0, stored: payload.len() as u32, plain,
                    payload_crc: crc32c::crc32c(&payload), times: None,
                };
                if let Ok(block) = unpack(&header, &payload) {
                    prop_assert_eq!(block.ends.len(), usize::from(records));
                }
            }
        }
    }

    #[test]
    fn like_records_shrink_and_noise_does_not_grow() {
        let alike = pack(&block(0, 1_000), Compression::Lz4).unwrap();
        assert!(alike.payload.len() * 3 < alike.header.plain as usize);
        let mut noise = Block::default();
        noise.push(&[1, 7, 3, 9, 200]);
        let packed = pack(&noise, Compression::Lz4).unwrap();
        assert_eq!((packed.header.codec, packed.payload.len()), (Codec::Plain, 6));
    }

    #[test]
    fn blocks_that_contradict_themselves_are_refused() {
        let mut short = block(0, 3);
        short.bytes.push(1);
        let mut disordered = block(0, 3);
        disordered.ends.swap(0, 1);
        for block in [short, disordered, Block::default()] {
            assert!(pack(&block, Compression::None).is_err());
        }
    }
}
