use turnpike_domain::identity::MeterId;
use turnpike_domain::invariant::{Invariant, VIOLATIONS};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::TimeRange;

use crate::place::Counts;
use crate::places::{PLACES, Taken};

/// The live count of one window of one customer's feature, in parts of 10⁻¹².
///
/// `total` decides: what was used and what is held. `reserved` only shows what of it is held, so used = total − reserved.
/// Both change in one step, at a place of their own, for two slots on one line would slow each other.
#[derive(Debug)]
pub(crate) struct Slot {
    taken: Taken,
    range: TimeRange,
    /// Whose usage it counts.
    meter: MeterId,
}

impl Slot {
    pub(crate) fn new(meter: MeterId, range: TimeRange, total: i128) -> Self {
        let taken = PLACES.take();
        let reserved = 0;
        taken.place.set(Counts { total, reserved });
        Self { taken, range, meter }
    }

    /// Where its counts stand.
    pub(crate) const fn place(&self) -> Taken {
        self.taken
    }

    pub(crate) const fn meter(&self) -> MeterId {
        self.meter
    }

    pub(crate) const fn range(&self) -> TimeRange {
        self.range
    }

    pub(crate) fn total(&self) -> i128 {
        self.counts().total
    }

    /// Both counts as they stood together.
    #[inline]
    pub(crate) fn counts(&self) -> Counts {
        self.taken.place.counts()
    }

    /// What was used, without what is held; never below nothing.
    pub(crate) fn used(&self) -> Quantity {
        let Counts { total, reserved } = self.counts();
        Quantity::from_parts(total.wrapping_sub(reserved).max(0)).unwrap_or(Quantity::MAX)
    }

    /// Takes `amount` if the total stays at or below `ceiling`; else tells the total that stood against it.
    pub(crate) fn take(&self, amount: i128, ceiling: i128) -> Result<(), i128> {
        self.taken.place.take(amount, ceiling)
    }

    /// Holds `amount` whatever the ceiling: it was granted elsewhere.
    pub(crate) fn hold(&self, amount: i128) {
        self.taken.place.change(amount, amount);
    }

    /// Ends a hold of `held`, of which `used` was used: the rest is given back in the same step.
    pub(crate) fn settle(&self, held: i128, used: i128) {
        let before = self
            .taken
            .place
            .change(used.wrapping_sub(held), held.wrapping_neg());
        if before.reserved < held {
            metrics::counter!(VIOLATIONS, "invariant" => Invariant::HoldsBalance.name()).increment(1);
        }
    }

    /// Adds what was used without a hold; negative for what was taken back.
    pub(crate) fn add(&self, amount: i128) {
        self.taken.place.change(amount, 0);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        PLACES.give_back(self.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sixty_four_threads_take_exactly_the_limit() {
        let slot = Slot::new(MeterId(1), TimeRange::ALL, 3);
        let (limit, tries) = (5_003, 100_000);
        let granted: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..64)
                .map(|_| scope.spawn(|| (0..tries / 64).filter(|_| slot.take(1, limit).is_ok()).count()))
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(granted, 5_000);
        assert_eq!(
            slot.counts(),
            Counts {
                total: 5_003,
                reserved: 5_000
            }
        );
    }

    #[test]
    fn a_take_beyond_the_range_of_numbers_is_refused() {
        let slot = Slot::new(MeterId(1), TimeRange::ALL, i128::MAX - 1);
        assert_eq!(slot.take(5, i128::MAX), Err(i128::MAX - 1));
        assert_eq!(slot.take(1, i128::MAX), Ok(()));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take(i128),
        Settle(usize, i128),
        Add(i128),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0i128..20).prop_map(Step::Take),
            (0usize..8, 0i128..20).prop_map(|(at, used)| Step::Settle(at, used)),
            (-10i128..20).prop_map(Step::Add),
        ]
    }

    proptest! {
        #[test]
        fn counts_follow_a_plain_model(steps in prop::collection::vec(step(), 1..60), ceiling in 0i128..80) {
            let slot = Slot::new(MeterId(1), TimeRange::ALL, 0);
            let (mut used, mut holds) = (0i128, Vec::<i128>::new());
            for step in steps {
                match step {
                    Step::Take(amount) => {
                        let fits = used + holds.iter().sum::<i128>() + amount <= ceiling;
                        prop_assert_eq!(slot.take(amount, ceiling).is_ok(), fits);
                        if fits {
                            holds.push(amount);
                        }
                    }
                    Step::Settle(at, amount) if !holds.is_empty() => {
                        let held = holds.swap_remove(at % holds.len());
                        slot.settle(held, amount);
                        used += amount;
                    }
                    Step::Settle(..) => {}
                    Step::Add(amount) => {
                        slot.add(amount);
                        used += amount;
                    }
                }
                let reserved = holds.iter().sum::<i128>();
                prop_assert_eq!(slot.counts(), Counts { total: used + reserved, reserved });
            }
        }
    }
}
