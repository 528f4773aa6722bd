//! A group: the blocks that become durable together, as the bytes of one frame.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::format::{BLOCK_HEADER, BlockHeader, FRAME_HEADER, FrameHeader};
use super::payload::Packed;
use crate::disk::DiskFile;
use crate::width::in_memory;

/// The segment file that frames are written to.
pub(super) struct Target {
    /// Offset in the log of its first byte.
    pub(super) start: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    /// Length of the file up to which the disk has promised space.
    pub(super) allocated: AtomicU64,
}

/// A frame that is forming or on its way to the disk.
pub(super) struct Group {
    header: FrameHeader,
    salt: u32,
    /// The frame; its header is filled in by [`Group::close`].
    bytes: Vec<u8>,
    pub(super) target: Arc<Target>,
}

impl Group {
    /// An empty group at `offset`, in `bytes` that may have been used before.
    pub(super) fn new(
        offset: u64,
        sequence: u64,
        salt: u32,
        target: Arc<Target>,
        mut bytes: Vec<u8>,
    ) -> Self {
        bytes.clear();
        bytes.resize(FRAME_HEADER, 0);
        Self {
            header: FrameHeader {
                offset,
                sequence,
                body: 0,
                blocks: 0,
            },
            salt,
            bytes,
            target,
        }
    }

    /// Adds a block and tells its place.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a header has some dozens of bytes"
    )]
    pub(super) fn push(&mut self, packed: &Packed) -> BlockHeader {
        let header = BlockHeader {
            offset: self.end(),
            ..packed.header
        };
        self.bytes.extend_from_slice(&header.encode(self.salt));
        self.bytes.extend_from_slice(&packed.payload);
        self.header.blocks += 1;
        self.header.body += packed.header.stored + BLOCK_HEADER as u32;
        header
    }

    /// Fills the frame's header in; nothing is pushed afterwards.
    pub(super) fn close(&mut self) {
        self.bytes[..FRAME_HEADER].copy_from_slice(&self.header.encode(self.salt));
    }

    /// The frame's header.
    pub(super) const fn header(&self) -> &FrameHeader {
        &self.header
    }

    /// The bytes of the frame.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the memory back for another group.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Offset behind the last block so far.
    pub(super) const fn end(&self) -> u64 {
        self.header.end()
    }

    /// Where the frame stands in its file.
    pub(super) fn file_offset(&self) -> u64 {
        self.header.offset - self.target.start
    }

    /// Whether it has no blocks: a seal.
    pub(super) const fn is_seal(&self) -> bool {
        self.header.blocks == 0
    }

    /// The block at `offset`, if one starts there: its header and its payload.
    pub(super) fn block_at(&self, offset: u64) -> Option<(BlockHeader, &[u8])> {
        let mut at = self.header.offset + FRAME_HEADER as u64;
        while at <= offset && at < self.end() {
            let from = in_memory(at - self.header.offset);
            let header = BlockHeader::decode(&self.bytes[from..], self.salt, at).ok()?;
            if at == offset {
                let payload = from + BLOCK_HEADER;
                return Some((header, &self.bytes[payload..payload + header.stored as usize]));
            }
            at = header.end();
        }
        None
    }
}
