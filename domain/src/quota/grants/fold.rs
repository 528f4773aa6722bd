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
    /// Of what was charged, what was covered by what held when it was used, and not beyond everything.
    covered: Vec<i128>,
}

/// What was used of a window before a segment, how much of it no grant covered, and how much what held then.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    used: i128,
    charged: i128,
    covered: i128,
}

impl Before {
    /// What grants covered.
    const fn drawn(self) -> i128 {
        self.used.saturating_sub(self.charged)
    }
}

/// What was left of a grant when it was last drawn on, and how often it had been given anew by then. What it was given
/// since is added when somebody looks: most stretches draw on nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Balance {
    parts: i128,
    turn: u32,
}

/// The place of a grant, in the order of drawing: priority, end (of it or of its recurrence), start, id; of two that had the
/// same id one behind the other, when each was taken back.
type Ranked<'a> = (u8, Timestamp, Timestamp, &'a str, Timestamp, usize);

/// What of `used` is beyond a bound whose window was `charged` before it.
fn beyond(bound: Bound, charged: i128, used: i128) -> i128 {
    let beyond = |total: i128| total.saturating_sub(bound.limit.parts()).max(0);
    beyond(charged.saturating_add(used)).saturating_sub(beyond(charged))
}

/// What of `covered` is above a ceiling; nothing without one.
fn above(covered: i128, ceiling: Option<Quantity>) -> i128 {
    ceiling.map_or(0, |ceiling| covered.saturating_sub(ceiling.parts()).max(0))
}

fn quantity(parts: i128) -> Quantity {
    Quantity::from_parts(parts.max(0)).unwrap_or(Quantity::MAX)
}

impl Sums {
    fn new() -> Self {
        Self {
            used: vec![0],
            charged: vec![0],
            covered: vec![0],
        }
    }

    /// Adds a segment of which `due` was beyond what held, and grants covered `drawn`.
    fn push(&mut self, used: i128, due: i128, drawn: i128) {
        let add = |sums: &mut Vec<i128>, more: i128| {
            let last = sums.last().copied().unwrap_or(0);
            sums.push(last.saturating_add(more));
        };
        add(&mut self.used, used);
        add(&mut self.charged, used.saturating_sub(drawn));
        add(&mut self.covered, used.saturating_sub(due));
    }

    /// Between two of the segments.
    fn between(&self, from: usize, until: usize) -> Before {
        let of = |sums: &[i128]| sums[until.min(sums.len() - 1)] - sums[from.min(until).min(sums.len() - 1)];
        Before {
            used: of(&self.used),
            charged: of(&self.charged),
            covered: of(&self.covered),
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
            let due = held.map_or(due, |held| due.min(held));
            let drawn = if segment.draws {
                self.draw(&mut balances, pool, segment, due)
            } else {
                0
            };
            sums[pool].push(own, due, drawn);
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

    /// By how much the limits of the current window are raised, of which at most `ceiling` is granted without grants: what
    /// grants covered of the window before the current segment, and what is left of them at its start. What was used beyond
    /// everything (a grace, an overage, plain events) stands against the limits and is given by no grant again. What was
    /// covered when it was used, by more than holds now, keeps no grant from being used; `covered` is what
    /// [`Self::covered_now`] says of the current segment.
    pub fn extra(&self, standing: &Standing, ceiling: Option<Quantity>, covered: Quantity) -> Quantity {
        let current = self.current();
        let balances = self.active(0, current);
        let balances = balances.map(|at| self.balance(&standing.balances, at, &current));
        let left = balances.reduce(i128::saturating_add);
        let raised = current.bound.map_or(0, |bound| {
            let before = self.before(0, &standing.sums, bound, current.range.start);
            match left {
                None => before.drawn(),
                // In a window without end there would be no other end of it.
                Some(_) if bound.is_endless() => before.used.saturating_add(covered.parts()),
                Some(_) => {
                    let covered = before.covered.saturating_add(covered.parts());
                    before.drawn().saturating_add(above(covered, ceiling))
                }
            }
        });
        quantity(raised.saturating_add(left.unwrap_or(0)))
    }

    /// What of the current segment, whose window has used `used`, was covered by what held before a change. It counts as
    /// it was at the change, for what is used since is held against what holds now. `None` where nothing changed. `held` is
    /// what the pool of [`Self::held_elsewhere`] used in that minute.
    pub fn covered_now(&self, standing: &Standing, used: Quantity, held: Quantity) -> Option<Quantity> {
        let current = self.current();
        let bound = current.bound.filter(|_| current.held != Held::Not)?;
        let before = self.before(0, &standing.sums, bound, current.range.start);
        let now = used.parts().saturating_sub(before.used);
        Some(quantity(now.saturating_sub(self.due_now(standing, used, held))))
    }

    /// By how much a limit of a window that began at `start`, and has used `since`, would be raised from now on, of which at
    /// most `ceiling` is granted without grants, when there is used what [`Self::left`] is told. Of a past segment that
    /// `start` cuts nothing counts.
    pub fn extra_of(
        &self,
        standing: &Standing,
        (start, since, ceiling): (Timestamp, Quantity, Quantity),
        total: Quantity,
        held: Quantity,
    ) -> Quantity {
        let current = self.current();
        let sums = &standing.sums;
        let mut window = sums.between(self.place(0, start), self.place(0, current.range.start));
        // What the current segment's window used before the part of it that counts.
        let before = if start > current.range.start {
            total.parts().saturating_sub(since.parts())
        } else {
            let bound = current.bound;
            bound.map_or(0, |bound| self.before(0, sums, bound, current.range.start).used)
        };
        let before = quantity(before);
        let drawn_of = |balances: &mut Vec<Balance>, used| {
            let due = self.due_now(standing, used, held);
            (due, self.draw(balances, 0, &current, due))
        };
        let mut balances = standing.balances.clone();
        let (due_before, drawn_before) = drawn_of(&mut balances.clone(), before);
        let (due, drawn) = drawn_of(&mut balances, total);
        let now = total.parts().saturating_sub(before.parts()).max(0);
        window.used = window.used.saturating_add(now);
        window.charged = window.charged.saturating_add(now - (drawn - drawn_before));
        window.covered = window.covered.saturating_add(now - (due - due_before));
        let balances = self
            .active(0, current)
            .map(|at| self.balance(&balances, at, &current));
        let raised = balances.reduce(i128::saturating_add).map(|left| {
            let covered = above(window.covered, Some(ceiling));
            left.saturating_add(covered)
        });
        quantity(window.drawn().saturating_add(raised.unwrap_or(0)))
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
            // Not when it was taken back: that would draw anew what was drawn before.
            let end = one
                .grant
                .expires_at
                .map_or(renewal, |end| renewal.min(end.floor_minute()));
            (
                one.grant.priority,
                end,
                one.active.start,
                one.grant.id.as_str(),
                one.grant.deleted_at.unwrap_or(Timestamp::MAX),
                at,
            )
        })
    }
}
