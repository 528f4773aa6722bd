//! New ids in memory: open addressing with linear probing.
//!
//! Names are hashes already, and the slot of a name is its share of the whole range times the number of slots. So slots are
//! nearly in the order of the names: growing and writing out a table go through memory from front to back. Names that
//! are not spread evenly are still found, but slowly.

use crate::width::place_of;
use std::cmp::Reverse;
use std::hint::black_box;

use turnpike_domain::identity::EventName;
use turnpike_domain::port::views::IdEntry;
use turnpike_domain::record::Position;

/// Names whose slots are fetched into the cache together, before they are searched for.
const GROUP: usize = 64;
const SLOTS_MIN: usize = 1024;
/// A table is full at 13 of 20 slots: a search for an absent name then looks at 4.6 slots (Knuth, vol. 3, 6.4, theorem K).
const FULL: (usize, usize) = (13, 20);

/// A name and what is remembered of it.
type Named = (EventName, IdEntry);

/// A slot; the name 0 marks an empty one.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    name: u128,
    digest: u64,
    position: u64,
}

impl Slot {
    fn entry(self) -> IdEntry {
        IdEntry {
            digest: self.digest,
            position: Position(self.position),
        }
    }

    fn named(self) -> Named {
        (EventName(self.name), self.entry())
    }
}

/// A table of ids.
#[derive(Debug, Default)]
pub(in super::super) struct Table {
    slots: Vec<Slot>,
    used: usize,
    /// The entry of the name 0, which no slot can hold.
    zero: Option<IdEntry>,
    expected: usize,
}

impl Table {
    /// An empty table that will hold about `expected` names.
    pub(in super::super) fn new(expected: usize) -> Self {
        Self {
            expected,
            ..Self::default()
        }
    }

    /// Names in it.
    pub(in super::super) fn len(&self) -> usize {
        self.used + usize::from(self.zero.is_some())
    }

    /// Whether there is nothing in it.
    pub(in super::super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it takes.
    pub(in super::super) fn memory_bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>()
    }

    /// Looks up the names that are not `found` yet.
    pub(in super::super) fn probe(&self, names: &[EventName], found: &mut [Option<IdEntry>]) {
        if self.is_empty() {
            return;
        }
        for (names, found) in names.chunks(GROUP).zip(found.chunks_mut(GROUP)) {
            // How far a search goes depends on what it reads: without this, each would wait for the memory in turn.
            black_box(names.iter().fold(0, |all, name| all ^ self.touch(*name)));
            for (name, found) in names.iter().zip(found) {
                if found.is_none() {
                    *found = self.get(*name);
                }
            }
        }
    }

    /// Reads the first slot of a name, so that it is on its way into the cache.
    #[inline]
    fn touch(&self, name: EventName) -> u64 {
        self.slots.get(self.home(name.0)).map_or(0, |slot| slot.digest)
    }

    /// Looks a name up.
    #[inline]
    pub(in super::super) fn get(&self, name: EventName) -> Option<IdEntry> {
        if name.0 == 0 {
            return self.zero;
        }
        if self.slots.is_empty() {
            return None;
        }
        let slot = self.slots[self.find(name.0)];
        (slot.name != 0).then(|| slot.entry())
    }

    /// Remembers a name, in place of what was remembered of it.
    pub(in super::super) fn insert(&mut self, name: EventName, entry: IdEntry) {
        if name.0 == 0 {
            self.zero = Some(entry);
            return;
        }
        if self.used * FULL.1 >= self.slots.len() * FULL.0 {
            self.grow();
        }
        let at = self.find(name.0);
        self.used += usize::from(self.slots[at].name == 0);
        self.slots[at] = Slot {
            name: name.0,
            digest: entry.digest,
            position: entry.position.0,
        };
    }

    /// The entries in the order of their names.
    fn ascending(&self) -> Ascending<'_> {
        let zero = self.zero.map(|entry| (EventName(0), entry));
        let first_run = self.slots.iter().take_while(|slot| slot.name != 0).enumerate();
        let wrapped = first_run.filter(|(at, slot)| self.home(slot.name) > *at);
        Ascending {
            wrapped: wrapped.map(|(_, slot)| slot.named()).collect(),
            cluster: zero.into_iter().collect(),
            table: self,
            at: 0,
        }
    }

    /// The slot where the search for `name` starts.
    #[inline]
    fn home(&self, name: u128) -> usize {
        place_of(name, self.slots.len())
    }

    /// The slot that holds `name`, or the empty one that would.
    #[inline]
    fn find(&self, name: u128) -> usize {
        let slots = self.slots.len();
        let mut at = self.home(name);
        loop {
            let found = self.slots[at].name;
            if found == name || found == 0 {
                return at;
            }
            at += 1;
            if at == slots {
                at = 0;
            }
        }
    }

    /// Doubles the slots, but not far beyond what is expected.
    fn grow(&mut self) {
        let expected = self.expected * FULL.1 / FULL.0 + 1;
        let now = self.slots.len();
        let doubled = (now * 2).max(SLOTS_MIN);
        let slots = if now < expected && expected < doubled + doubled / 2 {
            expected.max(SLOTS_MIN)
        } else {
            doubled
        };
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); slots]);
        for slot in old.into_iter().filter(|slot| slot.name != 0) {
            let at = self.find(slot.name);
            self.slots[at] = slot;
        }
    }
}

/// The entries of a table in the order of their names, sorted a few at a time.
///
/// A name's slot is at or behind its home, with no empty slot in between, and homes ascend with names. So slots that follow each
/// other without a gap, a cluster, hold names that are all less than those of the next cluster. Only what found no slot
/// before the end of the table stands at its beginning, and belongs to the last cluster.
struct Ascending<'t> {
    table: &'t Table,
    /// The next slot.
    at: usize,
    /// What is left of the cluster before it, greatest first.
    cluster: Vec<Named>,
    /// Entries at the beginning that belong to the end.
    wrapped: Vec<Named>,
}

impl Ascending<'_> {
    /// Takes the next cluster. Nothing behind the last.
    fn refill(&mut self) {
        let slots = &self.table.slots;
        while slots.get(self.at).is_some_and(|slot| slot.name == 0) {
            self.at += 1;
        }
        while let Some(slot) = slots.get(self.at).filter(|slot| slot.name != 0) {
            if self.table.home(slot.name) <= self.at {
                self.cluster.push(slot.named());
            }
            self.at += 1;
        }
        if self.at == slots.len() {
            self.cluster.append(&mut self.wrapped);
        }
        self.cluster.sort_unstable_by_key(|(name, _)| Reverse(*name));
    }
}

impl Iterator for Ascending<'_> {
    type Item = Named;

    fn next(&mut self) -> Option<Named> {
        while self.cluster.is_empty() && self.at < self.table.slots.len() {
            self.refill();
        }
        self.cluster.pop()
    }
}

/// All entries of `tables`, newest table first, in the order of their names: of equal names the newest one. They are
/// sorted while they are read: a copy of all would double the memory.
pub(in super::super) fn sorted<'a>(
    tables: impl IntoIterator<Item = &'a Table>,
) -> impl Iterator<Item = Named> {
    let mut tables: Vec<_> = tables
        .into_iter()
        .map(|table| table.ascending().peekable())
        .collect();
    std::iter::from_fn(move || {
        let next = tables
            .iter_mut()
            .filter_map(|table| table.peek())
            .map(|(name, _)| *name)
            .min()?;
        let mut newest = None;
        for table in &mut tables {
            let found = table.next_if(|(name, _)| *name == next);
            newest = newest.or(found);
        }
        newest
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::views::{entry, name};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn agrees_with_a_map(inserts in prop::collection::vec((0_u64..3_000, any::<u64>()), 0..4_000), expected in 0_usize..5_000) {
            let mut table = Table::new(expected);
            let mut model = BTreeMap::new();
            for (number, digest) in inserts {
                // A few names that no hash would give: zero, its neighbours, and the greatest.
                let name = match number { 0 => EventName(0), 1 => EventName(1), 2 => EventName(u128::MAX), 3 => EventName(u128::MAX - 1), n => name(n) };
                table.insert(name, entry(digest, number));
                model.insert(name, entry(digest, number));
            }
            prop_assert_eq!(table.len(), model.len());
            for (name, entry) in &model {
                prop_assert_eq!(table.get(*name), Some(*entry));
            }
            prop_assert_eq!(table.get(name(10_000)), None);
            prop_assert_eq!(sorted([&table]).collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_wraps_around_the_end_comes_last() {
        let mut table = Table::new(100);
        let last = |n: u128| EventName(u128::MAX - n);
        let names = (0..40).map(last).chain((1..40).map(EventName));
        for (name, n) in names.zip(0..) {
            table.insert(name, entry(n, n));
        }
        assert!(table.slots[0].name > 1 << 100, "some have wrapped around");
        let found: Vec<_> = sorted([&table]).map(|(name, _)| name).collect();
        let expected: Vec<_> = (1..40).map(EventName).chain((0..40).rev().map(last)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_full_table_is_as_large_as_expected() {
        let mut table = Table::new(100_000);
        for n in 0..100_000 {
            table.insert(name(n), entry(n, n));
        }
        assert_eq!(table.len(), 100_000);
        assert!(
            table.memory_bytes() / 100_000 <= 50,
            "{} bytes an id",
            table.memory_bytes() / 100_000
        );
    }

    #[test]
    fn of_equal_names_the_newest_is_written() {
        let (mut newer, mut older) = (Table::new(10), Table::new(10));
        older.insert(name(1), entry(1, 1));
        older.insert(name(2), entry(2, 2));
        newer.insert(name(1), entry(3, 3));
        let mut expected = vec![(name(1), entry(3, 3)), (name(2), entry(2, 2))];
        expected.sort_by_key(|(name, _)| *name);
        assert_eq!(sorted([&newer, &older]).collect::<Vec<_>>(), expected);
    }
}
