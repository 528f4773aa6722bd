//! What grants will give while nothing is drawn on them.

use std::sync::Arc;

use super::GrantPlan;
use crate::catalog::{Grant, LimitPeriod};
use crate::quantity::Quantity;
use crate::quota::course::Course;
use crate::time::Timestamp;

/// The grants of a plan as they go on from some instant while nothing is drawn.
pub struct Ahead<'p, C> {
    course: &'p C,
    coming: Vec<Coming>,
}

struct Coming {
    grant: Arc<Grant>,
    left: i128,
    /// When it is given anew, and how often; `None`: never again.
    next: Option<(Timestamp, LimitPeriod)>,
}

impl Coming {
    /// The most that there can be of it.
    fn most(&self) -> i128 {
        let kept = self.grant.rollover_max.map_or(0, Quantity::parts).max(0);
        let given = self.next.map(|_| self.grant.amount.parts().saturating_add(kept));
        given.map_or(self.left, |given| given.max(self.left))
    }

    /// When it is next given anew so that there is more of it. Once there can be no more, that stays so till it ends.
    fn next(&self) -> Option<(Timestamp, LimitPeriod)> {
        self.next.filter(|_| self.left < self.most())
    }

    fn pass(&mut self, at: Timestamp, course: &impl Course) {
        if self.grant.ends_at().is_some_and(|end| end.floor_minute() <= at) {
            (self.left, self.next) = (0, None);
        }
        while let Some((next, period)) = self.next().filter(|(next, _)| *next <= at) {
            let left = self.left.saturating_add(self.grant.amount.parts());
            self.left = left.min(self.most());
            self.next = Some((course.recurrence(period, next).end, period));
        }
    }
}

impl<C: Course> GrantPlan<C> {
    /// Its grants from `now` on, of which `left` is left.
    pub fn ahead(&self, left: Vec<(Arc<Grant>, Quantity)>, now: Timestamp) -> Ahead<'_, C> {
        let course = &self.pools.pools[0].course;
        let coming = left.into_iter().map(|(grant, left)| {
            let period = grant.recurrence.filter(|period| *period != LimitPeriod::Ever);
            Coming {
                left: left.parts(),
                next: period.map(|period| (course.recurrence(period, now).end, period)),
                grant,
            }
        });
        Ahead {
            course,
            coming: coming.collect(),
        }
    }
}

impl<C: Course> Ahead<'_, C> {
    /// The next instant at which one is given anew so that there is more of it.
    pub fn next(&self) -> Option<Timestamp> {
        self.coming.iter().filter_map(|one| Some(one.next()?.0)).min()
    }

    /// Goes on to a later instant: some end, some are given anew.
    pub fn pass(&mut self, at: Timestamp) {
        for one in &mut self.coming {
            one.pass(at, self.course);
        }
    }

    /// What is left of all together, in parts of 10⁻¹².
    pub fn left(&self) -> i128 {
        sum(self.coming.iter().map(|one| one.left))
    }

    /// The most that there can be of all together.
    pub fn most(&self) -> i128 {
        sum(self.coming.iter().map(Coming::most))
    }
}

fn sum(parts: impl Iterator<Item = i128>) -> i128 {
    parts.fold(0, i128::saturating_add)
}
