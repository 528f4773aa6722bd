//! Walking over the frames and blocks of a segment, from a frame or block start on.

use std::sync::Arc;

use turnpike_domain::port::StoreError;
use turnpike_domain::port::log::{Block, StoredBlock};
use turnpike_domain::record::Position;

use super::format::{BLOCK_HEADER, BlockHeader, Broken, FRAME_HEADER, FrameHeader, Header};
use super::payload;
use super::segment::{Segment, failed};
use crate::disk::{Disk, DiskFile};
use crate::width::in_memory;

/// Bytes that are read at once.
const READ_BYTES: usize = 1024 * 1024;

/// A place in a segment, and a window of its bytes.
pub(super) struct Walk {
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    /// Where the next header is expected.
    at: u64,
    /// Behind the last byte that belongs to the walk.
    end: u64,
    frame: Option<Place>,
    window: Vec<u8>,
    window_at: u64,
    read_bytes: usize,
}

/// The frame that the walk is in.
#[derive(Debug, Clone, Copy)]
struct Place {
    header: FrameHeader,
    blocks_left: u32,
}

impl Walk {
    /// A walk that starts at `at`, where a frame or a block starts, and ends at `end`, where a frame ends.
    pub(super) fn new(
        disk: &dyn Disk,
        segment: &Arc<Segment>,
        at: u64,
        end: u64,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            segment: Arc::clone(segment),
            file: segment.file(disk)?,
            at,
            end,
            frame: None,
            window: Vec::new(),
            window_at: 0,
            read_bytes: READ_BYTES,
        })
    }

    /// Reads only what is asked for, for a walk of a few steps.
    pub(super) fn short(mut self) -> Self {
        self.read_bytes = 4096;
        self
    }

    /// Reads nothing beyond what is asked for.
    pub(super) const fn exact(mut self) -> Self {
        self.read_bytes = 0;
        self
    }

    /// Where the next header is expected.
    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    /// The last frame that the walk has passed, and whether it has passed all of its blocks.
    pub(super) fn frame(&self) -> Option<(FrameHeader, bool)> {
        self.frame.map(|place| (place.header, place.blocks_left == 0))
    }

    /// The next header; the walk then stands behind it, and behind the payload of a block.
    pub(super) fn next(&mut self) -> Result<Option<Header>, StoreError> {
        if self.at >= self.end {
            return match self.frame {
                Some(place) if place.blocks_left > 0 => Err(self.damage(self.at, "the frame misses blocks")),
                _ => Ok(None),
            };
        }
        let (at, end, salt) = (self.at, self.end, self.segment.salt);
        // At a block's start the frame around it may be unknown.
        let inside = self.frame.is_some_and(|place| place.blocks_left > 0);
        let bytes = self.bytes(at, BLOCK_HEADER.min(in_memory(end - at)))?;
        let header = if inside {
            BlockHeader::decode(bytes, salt, at).map(Header::Block)
        } else {
            Header::decode(bytes, salt, at)
        };
        let header = header.map_err(|broken| self.damage(at, broken))?;
        self.step(header).map_err(|broken| self.damage(at, broken))?;
        Ok(Some(header))
    }

    /// Moves behind `header` and checks that it fits what came before it.
    fn step(&mut self, header: Header) -> Result<(), Broken> {
        match header {
            Header::Frame(frame) => {
                let follows = self.frame.is_none_or(|before| {
                    before.blocks_left == 0 && before.header.sequence + 1 == frame.sequence
                });
                if !follows {
                    return Err("the frame does not follow the one before it");
                }
                if frame.end() > self.end || (frame.blocks == 0) != (frame.body == 0) {
                    return Err("the frame reaches behind the end");
                }
                self.frame = Some(Place {
                    header: frame,
                    blocks_left: frame.blocks,
                });
                self.at = frame.offset + FRAME_HEADER as u64;
                self.segment.note(&frame);
            }
            Header::Block(block) => {
                let limit = self.frame.map_or(self.end, |place| place.header.end());
                if block.end() > limit {
                    return Err("the block reaches behind its frame");
                }
                // A block behind the end of a frame can only be a frame's that the walk has not seen begin.
                if let Some(place) = &mut self.frame {
                    place.blocks_left = place
                        .blocks_left
                        .checked_sub(1)
                        .ok_or("the frame has more blocks than it says")?;
                    if (place.blocks_left == 0) != (block.end() == limit) {
                        return Err("the frame has not the length that it says");
                    }
                }
                self.at = block.end();
            }
        }
        Ok(())
    }

    /// The stored payload of a block that the walk has passed.
    pub(super) fn payload(&mut self, block: &BlockHeader) -> Result<&[u8], StoreError> {
        self.bytes(block.offset + BLOCK_HEADER as u64, block.stored as usize)
    }

    /// A block that the walk has passed, unpacked.
    pub(super) fn block(&mut self, header: &BlockHeader) -> Result<StoredBlock, StoreError> {
        let unpacked = payload::unpack(header, self.payload(header)?);
        let block = unpacked.map_err(|broken| self.damage(header.offset, broken))?;
        Ok(stored(header, block))
    }

    /// Checks the payload of a block without unpacking it.
    pub(super) fn check(&mut self, header: &BlockHeader) -> Result<(), StoreError> {
        let checked = payload::check(header, self.payload(header)?);
        checked.map_err(|broken| self.damage(header.offset, broken))
    }

    fn damage(&self, offset: u64, broken: Broken) -> StoreError {
        self.segment.damage(offset, broken)
    }

    /// `len` bytes at `offset` of the log.
    fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], StoreError> {
        let window_end = self.window_at + self.window.len() as u64;
        if offset < self.window_at || offset + len as u64 > window_end {
            let left = in_memory(self.end.saturating_sub(offset));
            self.window.resize(len.max(self.read_bytes.min(left)), 0);
            self.window_at = offset;
            let read = self.file.read_at(&mut self.window, offset - self.segment.start);
            if let Err(error) = read {
                self.window.clear();
                return Err(match error.kind() {
                    std::io::ErrorKind::UnexpectedEof => self.damage(offset, "the file ends too early"),
                    _ => failed(&self.segment.path, "reading", &error),
                });
            }
            let behind = offset + self.window.len() as u64;
            if self.read_bytes == READ_BYTES && behind < self.end {
                self.file
                    .will_need(behind - self.segment.start, READ_BYTES as u64);
            }
        }
        let from = in_memory(offset - self.window_at);
        Ok(&self.window[from..from + len])
    }
}

/// `block` with its place.
pub(super) fn stored(header: &BlockHeader, block: Block) -> StoredBlock {
    StoredBlock {
        position: Position::new(header.offset, 0),
        next: Position::new(header.end(), 0),
        block,
    }
}
