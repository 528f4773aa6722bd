//! What is left of grants: the segments' usage, drawn one behind the other.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::{GrantPlan, Held, Segment, Timed};
use crate::catalog::{Grant, LimitPeriod};
use crate::quantity::Quantity;
use crate::quota::course::{Bound, Course};
use crate::time::{TimeRange, Timestamp};

/// What past segments left of each grant, and what the first pool used in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// By the place of the grant in the plan.
    balances: Vec<Balance>,
    sums: Sums,
    /// What another pool's window was charged before the current segment, where its bound holds in it too.
    held: Option<(Bound, i128)>,
}

/// Of one pool, what was used up to each of its segments that are told, and up to the end of the last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sums {
    used: Vec<i128>,
    /// Of that, what no grant covered: it stands against the allowances.
    charged: Vec<i128>,
}

/// What was used of a window before a segment, and how much of it no grant covered.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    used: i128,
    charged: i128,
}

/// What was left of a grant when it was last drawn on, and how often it had been given anew by then. What it was given
/// since is added when somebody looks: most stretches draw on nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Balance {
    parts: i128,
    turn: u32,
}

/// The place of a grant, in the order of drawing: priority, end (of it or of its recurrence), start, id.
type Ranked<'a> = (u8, Timestamp, Timestamp, &'a str, usize);

/// What of `used` is beyond a bound whose window was `charged` before it.
fn beyond(bound: Bound, charged: i128, used: i128) -> i128 {
    let beyond = |total: i128| total.saturating_sub(bound.limit.parts()).max(0);
    beyond(charged.saturating_add(used)).saturating_sub(beyond(charged))
}

impl Sums {
    fn new() -> Self {
        Self {
            used: vec![0],
            charged: vec![0],
        }
    }

    fn push(&mut self, used: i128, drawn: i128) {
        let last = |sums: &[i128]| sums.last().copied().unwrap_or(0);
        let charged = last(&self.charged).saturating_add(used.saturating_sub(drawn));
        self.used.push(last(&self.used).saturating_add(used));
        self.charged.push(charged);
    }

    /// Between two of the segments.
    fn between(&self, from: usize, until: usize) -> Before {
        let of = |sums: &[i128]| sums[until.min(sums.len() - 1)] - sums[from.min(until).min(sums.len() - 1)];
        Before {
            used: of(&self.used),
            charged: of(&self.charged),
        }
    }
}

impl<C: Course> GrantPlan<C> {
    /// What is left when `used` was used in the past segments of each pool.
    pub fn standing(&self, used: &[Vec<Quantity>]) -> Standing {
        let given = |one: &Timed| Balance {
            parts: one.grant.amount.parts(),
            turn: 0,
        };
        let mut balances: Vec<_> = self.grants.iter().map(given).collect();
        let mut sums = vec![Sums::new(); self.segments.len()];
        for (pool, at) in self.by_time() {
            let segment = &self.segments[pool][at];
            let used_of = |pool: usize, at: usize| {
                used.get(pool)
                    .and_then(|used| used.get(at))
                    .map_or(0, |used| used.parts())
            };
            let own = used_of(pool, at);
            let held = self
                .held_by_other(pool, segment, &sums)
                .map(|(other, bound, charged)| {
                    let held = self.place(other, segment.range.start)..self.place(other, segment.range.end);
                    beyond(bound, charged, held.map(|at| used_of(other, at)).sum())
                });
            let due = self.due(pool, &sums[pool], segment, own);
            let drawn = self.draw(
                &mut balances,
                pool,
                segment,
                held.map_or(due, |held| due.min(held)),
            );
            sums[pool].push(own, drawn);
        }
        let held = self.held_by_other(0, &self.current(), &sums);
        Standing {
            balances,
            held: held.map(|(_, bound, charged)| (bound, charged)),
            sums: sums.swap_remove(0),
        }
    }

    /// The bound of another pool that holds in a segment too, with what its window was charged before.
    fn held_by_other(&self, pool: usize, segment: &Segment, sums: &[Sums]) -> Option<(usize, Bound, i128)> {
        match segment.held {
            Held::Within(other, bound) if other != pool => {
                let before = self.before(other, &sums[other], bound, segment.range.start);
                Some((other, bound, before.charged))
            }
            _ => None,
        }
    }

    /// In the minute of a change, the pool whose usage in it decides as well, for its bound held before.
    pub fn held_elsewhere(&self) -> Option<(&C, TimeRange)> {
        match self.current().held {
            Held::Within(other, _) if other != 0 => {
                Some((&self.pools.pools[other].course, self.current().range))
            }
            _ => None,
        }
    }

    /// The past segments of all pools, by pool and place in it, in the order of their beginning.
    fn by_time(&self) -> Vec<(usize, usize)> {
        let pools = 0..self.segments.len();
        let places = pools.flat_map(|pool| (0..self.past_of(pool).len()).map(move |at| (pool, at)));
        let mut places: Vec<_> = places.collect();
        if self.segments.len() > 1 {
            places.sort_by_key(|(pool, at)| self.segments[*pool][*at].range.start);
        }
        places
    }

    /// By how much the limits of the current window, in which `used` was used, are raised: what is left of the grants at
    /// the start of the current segment, what grants covered of the window before, and what the window used beyond the
    /// allowance without drawing on them: before they counted, and in the minute of a change what was covered by what held
    /// before. Where no grant counts any more, it is what they covered. `held` is what the pool of [`Self::held_elsewhere`] used in that minute.
    pub fn extra(&self, standing: &Standing, used: Quantity, held: Quantity) -> Quantity {
        let current = self.current();
        let balances = self.active(0, current);
        let balances = balances.map(|at| self.balance(&standing.balances, at, &current));
        let left = balances.reduce(i128::saturating_add);
        let beyond = current.bound.map_or(0, |bound| {
            let before = self.before(0, &standing.sums, bound, current.range.start);
            let drawn = before.used.saturating_sub(before.charged);
            if left.is_none() {
                return drawn;
            }
            let now = used.parts().saturating_sub(before.used);
            let due = self.due_now(standing, used, held);
            let covered = beyond(bound, before.charged, now).saturating_sub(due);
            let uncovered = before.charged.saturating_sub(bound.limit.parts()).max(0);
            drawn.saturating_add(uncovered).saturating_add(covered.max(0))
        });
        let parts = beyond.saturating_add(left.unwrap_or(0));
        Quantity::from_parts(parts.max(0)).unwrap_or(Quantity::MAX)
    }

    /// What is left now of each active grant, in the order of drawing, when `total` was used in the current window, what
    /// is reserved included, and `held` in the pool of [`Self::held_elsewhere`].
    pub fn left(&self, standing: &Standing, total: Quantity, held: Quantity) -> Vec<(Arc<Grant>, Quantity)> {
        let current = self.current();
        let mut balances = standing.balances.clone();
        let due = self.due_now(standing, total, held);
        self.draw(&mut balances, 0, &current, due);
        let mut order: Vec<_> = self.ranked(0, current).collect();
        order.sort_unstable();
        let left = |at| Quantity::from_parts(self.balance(&balances, at, &current)).unwrap_or(Quantity::MAX);
        order
            .into_iter()
            .map(|(.., at)| (Arc::clone(&self.grants[at].grant), left(at)))
            .collect()
    }

    /// What grants covered since `start`, up to now, when there is used what [`Self::left`] is told; of the stretch that
    /// `start` cuts, nothing.
    pub fn drawn_since(
        &self,
        standing: &Standing,
        start: Timestamp,
        total: Quantity,
        held: Quantity,
    ) -> Quantity {
        let current = self.current();
        let sums = &standing.sums;
        let before = sums.between(self.place(0, start), self.place(0, current.range.start));
        let now = if start <= current.range.start {
            let mut balances = standing.balances.clone();
            self.draw(&mut balances, 0, &current, self.due_now(standing, total, held))
        } else {
            0
        };
        let drawn = before.used.saturating_sub(before.charged).saturating_add(now);
        Quantity::from_parts(drawn.max(0)).unwrap_or(Quantity::MAX)
    }

    /// What the current segment draws on grants when `total` was used in its window.
    fn due_now(&self, standing: &Standing, total: Quantity, held: Quantity) -> i128 {
        let current = self.current();
        let before = current.bound.map_or(0, |bound| {
            self.before(0, &standing.sums, bound, current.range.start).used
        });
        let due = self.due(0, &standing.sums, &current, total.parts().saturating_sub(before));
        let held = standing
            .held
            .map(|(bound, charged)| beyond(bound, charged, held.parts()));
        held.map_or(due, |held| due.min(held))
    }

    /// What a segment that used `used` draws on grants: what neither its bound nor the one that held in the minute of a
    /// change covers, as far as it was the same pool's.
    fn due(&self, pool: usize, sums: &Sums, segment: &Segment, used: i128) -> i128 {
        if segment.held == Held::Wholly || used <= 0 {
            return 0;
        }
        let held = match segment.held {
            Held::Within(other, bound) if other == pool => Some(bound),
            _ => None,
        };
        let bounds = segment.bound.into_iter().chain(held).map(|bound| {
            let before = self.before(pool, sums, bound, segment.range.start);
            beyond(bound, before.charged, used)
        });
        bounds.min().unwrap_or(0)
    }

    /// What the window of `bound` had used of a pool's when the segment that begins at `at` began.
    fn before(&self, pool: usize, sums: &Sums, bound: Bound, at: Timestamp) -> Before {
        sums.between(self.place(pool, bound.window.start), self.place(pool, at))
    }

    /// How many segments of a pool begin before `at`.
    fn place(&self, pool: usize, at: Timestamp) -> usize {
        self.segments[pool].partition_point(|one| one.range.start < at)
    }

    /// Draws up to `due`; returns how much there was.
    fn draw(&self, balances: &mut [Balance], pool: usize, segment: &Segment, mut due: i128) -> i128 {
        if due <= 0 {
            return 0;
        }
        let all = due;
        let mut order: BinaryHeap<Reverse<Ranked<'_>>> = self.ranked(pool, *segment).map(Reverse).collect();
        while due > 0
            && let Some(Reverse((.., at))) = order.pop()
        {
            let left = self.balance(balances, at, segment);
            let drawn = left.min(due);
            balances[at] = Balance {
                parts: left - drawn,
                turn: self.grants[at].turn(segment),
            };
            due -= drawn;
        }
        all - due
    }

    /// What is left of a grant in a segment in which it is active, before the segment draws on it.
    fn balance(&self, balances: &[Balance], at: usize, segment: &Segment) -> i128 {
        let (grant, balance) = (&self.grants[at].grant, balances[at]);
        let turns = self.grants[at].turn(segment).saturating_sub(balance.turn);
        if turns == 0 {
            return balance.parts;
        }
        // Each time: the amount, and of what was left at most the rollover. Nothing was drawn in between.
        let (amount, most) = (
            grant.amount.parts(),
            grant.rollover_max.map_or(0, Quantity::parts),
        );
        let given = amount.saturating_mul(i128::from(turns));
        let all = balance.parts.saturating_add(given);
        all.min(amount.saturating_add(most.max(0)))
    }

    /// The grants that are active in a segment of a pool.
    fn active(&self, pool: usize, Segment { range, .. }: Segment) -> impl Iterator<Item = usize> + '_ {
        let grants = self.grants.iter().zip(0..);
        grants
            .filter(move |(one, _)| one.is_in(pool, range.start))
            .map(|(_, at)| at)
    }

    /// The same with what decides about their order.
    fn ranked(&self, pool: usize, segment: Segment) -> impl Iterator<Item = Ranked<'_>> + '_ {
        let start = segment.range.start;
        let mut ends: Vec<(LimitPeriod, Timestamp)> = Vec::new();
        self.active(pool, segment).map(move |at| {
            let one = &self.grants[at];
            let renewal = one.period().map_or(Timestamp::MAX, |period| {
                let known = ends.iter().find(|(known, _)| *known == period);
                if let Some((_, end)) = known {
                    return *end;
                }
                let end = self.pools.pools[pool].course.recurrence(period, start).end;
                ends.push((period, end));
                end
            });
            let end = renewal.min(one.active.end);
            (
                one.grant.priority,
                end,
                one.active.start,
                one.grant.id.as_str(),
                at,
            )
        })
    }
}
