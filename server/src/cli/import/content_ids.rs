//! Ids of rows that have none: the same file gives the same ids, however often and however far it is read.
//!
//! An id is a hash of the row's content and which occurrence of that content it is, so every content that was read must
//! be remembered. What does not fit in memory lies in a temporary file, sorted, so that a lookup reads one page of it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;

/// Contents kept in memory, of about 24 bytes each, before they go to the file.
const IN_MEMORY: usize = 4_000_000;
/// Bytes of an entry of the file: the hash and the count, little-endian.
const ENTRY_BYTES: usize = 12;
/// Entries of a page; the first hash of each is in memory.
const PAGE_ENTRIES: usize = 256;

/// Makes ids from content.
#[derive(Debug)]
pub(crate) struct ContentIds {
    /// How often each content came that was seen since the last spill; it goes before what the file says.
    seen: HashMap<u64, u32>,
    spilled: Option<Spilled>,
    in_memory: usize,
}

impl Default for ContentIds {
    fn default() -> Self {
        Self::with_memory(IN_MEMORY)
    }
}

impl ContentIds {
    fn with_memory(in_memory: usize) -> Self {
        Self {
            seen: HashMap::new(),
            spilled: None,
            in_memory,
        }
    }

    /// The id of the next row with this content: a hash, and which occurrence of it this is. An error when the
    /// temporary file cannot be written or read.
    pub(crate) fn next(&mut self, content: &[u8]) -> io::Result<String> {
        let hash = blake3::hash(content);
        let mut short = [0; 8];
        short.copy_from_slice(&hash.as_bytes()[..8]);
        let occurrence = self.count(u64::from_le_bytes(short))?;
        Ok(format!("{}-{occurrence}", &hash.to_hex()[..32]))
    }

    /// How often `hash` has come, with this time.
    fn count(&mut self, hash: u64) -> io::Result<u32> {
        if let Some(count) = self.seen.get_mut(&hash) {
            *count += 1;
            return Ok(*count);
        }
        if self.seen.len() >= self.in_memory {
            let old = self.spilled.take();
            self.spilled = Some(Spilled::write(old, self.seen.drain().collect())?);
        }
        let before = match &self.spilled {
            Some(spilled) => spilled.count(hash)?,
            None => 0,
        };
        self.seen.insert(hash, before + 1);
        Ok(before + 1)
    }
}

/// Counts by hash, ascending, in a file without a name: it is gone with the process.
#[derive(Debug)]
struct Spilled {
    file: File,
    /// The first hash of each page.
    pages: Vec<u64>,
}

impl Spilled {
    /// Merges `fresh` over what `old` has.
    fn write(old: Option<Self>, mut fresh: Vec<(u64, u32)>) -> io::Result<Self> {
        fresh.sort_unstable();
        let mut out = Writer {
            file: BufWriter::with_capacity(256 * 1024, tempfile::tempfile()?),
            pages: Vec::new(),
            entries: 0,
        };
        let mut fresh = fresh.into_iter().peekable();
        if let Some(mut old) = old {
            old.file.rewind()?;
            let mut reader = BufReader::with_capacity(256 * 1024, old.file);
            let mut entry = [0; ENTRY_BYTES];
            while !at_end(&mut reader)? {
                reader.read_exact(&mut entry)?;
                let (hash, count) = decoded(&entry);
                while let Some(new) = fresh.next_if(|new| new.0 < hash) {
                    out.push(new)?;
                }
                // The newer count has the older one in it.
                out.push(fresh.next_if(|new| new.0 == hash).unwrap_or((hash, count)))?;
            }
        }
        for new in fresh {
            out.push(new)?;
        }
        let file = out.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Self {
            file,
            pages: out.pages,
        })
    }

    /// The count of `hash`; 0 where it never came.
    fn count(&self, hash: u64) -> io::Result<u32> {
        let Some(page) = self.pages.partition_point(|first| *first <= hash).checked_sub(1) else {
            return Ok(0);
        };
        let mut bytes = [0; PAGE_ENTRIES * ENTRY_BYTES];
        let mut filled = 0;
        while filled < bytes.len() {
            let offset = (page * PAGE_ENTRIES * ENTRY_BYTES + filled) as u64;
            match self.file.read_at(&mut bytes[filled..], offset)? {
                0 => break,
                read => filled += read,
            }
        }
        let (entries, _) = bytes[..filled].as_chunks::<ENTRY_BYTES>();
        let found = entries.binary_search_by_key(&hash, |entry| decoded(entry).0);
        Ok(found.map_or(0, |at| decoded(&entries[at]).1))
    }
}

struct Writer {
    file: BufWriter<File>,
    pages: Vec<u64>,
    entries: usize,
}

impl Writer {
    fn push(&mut self, (hash, count): (u64, u32)) -> io::Result<()> {
        if self.entries.is_multiple_of(PAGE_ENTRIES) {
            self.pages.push(hash);
        }
        self.entries += 1;
        self.file.write_all(&hash.to_le_bytes())?;
        self.file.write_all(&count.to_le_bytes())
    }
}

fn decoded(entry: &[u8; ENTRY_BYTES]) -> (u64, u32) {
    let (mut hash, mut count) = ([0; 8], [0; 4]);
    hash.copy_from_slice(&entry[..8]);
    count.copy_from_slice(&entry[8..]);
    (u64::from_le_bytes(hash), u32::from_le_bytes(count))
}

fn at_end(reader: &mut impl io::BufRead) -> io::Result<bool> {
    Ok(reader.fill_buf()?.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_the_same_however_little_memory_there_is() {
        // xorshift64 (Marsaglia 2003), so that contents repeat near and far.
        let mut state = 88_172_645_463_325_252_u64;
        let mut contents = Vec::new();
        for _ in 0..20_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            contents.push(state % 7_000);
        }
        for in_memory in [50, 300, 1_024, 100_000] {
            let mut ids = ContentIds::with_memory(in_memory);
            let mut model: HashMap<u64, u32> = HashMap::new();
            for content in &contents {
                // Hashes spread over all of u64, with both ends.
                let hash = match content {
                    0 => 0,
                    1 => u64::MAX,
                    other => other.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                };
                let expected = model.entry(hash).or_insert(0);
                *expected += 1;
                assert_eq!(ids.count(hash).unwrap(), *expected, "{in_memory} {content}");
            }
            assert!(ids.seen.len() <= ids.in_memory);
            assert_eq!(ids.spilled.is_some(), in_memory < 7_000, "{in_memory}");
        }
    }

    #[test]
    fn ids_are_a_hash_and_an_occurrence() {
        let mut ids = ContentIds::default();
        let (first, second) = (ids.next(b"a").unwrap(), ids.next(b"a").unwrap());
        assert_eq!(first.strip_suffix("-1"), second.strip_suffix("-2"));
        assert_ne!(ids.next(b"b").unwrap()[..32], first[..32]);
        assert_eq!(ContentIds::default().next(b"a").unwrap(), first);
    }
}
