//! The same as a plain count from the first hour on: grants as balances that each hour changes.

use proptest::prelude::*;

use super::tests::in_one;
use super::*;
use crate::quantity::{Quantity, UNIT};
use crate::quota::course::Allowance;
use crate::time::{CalendarUnit, Zone};

const HOUR_US: i64 = 3_600_000_000;
const HOURS: i64 = 24 * 12;

fn hour(n: i64) -> Timestamp {
    Timestamp::from_micros_clamped(n * HOUR_US)
}

/// What counts from an hour on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Days(i64),
    Ever(i64),
    Unlimited,
}

#[derive(Debug, Clone)]
struct World {
    grants: Vec<Grant>,
    /// Ascending; the first begins with time.
    kinds: Vec<(i64, Kind)>,
    used: Vec<i64>,
}

impl World {
    fn kind_at(&self, n: i64) -> (Kind, Option<i64>) {
        let next = self.kinds.iter().position(|(from, _)| *from > n);
        let at = next.unwrap_or(self.kinds.len()) - 1;
        (self.kinds[at].1, next.map(|next| self.kinds[next].0))
    }

    /// Half of an hour's usage never lies in the minute of a change.
    fn used_in(&self, range: TimeRange) -> Quantity {
        let within = (0..)
            .zip(&self.used)
            .filter(|(n, _)| range.contains(hour(*n).plus_micros(HOUR_US / 2)));
        Quantity::from_units(within.map(|(_, used)| used).sum())
    }

    /// What is left of each active grant when hour `now` begins, and how much may be used yet.
    fn left(&self, now: i64) -> (Vec<(String, i64)>, i64) {
        let mut balances = vec![0i64; self.grants.len()];
        // By hour, what no grant covered.
        let mut charged: Vec<i64> = Vec::new();
        // By hour, of that what nothing else did.
        let mut lost: Vec<i64> = Vec::new();
        for n in 0..=now {
            self.renew(&mut balances, n);
            let order = self.order(n);
            let (start, limit) = match self.kind_at(n).0 {
                Kind::Days(limit) => (n - n % 24, limit),
                Kind::Ever(limit) => (0, limit),
                Kind::Unlimited => (n, i64::MAX / 2),
            };
            let before: i64 = charged[start as usize..n as usize].iter().sum();
            let beyond = |total: i64| (total - limit).max(0);
            if n == now {
                let sum: i64 = order.iter().map(|at| balances[*at]).sum();
                let left = order
                    .iter()
                    .map(|at| (self.grants[*at].id.clone(), balances[*at]));
                let lost: i64 = lost[start as usize..n as usize].iter().sum();
                // Beyond the limit for what was covered by a former one, grants can be used; for what nothing covered, not.
                let more = match (limit, left.len()) {
                    (0, 1..) if self.kind_at(n).0 == Kind::Ever(0) => sum,
                    (_, 0) => limit - before,
                    _ => sum + (limit - (before - lost)).max(0) - lost,
                };
                return (left.collect(), more.max(0));
            }
            let mut due = beyond(before + self.used[n as usize]) - beyond(before);
            charged.push(self.used[n as usize]);
            for at in order {
                let drawn = due.min(balances[at]);
                balances[at] -= drawn;
                due -= drawn;
                charged[n as usize] -= drawn;
            }
            lost.push(due);
        }
        unreachable!("the last hour returns")
    }

    fn renew(&self, balances: &mut [i64], n: i64) {
        for (grant, balance) in self.grants.iter().zip(balances) {
            let amount = (grant.amount.parts() / UNIT) as i64;
            let anew = match grant.recurrence {
                None => false,
                Some(LimitPeriod::Hour) => true,
                Some(LimitPeriod::Day) => n % 24 == 0,
                // The epoch was a Thursday.
                Some(LimitPeriod::Week) => (n - 4 * 24) % (7 * 24) == 0,
                Some(other) => panic!("{other:?}"),
            };
            if grant.effective_at == Some(hour(n)) {
                *balance = amount;
            } else if anew {
                let most = grant.rollover_max.map_or(0, |most| (most.parts() / UNIT) as i64);
                *balance = amount + (*balance).min(most);
            }
        }
    }

    fn order(&self, n: i64) -> Vec<usize> {
        let active = |grant: &Grant| {
            let ends = [grant.expires_at, grant.deleted_at];
            grant.effective_at.unwrap() <= hour(n) && ends.into_iter().flatten().all(|end| hour(n) < end)
        };
        let mut order: Vec<_> = (0..self.grants.len())
            .filter(|at| active(&self.grants[*at]))
            .collect();
        order.sort_by_key(|at| {
            let grant = &self.grants[*at];
            let again = match grant.recurrence {
                None => i64::MAX / HOUR_US,
                Some(LimitPeriod::Hour) => n + 1,
                Some(LimitPeriod::Day) => n - n % 24 + 24,
                Some(_) => n - (n + 3 * 24) % (7 * 24) + 7 * 24,
            };
            // When it was taken back changes nothing of what was drawn before.
            let end = grant.expires_at.unwrap_or(Timestamp::MAX).min(hour(again));
            (grant.priority, end, grant.effective_at, &grant.id)
        });
        order
    }
}

/// The world as a plan sees it.
#[derive(Clone)]
struct Seen(World);

impl Course for Seen {
    fn allowance_at(&self, at: Timestamp) -> Allowance {
        let (kind, next) = self.0.kind_at(at.micros() / HOUR_US);
        let (window, limit) = match kind {
            Kind::Days(limit) => (Some(Zone::UTC.window(CalendarUnit::Day, at)), limit),
            Kind::Ever(limit) => (Some(TimeRange::ALL), limit),
            Kind::Unlimited => (None, 0),
        };
        let limit = Quantity::from_units(limit);
        let change = next.map_or(Timestamp::MAX, hour);
        Allowance {
            bound: window.map(|window| Bound { window, limit }),
            covers: window.is_none(),
            cut: false,
            until: window.map_or(change, |window| window.end.min(change)),
        }
    }

    fn recurrence(&self, period: LimitPeriod, at: Timestamp) -> TimeRange {
        Zone::UTC.window(CalendarUnit::of_limit(period).unwrap(), at)
    }
}

fn grant() -> impl Strategy<Value = Grant> {
    let recurrence = prop_oneof![
        3 => Just(None),
        3 => Just(Some(LimitPeriod::Hour)),
        2 => Just(Some(LimitPeriod::Day)),
        1 => Just(Some(LimitPeriod::Week)),
    ];
    let deleted = prop_oneof![2 => Just(None), 1 => (1i64..100).prop_map(Some)];
    let times = (0..HOURS, prop::option::of(1i64..100), deleted);
    (1i64..30, times, recurrence, prop::option::of(0i64..20), 0u8..3).prop_map(
        |(amount, (from, hours, deleted), recurrence, rollover, priority)| Grant {
            id: String::new(),
            customer: "acme".to_owned(),
            feature: "tokens".to_owned(),
            amount: Quantity::from_units(amount),
            priority,
            effective_at: Some(hour(from)),
            expires_at: hours.map(|hours| hour(from + hours)),
            recurrence,
            rollover_max: rollover
                .filter(|_| recurrence.is_some())
                .map(Quantity::from_units),
            deleted_at: deleted.map(|hours| hour(from + hours)),
        },
    )
}

fn world() -> impl Strategy<Value = World> {
    let kind = prop_oneof![
        3 => (0i64..40).prop_map(Kind::Days),
        2 => (0i64..200).prop_map(Kind::Ever),
        1 => Just(Kind::Unlimited),
    ];
    let changes = prop::collection::btree_map(1..HOURS, kind.clone(), 0..5);
    let used = prop::collection::vec(prop_oneof![3 => Just(0i64), 2 => 0i64..12], HOURS as usize);
    (prop::collection::vec(grant(), 1..7), kind, changes, used).prop_map(
        |(mut grants, first, changes, used)| {
            for (n, grant) in grants.iter_mut().enumerate() {
                grant.id = format!("g{n}");
            }
            World {
                grants,
                kinds: [(0, first)].into_iter().chain(changes).collect(),
                used,
            }
        },
    )
}

proptest! {
    /// What is not followed any more changes nothing, whatever was used when.
    #[test]
    fn a_plan_says_what_a_count_from_the_first_hour_says(world in world(), now in 1..HOURS) {
        let (left, more) = world.left(now);
        let Some(plan) = GrantPlan::new(in_one(&world.grants, Seen(world.clone())), hour(now)) else {
            prop_assert!(left.is_empty());
            return Ok(());
        };
        let ranges: Vec<_> = plan.past_of(0).iter().map(|segment| segment.range).collect();
        prop_assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
        let used: Vec<_> = ranges.iter().map(|range| world.used_in(*range)).collect();
        let standing = plan.standing(&[used]);
        let bound = plan.current().bound;
        let total = bound.map(|bound| world.used_in(TimeRange::new(bound.window.start, hour(now))));
        let found = plan.left(&standing, total.unwrap_or_default(), Quantity::ZERO).into_iter();
        let found: Vec<_> = found.map(|(grant, left)| (grant.id.clone(), (left.parts() / UNIT) as i64)).collect();
        prop_assert_eq!(found, left);
        if let (Some(bound), Some(total)) = (bound, total) {
            let remaining = bound.limit.parts() + plan.extra(&standing, Some(bound.limit), Quantity::ZERO).parts() - total.parts();
            prop_assert_eq!(remaining.max(0), Quantity::from_units(more).parts());
        }
    }
}
