use turnpike_domain::catalog::LimitMode;
use turnpike_domain::identity::TenantId;
use turnpike_domain::quota::Figures;
use turnpike_domain::time::{TimeRange, Timestamp};

use crate::place::{Place, Wide};
use crate::sync::{AtomicU64, Ordering};

/// Words of 8 bytes that the names of a row fill at most, the feature's behind the customer's.
const NAME_WORDS: usize = 10;
/// So many of them lie in the lines that a decision reads anyway.
const NEAR_WORDS: usize = 5;

/// The bits of a head above tenant (32) and lengths of the names (8 and 8).
const LIVE: u64 = 1 << 48;
const HAS_LIMIT: u64 = 1 << 49;
const HAS_CEILING: u64 = 1 << 50;
/// The ceiling is not the limit.
const OWN_CEILING: u64 = 1 << 51;
/// The limit's window does not end where the row does.
const OWN_RESET: u64 = 1 << 52;
const MODE_SHIFT: u32 = 53;
const MINUTE_SHIFT: u32 = 56;
/// What says whose row it is, and when it is good.
const HEAD_OF_KEY: u64 = LIVE | (LIVE - 1) | u64::MAX << MINUTE_SHIFT;

/// (tenant, customer, feature), as a row holds it: compared as a whole, for whoever hit another tenant's row by a part of
/// it would be told its figures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// Tenant and lengths of the names, as in a head.
    head: u64,
    words: [u64; NAME_WORDS],
    /// How many words the names fill; the others are zero.
    used: usize,
}

impl Key {
    /// `None` for names that are too long for a row.
    #[inline]
    pub(crate) fn new(tenant: TenantId, customer: &str, feature: &str) -> Option<Self> {
        let (customer, feature) = (customer.as_bytes(), feature.as_bytes());
        let behind = customer.len().div_ceil(8);
        let used = behind + feature.len().div_ceil(8);
        if used > NAME_WORDS {
            return None;
        }
        let mut words = [0; NAME_WORDS];
        fill(&mut words[..behind], customer);
        fill(&mut words[behind..used], feature);
        let head = u64::from(tenant.0) | (customer.len() as u64) << 32 | (feature.len() as u64) << 40;
        Some(Self { head, words, used })
    }

    /// Which tenant's, and how long its names are.
    #[inline]
    pub(crate) const fn head(&self) -> u64 {
        self.head
    }

    /// Its names, two words at a time.
    #[inline]
    pub(crate) fn pairs(&self) -> impl Iterator<Item = u128> + '_ {
        let (pairs, _) = self.words.as_chunks::<2>();
        let used = pairs.iter().take(self.used.div_ceil(2));
        used.map(|[one, other]| u128::from(*one) | u128::from(*other) << 64)
    }
}

/// Writes `bytes` to as many words as they need. The last word is their last 8 bytes, some of them a second time: together
/// with the length that stands for them as well as zeros behind would, and is read at once.
#[inline]
fn fill(words: &mut [u64], bytes: &[u8]) {
    let (first, last) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>());
    match (words, first, last) {
        ([one], Some(first), _) => *one = u64::from_le_bytes(*first),
        ([one, two], Some(first), Some(last)) => {
            *one = u64::from_le_bytes(*first);
            *two = u64::from_le_bytes(*last);
        }
        ([words @ .., end], _, Some(last)) => {
            for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*chunk);
            }
            *end = u64::from_le_bytes(*last);
        }
        ([one], None, _) => *one = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        _ => {}
    }
}

/// When a row is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// The tenant's directory.
    pub(crate) generation: u64,
    /// The coarse minute, its lowest byte. A row is good for the minute in which it was written, so that what is in use passes
    /// by its entry, which notes that, once a minute.
    pub(crate) minute: u8,
    pub(crate) now: Timestamp,
}

/// What a row says besides its key: one limit over the counts beside it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    pub(crate) generation: u64,
    pub(crate) minute: u8,
    pub(crate) valid: TimeRange,
    /// The limit; its counts do not matter.
    pub(crate) limit: Figures,
}

/// A copy of what a `Resolved` says, where that is one limit over one slot: a decision reads it in one go with the counts
/// beside it, without following pointers.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Row {
    head: AtomicU64,
    generation: AtomicU64,
    start_us: AtomicU64,
    end_us: AtomicU64,
    limit: Wide,
    names: [AtomicU64; NAME_WORDS],
    // Behind the names, for they are seldom needed.
    resets_us: AtomicU64,
    ceiling: Wide,
}

#[inline]
fn signed(word: &AtomicU64) -> i64 {
    word.load(Ordering::Relaxed).cast_signed()
}

fn set_signed(word: &AtomicU64, value: i64) {
    word.store(value.cast_unsigned(), Ordering::Relaxed);
}

/// Whether the names are these words. All are looked at, for that is less work than to stop in between.
#[inline]
fn are(names: &[AtomicU64], words: &[u64]) -> bool {
    let pairs = names.iter().zip(words);
    pairs.fold(0, |other, (name, word)| {
        other | (name.load(Ordering::Relaxed) ^ word)
    }) == 0
}

impl Place {
    /// The limit of the row for `key` with the counts of this place, all as they stood together; `None` unless the row is
    /// that key's and good for `moment`.
    #[inline]
    pub(crate) fn figures(&self, key: &Key, moment: Moment) -> Option<Figures> {
        self.read(|| {
            let head = self.row.good_head(key, moment)?;
            let counts = self.counts_now();
            Some(self.row.figures(head, counts.total, counts.reserved))
        })
    }

    /// Writes its row anew. The caller keeps the slot of the place.
    pub(crate) fn write_row(&self, key: &Key, said: &Said) {
        let _writing = self.write();
        self.row.set(key, said);
    }

    /// Its slot is gone: from here on its row says nothing.
    pub(crate) fn clear_row(&self) {
        let _writing = self.write();
        self.row.head.store(0, Ordering::Relaxed);
    }

    /// The key of its row, if that says anything.
    pub(crate) fn key(&self) -> Option<Key> {
        self.read(|| self.row.key())
    }
}

impl Row {
    /// The head, if the row is that of `key` and good for `moment`.
    #[inline]
    fn good_head(&self, key: &Key, moment: Moment) -> Option<u64> {
        let head = self.head.load(Ordering::Relaxed);
        let ours = key.head | LIVE | u64::from(moment.minute) << MINUTE_SHIFT;
        let now = moment.now.micros();
        let (near, far) = self.names.split_at(NEAR_WORDS);
        let (near_words, far_words) = key.words.split_at(NEAR_WORDS);
        let good = head & HEAD_OF_KEY == ours
            && self.generation.load(Ordering::Relaxed) == moment.generation
            && signed(&self.start_us) <= now
            && now < signed(&self.end_us)
            && are(near, near_words)
            && (key.used <= NEAR_WORDS || are(far, far_words));
        good.then_some(head)
    }

    #[inline]
    fn figures(&self, head: u64, total: i128, reserved: i128) -> Figures {
        let limit = (head & HAS_LIMIT != 0).then(|| self.limit.get());
        let own = head & OWN_CEILING != 0;
        let ceiling = if own { Some(self.ceiling.get()) } else { limit };
        Figures {
            mode: mode_of(head),
            limit,
            ceiling: ceiling.filter(|_| head & HAS_CEILING != 0),
            total,
            reserved,
            resets_us: signed(if head & OWN_RESET == 0 {
                &self.end_us
            } else {
                &self.resets_us
            }),
        }
    }

    fn set(&self, key: &Key, said: &Said) {
        let Figures { limit, ceiling, .. } = said.limit;
        let (start, end) = (said.valid.start.micros(), said.valid.end.micros());
        let flags = [
            (LIVE, true),
            (HAS_LIMIT, limit.is_some()),
            (HAS_CEILING, ceiling.is_some()),
            (OWN_CEILING, ceiling.is_some() && ceiling != limit),
            (OWN_RESET, said.limit.resets_us != end),
        ];
        let flags = flags.iter().map(|(flag, set)| if *set { *flag } else { 0 });
        let head = key.head
            | flags.sum::<u64>()
            | mode_number(said.limit.mode) << MODE_SHIFT
            | u64::from(said.minute) << MINUTE_SHIFT;
        self.head.store(head, Ordering::Relaxed);
        self.generation.store(said.generation, Ordering::Relaxed);
        set_signed(&self.start_us, start);
        set_signed(&self.end_us, end);
        set_signed(&self.resets_us, said.limit.resets_us);
        self.limit.set(limit.unwrap_or(0));
        self.ceiling.set(ceiling.unwrap_or(0));
        for (name, word) in self.names.iter().zip(key.words) {
            name.store(word, Ordering::Relaxed);
        }
    }

    fn key(&self) -> Option<Key> {
        let head = self.head.load(Ordering::Relaxed);
        let mut words = [0; NAME_WORDS];
        for (word, name) in words.iter_mut().zip(&self.names) {
            *word = name.load(Ordering::Relaxed);
        }
        let [_, _, feature, customer, ..] = head.to_be_bytes();
        let used = usize::from(customer).div_ceil(8) + usize::from(feature).div_ceil(8);
        let head = head & (LIVE - 1);
        (self.head.load(Ordering::Relaxed) & LIVE != 0).then_some(Key { head, words, used })
    }
}

fn mode_number(mode: LimitMode) -> u64 {
    match mode {
        LimitMode::Hard => 0,
        LimitMode::Soft => 1,
        LimitMode::Overage => 2,
    }
}

#[inline]
fn mode_of(head: u64) -> LimitMode {
    match head >> MODE_SHIFT & 3 {
        0 => LimitMode::Hard,
        1 => LimitMode::Soft,
        _ => LimitMode::Overage,
    }
}
