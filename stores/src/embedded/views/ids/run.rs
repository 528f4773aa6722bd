//! A sorted, immutable run of ids: pages, then a filter and the first names of the pages, which are kept in memory.

use turnpike_domain::identity::EventName;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::IdEntry;

use super::filter::Filter;
use super::page::{PAGE_LEN, Page, PageBuilder, SLACK};
use crate::embedded::views::file::{Directory, StoredFile, Writer};
use crate::embedded::views::footer::{FOOTER_LEN, Footer, Kind, Section};
use crate::embedded::views::manifest::RunName;
use crate::width::{in_memory, place_of};

/// A run.
pub(in super::super) struct IdRun {
    file: StoredFile,
    named: RunName,
    filter: Filter,
    /// The first name of each page.
    firsts: Vec<EventName>,
}

/// The name of the file of run `number`.
pub(in super::super) fn file_name(number: u64) -> String {
    format!("ids-{number:016x}.run")
}

/// Bits of filter for each of `names` names, when `left` bytes may be taken: 24 for a `large` run, whose false
/// positives are most often reads of the disk, 16 for others, less where memory is short.
pub(in super::super) fn bits_per_name(names: u64, left: u64, large: bool) -> u64 {
    let choices: &[u64] = if large { &[24, 16, 12, 10] } else { &[16, 12, 10] };
    let fits = |bits: &&u64| names.saturating_mul(**bits) / 8 <= left;
    choices.iter().find(fits).copied().unwrap_or(8)
}

impl IdRun {
    /// Opens the run that a manifest names.
    pub(in super::super) fn open(directory: &Directory, named: RunName) -> Result<Self, StoreError> {
        let file = directory.open_file(&file_name(named.number), named.len)?;
        let footer = Footer::read(&file, Kind::Ids, named.number, named.checksum)?;
        let [filter, index] = &footer.sections;
        let firsts = read_firsts(&file, index)?;
        if firsts.len() as u64 * PAGE_LEN as u64 != footer.data_len
            || index.offset + index.len + FOOTER_LEN as u64 != named.len
        {
            return Err(file.damaged(index.offset, "the page index does not fit the pages"));
        }
        Ok(Self {
            filter: Filter::read(&file, filter)?,
            firsts,
            file,
            named,
        })
    }

    /// What a manifest says of it.
    pub(in super::super) fn named(&self) -> RunName {
        self.named
    }

    /// The file.
    pub(in super::super) fn file(&self) -> &StoredFile {
        &self.file
    }

    /// The filter.
    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Bytes of the filter.
    pub(in super::super) fn filter_bytes(&self) -> u64 {
        self.filter.bytes()
    }

    /// Bytes that it takes in memory.
    pub(in super::super) fn memory_bytes(&self) -> u64 {
        self.filter.bytes() + (self.firsts.len() * size_of::<EventName>()) as u64
    }

    /// The number of pages.
    pub(super) fn pages(&self) -> usize {
        self.firsts.len()
    }

    /// The page that would hold `name`. Searched from where a hash of that size is expected, in steps that double.
    pub(super) fn page_of(&self, name: EventName) -> usize {
        let pages = self.firsts.len();
        let guess = place_of(name.0, pages);
        let (mut from, mut until) = (guess, guess + 1);
        let mut step = 4;
        while from > 0 && self.firsts[from] > name {
            until = from;
            from = from.saturating_sub(step);
            step *= 2;
        }
        while until < pages && self.firsts[until] <= name {
            from = until;
            until = (until + step).min(pages);
            step *= 2;
        }
        let inside = self.firsts[from..until].partition_point(|first| *first <= name);
        (from + inside).saturating_sub(1)
    }

    /// Asks for a page that will be read soon.
    pub(super) fn will_need(&self, page: usize) {
        self.file.will_need((page * PAGE_LEN) as u64, PAGE_LEN as u64);
    }

    /// Reads `count` pages from `page` on into `buffer`.
    pub(super) fn read_pages(
        &self,
        page: usize,
        count: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        buffer.clear();
        buffer.resize(count * PAGE_LEN + SLACK, 0);
        self.file
            .read_into(&mut buffer[..count * PAGE_LEN], (page * PAGE_LEN) as u64)
    }

    /// The page at `at` of a buffer whose first page is `first`.
    pub(super) fn parse<'a>(
        &self,
        buffer: &'a [u8],
        first: usize,
        at: usize,
    ) -> Result<Page<'a>, StoreError> {
        Page::parse(&buffer[at * PAGE_LEN..])
            .map_err(|what| self.file.damaged(((first + at) * PAGE_LEN) as u64, what))
    }

    /// Reads all of it, and compares it with its checksums and its filter.
    pub(in super::super) fn verify(&self) -> Result<(), StoreError> {
        let mut buffer = Vec::new();
        let (mut entries, mut last) = (0, None);
        for at in 0..self.pages() {
            self.read_pages(at, 1, &mut buffer)?;
            let page = self.parse(&buffer, at, 0)?;
            for index in 0..page.len() {
                let (name, _) = page.get(index);
                if last >= Some(name) || self.page_of(name) != at || !self.filter.may_contain(name) {
                    return Err(self
                        .file
                        .damaged((at * PAGE_LEN) as u64, "a name is not where it belongs"));
                }
                last = Some(name);
            }
            entries += page.len() as u64;
        }
        if entries != self.named.entries {
            return Err(self.file.damaged(0, "the run has another number of entries"));
        }
        Ok(())
    }
}

fn read_firsts(file: &StoredFile, index: &Section) -> Result<Vec<EventName>, StoreError> {
    let bytes = file.read(index.offset, in_memory(index.len))?;
    if crc32c::crc32c(&bytes) != index.checksum {
        return Err(file.damaged(index.offset, "the checksum of the page index does not match"));
    }
    let (names, rest) = bytes.as_chunks();
    if names.is_empty() || !rest.is_empty() {
        return Err(file.damaged(index.offset, "the page index has no whole number of names"));
    }
    Ok(names
        .iter()
        .map(|name| EventName(u128::from_le_bytes(*name)))
        .collect())
}

/// Writes a run from ascending names.
pub(in super::super) struct IdRunWriter {
    writer: Writer,
    number: u64,
    page: PageBuilder,
    bytes: Vec<u8>,
    filter: Filter,
    firsts: Vec<EventName>,
    entries: u64,
}

impl IdRunWriter {
    /// Starts run `number` for at most `names` names, each with `bits` bits of filter.
    pub(in super::super) fn create(
        directory: &Directory,
        number: u64,
        names: u64,
        bits: u64,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            writer: directory.create(&file_name(number))?,
            number,
            page: PageBuilder::default(),
            bytes: Vec::new(),
            filter: Filter::new(names, bits),
            firsts: Vec::new(),
            entries: 0,
        })
    }

    /// Appends an entry; names must ascend.
    pub(in super::super) fn push(&mut self, name: EventName, entry: IdEntry) -> Result<(), StoreError> {
        self.filter.insert(name);
        self.entries += 1;
        if !self.page.push(name, entry) {
            self.write_page()?;
            self.page.push(name, entry);
        }
        Ok(())
    }

    /// Finishes the run and makes it durable. There must be an entry.
    pub(in super::super) fn finish(mut self) -> Result<IdRun, StoreError> {
        self.write_page()?;
        let data_len = self.writer.offset();
        let filter = self.filter.write(&mut self.writer)?;
        let index = self.write_firsts()?;
        let footer = Footer {
            kind: Kind::Ids,
            number: self.number,
            entries: self.entries,
            data_len,
            sections: [filter, index],
        };
        let checksum = footer.write(&mut self.writer)?;
        Ok(IdRun {
            named: RunName {
                number: self.number,
                len: self.writer.offset(),
                entries: self.entries,
                checksum,
            },
            file: self.writer.finish()?,
            filter: self.filter,
            firsts: self.firsts,
        })
    }

    fn write_page(&mut self) -> Result<(), StoreError> {
        self.firsts.extend(self.page.first());
        self.bytes.clear();
        self.page.finish(&mut self.bytes);
        self.writer.push(&self.bytes)
    }

    fn write_firsts(&mut self) -> Result<Section, StoreError> {
        let bytes: Vec<u8> = self
            .firsts
            .iter()
            .flat_map(|first| first.0.to_le_bytes())
            .collect();
        let section = Section {
            offset: self.writer.offset(),
            len: bytes.len() as u64,
            checksum: crc32c::crc32c(&bytes),
        };
        self.writer.push(&bytes)?;
        Ok(section)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;
    use turnpike_domain::record::Position;

    use super::*;
    use crate::contract::views::{entry, name};
    use crate::embedded::views::ids::probe;
    use crate::fault::FaultDisk;

    fn directory() -> Directory {
        Directory::open(Arc::new(FaultDisk::new(0)), Path::new("/views"), 0).unwrap()
    }

    fn write(directory: &Directory, entries: &BTreeMap<EventName, IdEntry>) -> IdRun {
        let mut writer = IdRunWriter::create(directory, 1, entries.len() as u64, 16).unwrap();
        for (name, entry) in entries {
            writer.push(*name, *entry).unwrap();
        }
        writer.finish().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// Names that no hash would give: crowded at one end, in the middle, or in steps.
        #[test]
        fn any_names_are_found(count in 1_u64..4_000, shift in 0_u32..128, base in any::<u128>(), absent in prop::collection::vec(any::<u128>(), 50)) {
            let entries: BTreeMap<_, _> = (0..count)
                .map(|n| (EventName((name(n).0 >> shift).wrapping_add(base)), entry(n, n << 20)))
                .collect();
            let directory = directory();
            let written = write(&directory, &entries);
            written.verify().unwrap();
            let run = Arc::new(IdRun::open(&directory, written.named()).unwrap());
            run.verify().unwrap();
            let mut names: Vec<_> = entries.keys().copied().collect();
            names.extend(absent.into_iter().map(EventName));
            names.extend([EventName(0), EventName(u128::MAX)]);
            let mut found = vec![None; names.len()];
            probe(&[run], &names, &mut found).unwrap();
            for (name, found) in names.iter().zip(found) {
                prop_assert_eq!(found, entries.get(name).copied());
            }
        }
    }

    #[test]
    fn filters_keep_to_their_bound_as_long_as_they_can() {
        assert_eq!(bits_per_name(1_000, 1_000_000, false), 16);
        assert_eq!(bits_per_name(1_000, 1_000_000, true), 24);
        assert_eq!(bits_per_name(1_000, 2_500, true), 16);
        assert_eq!(bits_per_name(1_000, 1_999, false), 12);
        assert_eq!(bits_per_name(1_000, 1_250, false), 10);
        assert_eq!(bits_per_name(1_000, 0, true), 8);
    }

    #[test]
    fn an_entry_takes_about_thirty_bytes() {
        let entries = (0..100_000)
            .map(|n| {
                (
                    name(n),
                    entry(n, Position::new(n / 1_000 * 90_000, (n % 1_000) as u16).0),
                )
            })
            .collect();
        let run = write(&directory(), &entries);
        let bytes = run.named().len * 10 / run.named().entries;
        assert!(bytes <= 310, "{bytes} tenths of a byte");
    }
}
