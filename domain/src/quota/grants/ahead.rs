//! When grants that recur will give more.

use std::sync::Arc;

use super::GrantPlan;
use crate::catalog::{Grant, LimitPeriod};
use crate::quantity::Quantity;
use crate::quota::course::Course;
use crate::time::Timestamp;

/// How many recurrences are looked at one behind the other: more are needed only where a great rollover fills up from a
/// small amount.
const RECURRENCES_MAX: usize = 100;

/// A grant as it goes on while nothing is drawn.
struct Coming<'a> {
    grant: &'a Grant,
    left: i128,
    /// When it is given anew, and how often; `None`: never again.
    next: Option<(Timestamp, LimitPeriod)>,
}

impl Coming<'_> {
    /// The most that there can be of it.
    fn most(&self) -> i128 {
        let kept = self.grant.rollover_max.map_or(0, Quantity::parts).max(0);
        let given = self.next.map(|_| self.grant.amount.parts().saturating_add(kept));
        given.map_or(self.left, |given| given.max(self.left))
    }

    /// Takes in what happens up to `at`.
    fn pass(&mut self, at: Timestamp, course: &impl Course) {
        if self.grant.ends_at().is_some_and(|end| end.floor_minute() <= at) {
            (self.left, self.next) = (0, None);
        }
        if let Some((next, period)) = self.next.filter(|(next, _)| *next <= at) {
            self.left = self
                .left
                .saturating_add(self.grant.amount.parts())
                .min(self.most());
            self.next = Some((course.recurrence(period, next).end, period));
        }
    }
}

fn sum(parts: impl Iterator<Item = i128>) -> i128 {
    parts.fold(0, i128::saturating_add)
}

impl<C: Course> GrantPlan<C> {
    /// The first instant after `now` at which the grants of which `left` is left give `more` than that together, for some
    /// were given anew; `None`: they never do while nothing else changes. Where it takes very many recurrences, an earlier
    /// instant.
    pub fn gives_at(&self, left: &[(Arc<Grant>, Quantity)], now: Timestamp, more: i128) -> Option<Timestamp> {
        let course = &self.pools.pools[0].course;
        let coming = left.iter().map(|(grant, left)| {
            let period = grant.recurrence.filter(|period| *period != LimitPeriod::Ever);
            Coming {
                grant,
                left: left.parts(),
                next: period.map(|period| (course.recurrence(period, now).end, period)),
            }
        });
        let mut coming: Vec<_> = coming.collect();
        let wanted = sum(coming.iter().map(|one| one.left)).saturating_add(more);
        let mut at = now;
        for _ in 0..RECURRENCES_MAX {
            if sum(coming.iter().map(Coming::most)) < wanted {
                return None;
            }
            at = coming.iter().filter_map(|one| Some(one.next?.0)).min()?;
            for one in &mut coming {
                one.pass(at, course);
            }
            if sum(coming.iter().map(|one| one.left)) >= wanted {
                return Some(at);
            }
        }
        Some(at)
    }
}
