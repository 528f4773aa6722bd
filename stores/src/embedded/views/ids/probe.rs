//! Looking up a batch of names in runs: all filters first, then the few pages that may hold a name.

use std::hint::black_box;
use std::sync::Arc;

use turnpike_domain::identity::EventName;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::IdEntry;

use super::run::IdRun;

/// Names whose filter blocks are fetched into the cache together, before they are tested.
const GROUP: usize = 64;

/// A page to read for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Read {
    /// Age of the run: 0 is the newest.
    run: u32,
    page: u32,
    /// Index of the name in the batch.
    at: u32,
}

/// Fills in what `runs`, newest first, know of the names that are not `found` yet.
pub(in super::super) fn probe(
    runs: &[Arc<IdRun>],
    names: &[EventName],
    found: &mut [Option<IdEntry>],
) -> Result<(), StoreError> {
    if runs.is_empty() {
        return Ok(());
    }
    let absent: Vec<(EventName, u32)> = names
        .iter()
        .zip(found.iter())
        .zip(0..)
        .filter_map(|((name, found), at)| found.is_none().then_some((*name, at)))
        .collect();
    let mut reads = probable(runs, &absent, names);
    reads.sort_unstable();
    if reads.len() > 1 {
        // All are asked for before the first is waited for, so that the disk works on them together.
        for read in &reads {
            runs[read.run as usize].will_need(read.page as usize);
        }
    }
    read_pages(runs, &reads, names, found)
}

/// The pages that may hold one of the names.
#[expect(clippy::cast_possible_truncation, reason = "2^32 pages are terabytes")]
fn probable(runs: &[Arc<IdRun>], absent: &[(EventName, u32)], names: &[EventName]) -> Vec<Read> {
    let mut passed = Vec::new();
    for (run, age) in runs.iter().zip(0..) {
        let filter = run.filter();
        for group in absent.chunks(GROUP) {
            black_box(group.iter().fold(0, |all, (name, _)| all ^ filter.touch(*name)));
            for (name, at) in group {
                if filter.may_contain(*name) {
                    passed.push((age, *at));
                }
            }
        }
    }
    let read = |(run, at): (u32, u32)| Read {
        run,
        page: runs[run as usize].page_of(names[at as usize]) as u32,
        at,
    };
    passed.into_iter().map(read).collect()
}

/// Reads pages, those of the newest run first. A name found in a newer run is not looked for in an older one.
fn read_pages(
    runs: &[Arc<IdRun>],
    reads: &[Read],
    names: &[EventName],
    found: &mut [Option<IdEntry>],
) -> Result<(), StoreError> {
    let mut buffer = Vec::new();
    for same in reads.chunk_by(|a, b| (a.run, a.page) == (b.run, b.page)) {
        if same.iter().all(|read| found[read.at as usize].is_some()) {
            continue;
        }
        let (run, first) = (&runs[same[0].run as usize], same[0].page as usize);
        run.read_pages(first, 1, &mut buffer)?;
        let page = run.parse(&buffer, first, 0)?;
        for at in same.iter().map(|read| read.at as usize) {
            if found[at].is_none() {
                found[at] = page.find(names[at]);
            }
        }
    }
    Ok(())
}
