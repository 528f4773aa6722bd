use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;
use turnpike_domain::quota::Figures;

use crate::entry::{Entry, Verdict};
use crate::place::Place;
use crate::places::{PLACES, Taken};
use crate::row::{Key, Moment, Said};
use crate::slot::Slot;

/// A word stands at most this far behind where its hash says.
const WINDOW: usize = 16;
/// Words of the first table; each that follows has twice as many.
const FIRST: usize = 1_024;
const TABLES: usize = 15;
/// A word is the number of a place, and above it so many bits of the hash, so that few wrong places are looked at.
const NUMBER_BITS: u32 = 24;

/// Where the row for a key is: a table of words that is read without a lock, and is only a hint, for the row itself says
/// whose it is. A word of a row that is gone is overwritten when its room is needed.
pub(crate) struct Rows {
    hasher: foldhash::fast::RandomState,
    /// Tables stay when a larger one is used: somebody may be reading.
    tables: [OnceLock<Box<[AtomicU32]>>; TABLES],
    current: AtomicUsize,
    /// How many words of the current table are in use.
    used: Mutex<usize>,
}

impl Default for Rows {
    fn default() -> Self {
        Self {
            hasher: foldhash::fast::RandomState::default(),
            tables: [const { OnceLock::new() }; TABLES],
            current: AtomicUsize::new(0),
            used: Mutex::new(0),
        }
    }
}

impl Rows {
    /// The figures that decide for `key`, if a row has them.
    #[inline]
    pub(crate) fn figures(&self, key: &Key, moment: Moment) -> Option<Figures> {
        let table = self.table(self.current.load(Ordering::Acquire));
        let hash = self.hash(key);
        for word in window(table, hash) {
            let word = word.load(Ordering::Acquire);
            if word >> NUMBER_BITS != tag(hash) {
                continue;
            }
            if let Some(place) = numbered(word)
                && let Some(figures) = place.figures(key, moment)
            {
                return Some(figures);
            }
        }
        None
    }

    /// Keeps a row for what stands compiled at an entry, where it has the form for one: a single limit over usage of the
    /// entry's own customer, which nothing but directory and time can change.
    pub(crate) fn keep(&self, entry: &Entry, minute: u8) {
        // What was compiled for an older instant, and not kept there, knows nothing of what changed between that and now.
        let resolved = entry.resolved.load();
        let Some(resolved) = resolved.as_deref() else {
            return;
        };
        let (Verdict::Metered(_), [limit], [cell]) = (&resolved.verdict, &*resolved.limits, &*resolved.cells)
        else {
            return;
        };
        let alone = resolved.watched.is_empty() && resolved.pools.is_empty();
        if !alone || *limit.customer != *entry.customer {
            return;
        }
        let said = Said {
            generation: resolved.generation,
            minute,
            valid: resolved.valid,
            limit: limit.figures(0, 0),
        };
        if let Some(key) = Key::new(entry.tenant, &entry.customer, &entry.feature) {
            self.enter(&key, &cell.slot, &said);
        }
    }

    /// Writes a row beside the counts of `slot`, so that it is found by `key`.
    fn enter(&self, key: &Key, slot: &Slot, said: &Said) {
        let Taken { place, number } = slot.place();
        let Some(number) = number else { return };
        place.write_row(key, said);
        let hash = self.hash(key);
        let mut used = self.used.lock();
        if self.insert(hash, number) {
            *used += 1;
            self.make_room(&mut used);
        }
    }

    /// How many rows can be found.
    pub(crate) fn len(&self) -> usize {
        let table = self.table(self.current.load(Ordering::Acquire));
        let words = table.iter().map(|word| word.load(Ordering::Acquire)).enumerate();
        words
            .filter(|(at, word)| self.hash_of(table, *at, *word).is_some())
            .count()
    }

    #[inline]
    fn hash(&self, key: &Key) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(key.head());
        key.pairs().for_each(|pair| hasher.write_u128(pair));
        hasher.finish()
    }

    #[inline]
    fn table(&self, number: usize) -> &[AtomicU32] {
        self.tables[number].get_or_init(|| (0..FIRST << number).map(|_| AtomicU32::new(0)).collect())
    }

    /// The hash of the row that the word at `at` stands for; `None` when that is gone. Its place may have another row by now,
    /// whose word stands elsewhere.
    fn hash_of(&self, table: &[AtomicU32], at: usize, word: u32) -> Option<u64> {
        let hash = self.hash(&numbered(word)?.key()?);
        let is_its_word = tag(hash) == word >> NUMBER_BITS && stands(table, hash).any(|place| place == at);
        is_its_word.then_some(hash)
    }

    /// Enters a place; tells whether a word more is in use.
    fn insert(&self, hash: u64, number: u32) -> bool {
        let table = self.table(self.current.load(Ordering::Relaxed));
        let word = tag(hash) << NUMBER_BITS | (number + 1);
        let mut room = None;
        for at in stands(table, hash) {
            let there = table[at].load(Ordering::Relaxed);
            if there == word {
                return false;
            }
            if room.is_none() && self.hash_of(table, at, there).is_none() {
                room = Some(&table[at]);
            }
        }
        // Without room the first goes: it is found by its entry from then on.
        let place = room.or_else(|| window(table, hash).next());
        place.is_some_and(|place| place.swap(word, Ordering::Release) == 0)
    }

    /// Once a quarter of the words is in use: drops those of rows that are gone, or takes a larger table.
    fn make_room(&self, used: &mut usize) {
        let current = self.current.load(Ordering::Relaxed);
        let table = self.table(current);
        if *used * 4 <= table.len() || current + 1 == TABLES {
            return;
        }
        let live = table.iter().enumerate().filter_map(|(at, word)| {
            let there = word.load(Ordering::Relaxed);
            let hash = self.hash_of(table, at, there);
            if hash.is_none() {
                word.store(0, Ordering::Relaxed);
            }
            hash.zip(number_of(there))
        });
        let live: Vec<_> = live.collect();
        *used = live.len();
        if live.len() * 8 > table.len() {
            // Filled before it is used: nobody who looks for a row misses it.
            let larger = self.table(current + 1);
            for (hash, number) in &live {
                let word = tag(*hash) << NUMBER_BITS | (number + 1);
                let mut words = window(larger, *hash);
                if let Some(room) = words.find(|word| word.load(Ordering::Relaxed) == 0) {
                    room.store(word, Ordering::Release);
                }
            }
            self.current.store(current + 1, Ordering::Release);
        }
    }
}

/// Where a hash may stand.
#[inline]
fn stands(table: &[AtomicU32], hash: u64) -> impl Iterator<Item = usize> + use<> {
    let mask = table.len() - 1;
    let home = usize::try_from(hash & mask as u64).unwrap_or(0);
    (0..WINDOW).map(move |step| (home + step) & mask)
}

/// The words there.
#[inline]
fn window(table: &[AtomicU32], hash: u64) -> impl Iterator<Item = &AtomicU32> {
    stands(table, hash).map(|at| &table[at])
}

#[inline]
fn tag(hash: u64) -> u32 {
    let [tag, ..] = hash.to_be_bytes();
    u32::from(tag)
}

/// The number of the place that a word stands for.
#[inline]
fn number_of(word: u32) -> Option<u32> {
    (word & ((1 << NUMBER_BITS) - 1)).checked_sub(1)
}

#[inline]
fn numbered(word: u32) -> Option<&'static Place> {
    PLACES.get(number_of(word)?)
}

#[cfg(test)]
mod tests;
