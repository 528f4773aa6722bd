use std::hint::spin_loop;

use crate::row::Row;
use crate::sync::{AtomicU64, Ordering, fence, yield_now};

/// How often somebody who waits looks again before it lets others run.
const SPINS: u32 = 64;

/// Where a slot's counts stand, with the row of what decides on them: for most names two lines of memory, which a decision
/// reads side by side.
///
/// Everything in it is read and written under its version, which is odd while somebody writes: whoever finds the same even
/// version behind its reading as before saw what stood together. Nothing is done while writing but to set a few words.
/// Places are never freed: each is another slot's once its slot is gone. So whoever knows a place may look at it, and learns
/// from its row whether it is what was meant.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Place {
    version: AtomicU64,
    total: Wide,
    reserved: Wide,
    pub(crate) row: Row,
}

/// A slot's counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) total: i128,
    pub(crate) reserved: i128,
}

/// A number that means something only under a version.
#[derive(Debug, Default)]
pub(crate) struct Wide([AtomicU64; 2]);

impl Wide {
    #[inline]
    pub(crate) fn get(&self) -> i128 {
        let [low, high] = &self.0;
        i128::from(high.load(Ordering::Relaxed).cast_signed()) << 64 | i128::from(low.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn set(&self, value: i128) {
        let [low, high] = &self.0;
        let bytes = value.to_le_bytes();
        let (words, _) = bytes.as_chunks::<8>();
        low.store(u64::from_le_bytes(words[0]), Ordering::Relaxed);
        high.store(u64::from_le_bytes(words[1]), Ordering::Relaxed);
    }
}

/// The right to write to a place, until it is dropped.
pub(crate) struct Writing<'a> {
    place: &'a Place,
    version: u64,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let next = self.version.wrapping_add(2);
        self.place.version.store(next, Ordering::Release);
    }
}

impl Place {
    /// Waits until nobody else writes.
    pub(crate) fn write(&self) -> Writing<'_> {
        let mut tries = 0;
        loop {
            let version = self.version.load(Ordering::Relaxed);
            if version & 1 == 0
                && self
                    .version
                    .compare_exchange_weak(version, version | 1, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                // Who sees anything that is written now finds the version odd, or later.
                fence(Ordering::Release);
                return Writing { place: self, version };
            }
            pause(&mut tries);
        }
    }

    /// What `look` makes of the place as it stood at one moment. It may be run on what does not belong together, and again.
    #[inline]
    pub(crate) fn read<R>(&self, look: impl Fn() -> R) -> R {
        let mut tries = 0;
        loop {
            // In a storm of writers it takes its turn among them.
            let turn = (tries >= SPINS).then(|| self.write());
            let version = self.version.load(Ordering::Acquire);
            if version & 1 == 0 || turn.is_some() {
                let seen = look();
                fence(Ordering::Acquire);
                if self.version.load(Ordering::Relaxed) == version {
                    return seen;
                }
            }
            pause(&mut tries);
        }
    }

    /// Both counts as they stood together.
    #[inline]
    pub(crate) fn counts(&self) -> Counts {
        self.read(|| self.counts_now())
    }

    /// What its new slot begins with.
    pub(crate) fn set(&self, counts: Counts) {
        let _writing = self.write();
        self.set_now(counts);
    }

    /// Takes `amount` if the total stays at or below `ceiling`; else tells the total that stood against it.
    pub(crate) fn take(&self, amount: i128, ceiling: i128) -> Result<(), i128> {
        let _writing = self.write();
        let Counts { total, reserved } = self.counts_now();
        let after = total.checked_add(amount).filter(|after| *after <= ceiling);
        self.set_now(Counts {
            total: after.ok_or(total)?,
            reserved: reserved.wrapping_add(amount),
        });
        Ok(())
    }

    /// Adds to both counts in one step; tells what they were. Wraps, so that what is added and taken back always cancels; no
    /// sum of quantities that fits the engine comes near.
    pub(crate) fn change(&self, total: i128, reserved: i128) -> Counts {
        let _writing = self.write();
        let before = self.counts_now();
        self.set_now(Counts {
            total: before.total.wrapping_add(total),
            reserved: before.reserved.wrapping_add(reserved),
        });
        before
    }

    fn set_now(&self, counts: Counts) {
        self.total.set(counts.total);
        self.reserved.set(counts.reserved);
    }

    /// Within [`Self::read`] or under [`Self::write`].
    #[inline]
    pub(crate) fn counts_now(&self) -> Counts {
        Counts {
            total: self.total.get(),
            reserved: self.reserved.get(),
        }
    }
}

/// Waits a little for another thread to end its writing.
#[cold]
fn pause(tries: &mut u32) {
    *tries += 1;
    if tries.is_multiple_of(SPINS / 4) {
        // Where there are fewer processors than threads it may not even run.
        yield_now();
    } else {
        spin_loop();
    }
}
