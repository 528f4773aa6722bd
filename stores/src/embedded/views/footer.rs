//! The last bytes of every run: what it is, how much is in it, where its parts are, and checksums.

use turnpike_domain::port::StoreError;

use super::bytes::Reader;
use super::file::{StoredFile, Writer};

/// Length of a footer in bytes.
pub(super) const FOOTER_LEN: usize = 88;
/// The version of the format of runs.
pub(super) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"TURNVIEW";

/// What a run holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Names of events.
    Ids = 1,
    /// Ordered rows.
    Rows = 2,
}

/// A part of a run behind its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Section {
    /// Offset in the file.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) len: u64,
    /// CRC-32C of the bytes.
    pub(super) checksum: u32,
}

/// A footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    /// What the run holds.
    pub(super) kind: Kind,
    /// The number in the file's name.
    pub(super) number: u64,
    /// Entries or rows.
    pub(super) entries: u64,
    /// Bytes of pages or blocks, from the file's start.
    pub(super) data_len: u64,
    /// Filter and page index of ids; block index of rows.
    pub(super) sections: [Section; 2],
}

impl Footer {
    /// Its bytes. The last four are the checksum of those before.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FOOTER_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(self.kind as u32).to_le_bytes());
        for number in [self.number, self.entries, self.data_len] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for section in &self.sections {
            bytes.extend_from_slice(&section.offset.to_le_bytes());
            bytes.extend_from_slice(&section.len.to_le_bytes());
            bytes.extend_from_slice(&section.checksum.to_le_bytes());
        }
        bytes.extend_from_slice(&[0; 4]);
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        debug_assert_eq!(bytes.len(), FOOTER_LEN);
        bytes
    }

    /// Appends it to a run, and returns its checksum.
    pub(super) fn write(&self, writer: &mut Writer) -> Result<u32, StoreError> {
        let bytes = self.encode();
        writer.push(&bytes)?;
        Ok(checksum_of(&bytes))
    }

    /// Reads the footer of a run of `kind` with `number`, whose own checksum must be `checksum`.
    pub(super) fn read(
        file: &StoredFile,
        kind: Kind,
        number: u64,
        checksum: u32,
    ) -> Result<Self, StoreError> {
        let Some(offset) = file.len()?.checked_sub(FOOTER_LEN as u64) else {
            return Err(file.damaged(0, "the file is too short for a footer"));
        };
        let bytes = file.read(offset, FOOTER_LEN)?;
        let bad = |what: &str| file.damaged(offset, what);
        let (body, sum) = bytes.split_at(FOOTER_LEN - 4);
        let mut reader = Reader::new(body);
        if reader.array() != Some(MAGIC) {
            return Err(bad("there is no footer of a run"));
        }
        super::check_version(file.path(), reader.u32().unwrap_or_default(), VERSION)?;
        if crc32c::crc32c(body).to_le_bytes() != sum || checksum_of(&bytes) != checksum {
            return Err(bad("the checksum of the footer does not match"));
        }
        let footer = Self::decode(&mut reader).ok_or_else(|| bad("the footer cannot be read"))?;
        if footer.kind != kind || footer.number != number {
            return Err(bad("the footer belongs to another run"));
        }
        Ok(footer)
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let kind = match reader.u32()? {
            1 => Kind::Ids,
            2 => Kind::Rows,
            _ => return None,
        };
        let [number, entries, data_len] = [reader.u64()?, reader.u64()?, reader.u64()?];
        let mut section = || {
            Some(Section {
                offset: reader.u64()?,
                len: reader.u64()?,
                checksum: reader.u32()?,
            })
        };
        Some(Self {
            kind,
            number,
            entries,
            data_len,
            sections: [section()?, section()?],
        })
    }
}

fn checksum_of(footer: &[u8]) -> u32 {
    footer
        .last_chunk()
        .map(|sum| u32::from_le_bytes(*sum))
        .unwrap_or_default()
}
