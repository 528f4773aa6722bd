//! The bytes of the log, as `docs/log-format.md` describes them. All integers are little-endian.

use turnpike_domain::time::{TimeRange, Timestamp};

/// The version of the format that is written, and the newest that is read.
pub(super) const VERSION: u16 = 1;
/// Length of a segment's header.
pub(super) const SEGMENT_HEADER: usize = 64;
/// Length of a frame's header.
pub(super) const FRAME_HEADER: usize = 36;
/// Length of a block's header.
pub(super) const BLOCK_HEADER: usize = 52;
/// Bytes of one block, before and after compression, at the most: what a reader is ready to hold.
pub(super) const BLOCK_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of blocks that are taken into a group together, at the most: the length of a frame is a number of 32 bits.
pub(super) const FRAME_BODY_MAX: usize = 1024 * 1024 * 1024;

const SEGMENT_MAGIC: [u8; 8] = *b"TPLOGSEG";
pub(super) const FRAME_MAGIC: [u8; 4] = *b"TPfr";
const BLOCK_MAGIC: [u8; 4] = *b"TPbl";

/// What is wrong with bytes that should be a header.
pub(super) type Broken = &'static str;

/// The beginning of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) version: u16,
    /// Offset in the log of the first byte of the file.
    pub(super) start: u64,
    /// The same in all segments of one log, random at its making.
    pub(super) identity: u64,
    /// Sequence of the segment's first frame.
    pub(super) sequence: u64,
}

/// The beginning of a frame: one group, written at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// Its own offset in the log.
    pub(super) offset: u64,
    /// Counts frames through the whole log.
    pub(super) sequence: u64,
    /// Length of its blocks together; 0 for a seal.
    pub(super) body: u32,
    /// How many blocks it has; 0 for a seal.
    pub(super) blocks: u32,
}

/// How a block's bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Plain = 0,
    Lz4 = 1,
    Zstd = 2,
}

/// The beginning of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHeader {
    pub(super) codec: Codec,
    /// 1 to 65,535.
    pub(super) records: u16,
    /// Its own offset in the log.
    pub(super) offset: u64,
    pub(super) partition: u32,
    /// Length of the payload as stored, behind the header.
    pub(super) stored: u32,
    /// Length of the payload unpacked.
    pub(super) plain: u32,
    /// CRC32C of the payload as stored.
    pub(super) payload_crc: u32,
    pub(super) times: Option<TimeRange>,
}

/// A frame or a block, by its magic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    Frame(FrameHeader),
    Block(BlockHeader),
}

/// Where headers stop the checksum of their own bytes.
fn close<const N: usize>(salt: u32, bytes: &mut [u8; N]) {
    let crc = crc32c::crc32c_append(salt, &bytes[..N - 4]);
    bytes[N - 4..].copy_from_slice(&crc.to_le_bytes());
}

fn closed<const N: usize>(salt: u32, bytes: &[u8]) -> Option<&[u8; N]> {
    let bytes: &[u8; N] = bytes.first_chunk()?;
    (crc32c::crc32c_append(salt, &bytes[..N - 4]) == u32_at(bytes, N - 4)).then_some(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..10].copy_from_slice(&self.version.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.start.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.identity.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        close(0, &mut bytes);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Broken> {
        let bytes: &[u8; SEGMENT_HEADER] =
            closed(0, bytes).ok_or("the checksum of the segment's header does not match")?;
        if bytes[..8] != SEGMENT_MAGIC {
            return Err("this is not a segment of an event log");
        }
        Ok(Self {
            version: u16_at(bytes, 8),
            start: u64_at(bytes, 16),
            identity: u64_at(bytes, 24),
            sequence: u64_at(bytes, 32),
        })
    }

    /// What the checksums of frames and blocks start from, so that bytes that a sender chose, or that another log left,
    /// are not taken for headers.
    #[expect(clippy::cast_possible_truncation, reason = "both halves are folded into one")]
    pub(super) const fn salt(&self) -> u32 {
        (self.identity ^ self.identity >> 32) as u32
    }
}

impl FrameHeader {
    pub(super) fn encode(&self, salt: u32) -> [u8; FRAME_HEADER] {
        let mut bytes = [0; FRAME_HEADER];
        bytes[..4].copy_from_slice(&FRAME_MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.body.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.blocks.to_le_bytes());
        close(salt, &mut bytes);
        bytes
    }

    /// Reads the header that should stand at `offset`.
    pub(super) fn decode(bytes: &[u8], salt: u32, offset: u64) -> Result<Self, Broken> {
        if !bytes.starts_with(&FRAME_MAGIC) {
            return Err("no frame starts here");
        }
        let bytes: &[u8; FRAME_HEADER] =
            closed(salt, bytes).ok_or("the checksum of the frame's header does not match")?;
        if u16_at(bytes, 4) != VERSION || u16_at(bytes, 6) != 0 {
            return Err("the frame's version is unknown");
        }
        let header = Self {
            offset: u64_at(bytes, 8),
            sequence: u64_at(bytes, 16),
            body: u32_at(bytes, 24),
            blocks: u32_at(bytes, 28),
        };
        if header.offset != offset {
            return Err("the frame belongs to another place");
        }
        Ok(header)
    }

    /// The offset behind the frame.
    pub(super) const fn end(&self) -> u64 {
        self.offset + FRAME_HEADER as u64 + self.body as u64
    }
}

impl BlockHeader {
    pub(super) fn encode(&self, salt: u32) -> [u8; BLOCK_HEADER] {
        let mut bytes = [0; BLOCK_HEADER];
        bytes[..4].copy_from_slice(&BLOCK_MAGIC);
        bytes[4] = self.codec as u8;
        bytes[5] = u8::from(self.times.is_some());
        bytes[6..8].copy_from_slice(&self.records.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.partition.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.stored.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.plain.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.payload_crc.to_le_bytes());
        if let Some(times) = self.times {
            bytes[32..40].copy_from_slice(&times.start.micros().to_le_bytes());
            bytes[40..48].copy_from_slice(&times.end.micros().to_le_bytes());
        }
        close(salt, &mut bytes);
        bytes
    }

    /// Reads the header that should stand at `offset`.
    pub(super) fn decode(bytes: &[u8], salt: u32, offset: u64) -> Result<Self, Broken> {
        if !bytes.starts_with(&BLOCK_MAGIC) {
            return Err("no block starts here");
        }
        let bytes: &[u8; BLOCK_HEADER] =
            closed(salt, bytes).ok_or("the checksum of the block's header does not match")?;
        let codec = match bytes[4] {
            0 => Codec::Plain,
            1 => Codec::Lz4,
            2 => Codec::Zstd,
            _ => return Err("the block's compression is unknown"),
        };
        let time = |at| Timestamp::from_micros_clamped(u64_at(bytes, at).cast_signed());
        let header = Self {
            codec,
            records: u16_at(bytes, 6),
            offset: u64_at(bytes, 8),
            partition: u32_at(bytes, 16),
            stored: u32_at(bytes, 20),
            plain: u32_at(bytes, 24),
            payload_crc: u32_at(bytes, 28),
            times: (bytes[5] == 1).then(|| TimeRange::new(time(32), time(40))),
        };
        if header.offset != offset {
            return Err("the block belongs to another place");
        }
        if header.stored.max(header.plain) as usize > BLOCK_BYTES_MAX {
            return Err("the block is longer than any block may be");
        }
        Ok(header)
    }

    /// The offset behind the block.
    pub(super) const fn end(&self) -> u64 {
        self.offset + BLOCK_HEADER as u64 + self.stored as u64
    }
}

impl Header {
    /// Reads the header of a frame or a block that should stand at `offset`.
    pub(super) fn decode(bytes: &[u8], salt: u32, offset: u64) -> Result<Self, Broken> {
        if bytes.starts_with(&BLOCK_MAGIC) {
            BlockHeader::decode(bytes, salt, offset).map(Self::Block)
        } else {
            FrameHeader::decode(bytes, salt, offset).map(Self::Frame)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block_header() -> impl Strategy<Value = BlockHeader> {
        let codec = prop_oneof![Just(Codec::Plain), Just(Codec::Lz4), Just(Codec::Zstd)];
        let times = proptest::option::of((0_i64..1 << 40, 0_i64..1 << 40));
        let lengths = (0..BLOCK_BYTES_MAX as u32, 0..BLOCK_BYTES_MAX as u32);
        (
            codec,
            any::<u16>(),
            any::<u64>(),
            any::<u32>(),
            lengths,
            any::<u32>(),
            times,
        )
            .prop_map(
                |(codec, records, offset, partition, (stored, plain), payload_crc, times)| BlockHeader {
                    codec,
                    records,
                    offset,
                    partition,
                    stored,
                    plain,
                    payload_crc,
                    times: times.map(|(start, end)| {
                        TimeRange::new(
                            Timestamp::from_micros_clamped(start),
                            Timestamp::from_micros_clamped(end),
                        )
                    }),
                },
            )
    }

    proptest! {
        #[test]
        fn headers_survive_the_codec_and_no_changed_bit_does(
            header in block_header(), sequence in any::<u64>(), salt in any::<u32>(),
        ) {
            let bytes = header.encode(salt);
            let frame = FrameHeader { offset: header.offset, sequence, body: header.stored, blocks: 3 };
            let framed = frame.encode(salt);
            let segment = SegmentHeader { version: 1, start: header.offset, identity: sequence, sequence };
            let segmented = segment.encode();
            prop_assert_eq!(BlockHeader::decode(&bytes, salt, header.offset), Ok(header));
            prop_assert_eq!(Header::decode(&bytes, salt, header.offset), Ok(Header::Block(header)));
            prop_assert_eq!(Header::decode(&framed, salt, header.offset), Ok(Header::Frame(frame)));
            prop_assert_eq!(SegmentHeader::decode(&segmented), Ok(segment));
            prop_assert!(BlockHeader::decode(&bytes, salt, header.offset ^ 1).is_err());
            prop_assert!(BlockHeader::decode(&bytes, !salt, header.offset).is_err());
            prop_assert!(FrameHeader::decode(&framed, salt, header.offset ^ 1).is_err());
            prop_assert!(FrameHeader::decode(&framed, !salt, header.offset).is_err());
            for bit in 0..BLOCK_HEADER * 8 {
                let mut bytes = bytes;
                bytes[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(BlockHeader::decode(&bytes, salt, header.offset).is_err());
            }
            for bit in 0..FRAME_HEADER * 8 {
                let mut bytes = framed;
                bytes[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(FrameHeader::decode(&bytes, salt, header.offset).is_err());
            }
            for bit in 0..SEGMENT_HEADER * 8 {
                let mut bytes = segmented;
                bytes[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(SegmentHeader::decode(&bytes).is_err());
            }
        }

        #[test]
        fn bytes_that_end_too_early_are_no_header(header in block_header(), len in 0..BLOCK_HEADER) {
            prop_assert!(Header::decode(&header.encode(1)[..len], 1, header.offset).is_err());
        }
    }
}
