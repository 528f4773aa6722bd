//! How the grants of one level are used up.
//!
//! Usage draws on the plan's allowance of its window first, for that is lost at the window's end; only what is beyond
//! it draws on grants: smaller priority first, then earlier end (of the grant, or of its recurrence), then earlier
//! start, then id. A recurring grant is given anew at each boundary of its recurrence, with at most `rollover_max` of
//! what was left. Usage that nothing covers (plain events beyond everything) draws on no later grant.
//!
//! What is left is a function of the usage alone, by segments: nothing is kept that could be lost or counted twice. Time
//! from before the last instant at which everything began anew takes no part; see `walk`.

mod fold;
mod walk;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::course::{Bound, Course};
use crate::catalog::{Grant, LimitPeriod};
use crate::time::{TimeRange, Timestamp};

pub use fold::Standing;
use walk::Turns;

/// A stretch of time in which neither the window nor the set of grants changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// When.
    pub range: TimeRange,
    /// Beyond what usage in it draws on grants; `None`: it draws on none.
    pub bound: Option<Bound>,
    held: Held,
    /// How often grants were given anew before it began.
    turns: Turns,
}

/// What held before, in the minute in which it changed. Changes are cut to their minute and usage is known by whole minutes,
/// so in that minute only what neither of both covers is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// Nothing changed in the segment, or a window ended with it.
    Not,
    /// This.
    Within(Bound),
    /// What drew on no grants at all.
    Wholly,
}

impl Segment {
    fn bounds(&self) -> impl Iterator<Item = Bound> + use<> {
        let held = match self.held {
            Held::Within(bound) => Some(bound),
            Held::Not | Held::Wholly => None,
        };
        self.bound.into_iter().chain(held)
    }
}

/// The grants of one level, with the segments that decide what is left of them.
pub struct GrantPlan<C> {
    /// What it was made of.
    given: Vec<Arc<Grant>>,
    course: C,
    /// Those that count at any time of the segments.
    grants: Vec<Timed>,
    segments: Vec<Segment>,
}

/// A grant with the time in which it counts.
#[derive(Debug, PartialEq, Eq)]
struct Timed {
    grant: Arc<Grant>,
    active: TimeRange,
}

impl Timed {
    /// Bounds of grants are whole minutes.
    fn new(grant: &Arc<Grant>) -> Self {
        let start = grant.effective_at.unwrap_or(Timestamp::EPOCH).floor_minute();
        let end = grant.expires_at.map_or(Timestamp::MAX, Timestamp::floor_minute);
        Self {
            grant: Arc::clone(grant),
            active: TimeRange::new(start, end),
        }
    }

    /// How often it is given anew; `None`: once.
    fn period(&self) -> Option<LimitPeriod> {
        self.grant
            .recurrence
            .filter(|period| *period != LimitPeriod::Ever)
    }
    /// How often it was given anew before a segment.
    fn turn(&self, segment: &Segment) -> u32 {
        self.period().map_or(0, |period| segment.turns.of(period))
    }
}

impl<C: Course> GrantPlan<C> {
    /// The plan of `grants` up to the segment that contains `now`; `None` when no grant has begun and not all ended.
    pub fn new(grants: &[Arc<Grant>], course: C, now: Timestamp) -> Option<Self> {
        let given = grants.to_vec();
        let mut grants: Vec<_> = grants.iter().map(Timed::new).collect();
        grants.retain(|grant| grant.active.start < grant.active.end);
        if !grants.iter().any(|grant| grant.active.start <= now)
            || grants.iter().all(|grant| grant.active.end <= now)
        {
            return None;
        }
        let from = walk::fresh_start(&grants, &course, now);
        grants.retain(|grant| grant.active.end > from);
        let segments = walk::segments(&grants, &course, from, now);
        Some(Self {
            given,
            course,
            grants,
            segments,
        })
    }

    /// Whether it is what [`Self::new`] would make.
    pub fn stands(&self, grants: &[Arc<Grant>], course: &C, now: Timestamp) -> bool
    where
        C: PartialEq,
    {
        self.current().range.contains(now) && self.given == grants && self.course == *course
    }

    /// The segments before the current one, each beginning where the one before ends: their usage decides what is left.
    pub fn past(&self) -> &[Segment] {
        &self.segments[..self.segments.len() - 1]
    }

    /// The segment that contains now.
    pub fn current(&self) -> Segment {
        self.segments[self.segments.len() - 1]
    }
}
