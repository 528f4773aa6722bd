use crate::width::in_memory;
use std::io;

/// What a disk writes as a whole.
pub(super) const SECTOR: usize = 512;

/// A small generator (SplitMix64, Steele, Lea and Flood 2014): the same seed gives the same faults.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A file as the process sees it, and as a crash would leave it.
#[derive(Debug, Default)]
pub(super) struct FileState {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// What changed since the last sync, in order.
    changes: Vec<Change>,
    unlinked: bool,
}

#[derive(Debug)]
struct Change {
    offset: usize,
    bytes: Vec<u8>,
    /// Length of the file from then on.
    len: usize,
}

impl FileState {
    pub(super) fn durable(bytes: &[u8]) -> Self {
        Self {
            live: bytes.to_vec(),
            durable: bytes.to_vec(),
            ..Self::default()
        }
    }

    /// What the process reads; nothing once the name is gone and no crash has brought it back.
    pub(super) fn live(&self) -> &[u8] {
        if self.unlinked { &[] } else { &self.live }
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = in_memory(offset);
        let found = self.live.get(start..start + buffer.len());
        buffer.copy_from_slice(found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let change = Change {
            offset: in_memory(offset),
            bytes: bytes.to_vec(),
            len: self.live.len().max(in_memory(offset) + bytes.len()),
        };
        change.apply(&mut self.live);
        self.changes.push(change);
    }

    pub(super) fn set_len(&mut self, len: usize) {
        // What is cut off reads as zeros, should the file grow again.
        let cut = self.live.len().saturating_sub(len);
        let change = Change {
            offset: len,
            bytes: vec![0; cut],
            len,
        };
        change.apply(&mut self.live);
        self.changes.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.changes.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// Turns a bit over, on the disk and in what the process sees.
    pub(super) fn flip(&mut self, bit: u64) {
        let (byte, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        for bytes in [&mut self.live, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= mask;
            }
        }
    }

    pub(super) const fn unlink(&mut self) {
        self.unlinked = true;
    }

    /// Lets each sector that was changed since the last sync reach the disk in any of its versions, and the length
    /// likewise. Returns how many did not reach it in their last version.
    pub(super) fn tear(&mut self, random: &mut Random) -> u64 {
        let changes = std::mem::take(&mut self.changes);
        let Some(longest) = changes.iter().map(Change::end).max() else {
            return 0;
        };
        let kept_lens = in_memory(random.below(changes.len() as u64 + 1));
        let len = kept_lens
            .checked_sub(1)
            .map_or(self.durable.len(), |last| changes[last].len);
        // Some crashes lose everything or nothing, as short ones do.
        let mood = random.below(4);
        let mut lost = 0;
        self.durable.resize(self.durable.len().max(longest).max(len), 0);
        for start in (0..longest).step_by(SECTOR) {
            let touching: Vec<_> = changes.iter().filter(|change| change.touches(start)).collect();
            let kept = match mood {
                0 => 0,
                1 => touching.len(),
                _ => in_memory(random.below(touching.len() as u64 + 1)),
            };
            lost += u64::from(kept < touching.len());
            for change in &touching[..kept] {
                change.apply_sector(&mut self.durable, start);
            }
        }
        self.durable.truncate(len);
        lost
    }

    /// The process is gone: what it saw is what the disk has.
    pub(super) fn forget(&mut self) {
        self.changes.clear();
        self.live.clone_from(&self.durable);
        self.unlinked = false;
    }
}

impl Change {
    fn end(&self) -> usize {
        (self.offset + self.bytes.len()).max(self.len)
    }

    fn touches(&self, sector: usize) -> bool {
        !self.bytes.is_empty() && self.offset < sector + SECTOR && self.offset + self.bytes.len() > sector
    }

    fn apply(&self, to: &mut Vec<u8>) {
        to.resize(to.len().max(self.end()), 0);
        to[self.offset..self.offset + self.bytes.len()].copy_from_slice(&self.bytes);
        to.truncate(self.len);
    }

    fn apply_sector(&self, to: &mut [u8], sector: usize) {
        let start = self.offset.max(sector);
        let end = (self.offset + self.bytes.len()).min(sector + SECTOR);
        to[start..end].copy_from_slice(&self.bytes[start - self.offset..end - self.offset]);
    }
}
