//! What is left of grants: the segments' usage, drawn one behind the other.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::{GrantPlan, Held, Segment, Timed};
use crate::catalog::{Grant, LimitPeriod};
use crate::quantity::Quantity;
use crate::quota::course::{Bound, Course};
use crate::time::Timestamp;

/// What past segments left of each grant, and what the current windows held before now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// By the place of the grant in the plan.
    balances: Vec<Balance>,
    /// What was used before each segment.
    before: Vec<i128>,
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

/// What of `used` is beyond a bound whose window used `before` before it.
fn beyond(bound: Bound, before: i128, used: i128) -> i128 {
    let beyond = |total: i128| total.saturating_sub(bound.limit.parts()).max(0);
    beyond(before.saturating_add(used)).saturating_sub(beyond(before))
}

impl<C: Course> GrantPlan<C> {
    /// What is left when `used` was used in the past segments.
    pub fn standing(&self, used: &[Quantity]) -> Standing {
        let mut standing = Standing {
            balances: self.grants.iter().map(|one| self.given_first(one)).collect(),
            before: Vec::with_capacity(self.segments.len()),
        };
        let mut before = 0i128;
        for (segment, at) in self.segments.iter().zip(0..) {
            standing.before.push(before);
            if let Some(used) = used.get(at).filter(|_| at < self.past().len()) {
                let due = self.due(&standing, (at, segment), used.parts());
                self.draw(&mut standing.balances, segment, due);
                before = before.saturating_add(used.parts());
            }
        }
        standing
    }

    /// By how much the limits of the current window, in which `used` was used, are raised: what is left of the grants at
    /// the start of the current segment, and what the window used beyond the allowance without drawing on them now: in
    /// its earlier segments, and in the minute of a change what was covered by what held before.
    pub fn extra(&self, standing: &Standing, used: Quantity) -> Quantity {
        let (current, at) = (self.current(), self.past().len());
        let beyond = current.bound.map_or(0, |bound| {
            let before = self.used_before(standing, at, bound);
            let now = used.parts().saturating_sub(before);
            let covered = beyond(bound, before, now).saturating_sub(self.due(standing, (at, &current), now));
            before
                .saturating_sub(bound.limit.parts())
                .max(0)
                .saturating_add(covered.max(0))
        });
        let balances = self.active(current);
        let balances = balances.map(|at| self.balance(&standing.balances, at, &current));
        let parts = balances.fold(beyond, i128::saturating_add);
        Quantity::from_parts(parts).unwrap_or(Quantity::MAX)
    }

    /// What is left now of each active grant, in the order of drawing, when `total` was used in the current window, what
    /// is held included.
    pub fn left(&self, standing: &Standing, total: Quantity) -> Vec<(Arc<Grant>, Quantity)> {
        let (current, at) = (self.current(), self.past().len());
        let before = current
            .bound
            .map_or(0, |bound| self.used_before(standing, at, bound));
        let used = total.parts().saturating_sub(before);
        let mut balances = standing.balances.clone();
        self.draw(&mut balances, &current, self.due(standing, (at, &current), used));
        let mut order: Vec<_> = self.ranked(current).collect();
        order.sort_unstable();
        let left = |at| Quantity::from_parts(self.balance(&balances, at, &current)).unwrap_or(Quantity::MAX);
        order
            .into_iter()
            .map(|(.., at)| (Arc::clone(&self.grants[at].grant), left(at)))
            .collect()
    }

    /// What a segment that used `used` draws on grants: what neither its bound nor the one that held in the minute of a
    /// change covers.
    fn due(&self, standing: &Standing, (at, segment): (usize, &Segment), used: i128) -> i128 {
        if segment.held == Held::Wholly || used <= 0 {
            return 0;
        }
        let bounds = segment.bounds().map(|bound| {
            let before = self.used_before(standing, at, bound);
            beyond(bound, before, used)
        });
        bounds.min().unwrap_or(0)
    }

    /// What the window of `bound` had used when the segment at `at` began.
    fn used_before(&self, standing: &Standing, at: usize, bound: Bound) -> i128 {
        let start = bound.window.start;
        let first = self.segments.partition_point(|one| one.range.start < start);
        standing.before[at] - standing.before[first.min(at)]
    }

    fn draw(&self, balances: &mut [Balance], segment: &Segment, mut due: i128) {
        if due <= 0 {
            return;
        }
        let mut order: BinaryHeap<Reverse<Ranked<'_>>> = self.ranked(*segment).map(Reverse).collect();
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

    /// What there is of a grant where it begins to count.
    fn given_first(&self, one: &Timed) -> Balance {
        let at = self
            .segments
            .partition_point(|segment| segment.range.end <= one.active.start);
        let first = self
            .segments
            .iter()
            .skip(at)
            .find(|segment| one.active.contains(segment.range.start));
        Balance {
            parts: one.grant.amount.parts(),
            turn: first.map_or(0, |first| one.turn(first)),
        }
    }

    /// The grants that are active in a segment.
    fn active(&self, Segment { range, .. }: Segment) -> impl Iterator<Item = usize> + '_ {
        let grants = self.grants.iter().zip(0..);
        grants
            .filter(move |(one, _)| one.active.contains(range.start))
            .map(|(_, at)| at)
    }

    /// The same with what decides about their order.
    fn ranked(&self, segment: Segment) -> impl Iterator<Item = Ranked<'_>> + '_ {
        let start = segment.range.start;
        let mut ends: Vec<(LimitPeriod, Timestamp)> = Vec::new();
        self.active(segment).map(move |at| {
            let one = &self.grants[at];
            let renewal = one.period().map_or(Timestamp::MAX, |period| {
                let known = ends.iter().find(|(known, _)| *known == period);
                if let Some((_, end)) = known {
                    return *end;
                }
                let end = self.course.recurrence(period, start).end;
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
