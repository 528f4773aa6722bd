//! How the grants of one customer and of those that share its entitlement are used up.
//!
//! Usage draws on the plan's allowance of its window first, for that is lost at the window's end; only what is beyond
//! it draws on grants: smaller priority first, then earlier end (of the grant, or of its recurrence), then earlier
//! start, then id. A recurring grant is given anew at each boundary of its recurrence, with at most `rollover_max` of
//! what was left. Usage that nothing covers (a grace, an overage, plain events beyond everything) draws on no later grant,
//! and stands against the limit till its window ends. What a grant covered is no part of what a window used of its
//! allowance, also where another allowance takes over within the window.
//!
//! A grant counts in one pool at a time: that of the customer whose entitlement its own customer uses. When it moves to
//! another one, what was drawn on it goes with it, so each of its units is drawn once, whatever is moved and changed.
//!
//! What is left is a function of the usage alone, by segments: nothing is kept that could be lost or counted twice. Time
//! from before the last instant at which everything began anew takes no part, save in the window of now; see `walk`.

mod ahead;
mod fold;
mod walk;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::course::{Bound, Course};
use crate::catalog::{Customer, Grant, LimitPeriod};
use crate::identity::TenantId;
use crate::port::directory::Directory;
use crate::time::{TimeRange, Timestamp};

pub use ahead::Ahead;
pub use fold::Standing;
use walk::Turns;

/// A stretch of time spent in one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stay {
    /// When.
    pub range: TimeRange,
    /// The place of the pool among [`Pools::pools`]; `None`: one that decides nothing any more.
    pub pool: Option<usize>,
}

/// A grant with the pools in which it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The grant.
    pub grant: Arc<Grant>,
    /// One behind the other, without gaps while it counts.
    pub stays: Vec<Stay>,
}

/// The usage of a customer and of all below it, with what it may use before grants are drawn on.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool<C> {
    /// What the customer was given.
    pub course: C,
    /// In whose pool the customer itself was, from the first event on without gaps: it draws on grants while in its own.
    pub providers: Vec<Stay>,
    /// Until when what it used decides about grants of the first pool.
    pub until: Timestamp,
}

/// The grants of a pool, and of all pools that their past goes through.
#[derive(Debug, Clone, PartialEq)]
pub struct Pools<C> {
    /// The first is the one that was asked about.
    pub pools: Vec<Pool<C>>,
    /// Their grants.
    pub grants: Vec<Placed>,
}

/// A stretch of time of one pool in which neither the window nor the set of grants changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// When.
    pub range: TimeRange,
    /// Beyond what usage in it draws on grants; `None`: it draws on none.
    pub bound: Option<Bound>,
    held: Held,
    /// Whether grants may count in it: not in what windows hold before the past that matters.
    draws: bool,
    /// How often grants were given anew before it began.
    turns: Turns,
}

/// What held before, in the minute in which it changed. Changes are cut to their minute and usage is known by whole minutes,
/// so in that minute only what neither of both covers is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// Nothing changed in the segment, or a window ended with it.
    Not,
    /// This, of a pool: another one where its customer got an entitlement of its own.
    Within(usize, Bound),
    /// What drew on no grants at all.
    Wholly,
}

/// The grants of one pool, with the segments that decide what is left of them.
pub struct GrantPlan<C> {
    /// What it was made of.
    pools: Pools<C>,
    /// Those that count at any time of the segments.
    grants: Vec<Timed>,
    /// By pool. The last of the first pool contains now; all others are over.
    segments: Vec<Vec<Segment>>,
}

/// A grant with the time in which it counts.
#[derive(Debug)]
struct Timed {
    grant: Arc<Grant>,
    active: TimeRange,
    stays: Vec<TimedStay>,
}

/// A stay of a grant, with how often it was given anew before.
#[derive(Debug)]
struct TimedStay {
    range: TimeRange,
    pool: Option<usize>,
    /// Before it came into the pool.
    turns: u32,
    /// What the pool's own count was then.
    first: u32,
}

/// All grants of a feature that a customer has, with those that were taken back: these ended.
pub(super) fn grants_of(
    directory: &dyn Directory,
    tenant: TenantId,
    customer: &Customer,
    feature: &str,
) -> Vec<Arc<Grant>> {
    let former = customer.former_grants.iter();
    let mut grants = directory.grants(tenant, &customer.key);
    grants.extend(former.cloned().map(Arc::new));
    grants.retain(|grant| grant.feature == feature);
    grants
}

/// The stay that contains an instant, of stays that follow one another.
fn stay_at(stays: &[Stay], at: Timestamp) -> Option<&Stay> {
    let next = stays.partition_point(|stay| stay.range.end <= at);
    stays.get(next).filter(|stay| stay.range.contains(at))
}

impl Timed {
    fn new(placed: &Placed) -> Self {
        let active = placed.grant.active_time();
        let stays = placed.stays.iter().filter_map(|stay| {
            Some(TimedStay {
                range: stay.range.intersect(&active)?,
                pool: stay.pool,
                turns: 0,
                first: 0,
            })
        });
        Self {
            grant: Arc::clone(&placed.grant),
            active,
            stays: stays.collect(),
        }
    }

    /// How often it is given anew; `None`: once.
    fn period(&self) -> Option<LimitPeriod> {
        self.grant
            .recurrence
            .filter(|period| *period != LimitPeriod::Ever)
    }

    /// The stay that contains an instant.
    fn stay_at(&self, at: Timestamp) -> Option<&TimedStay> {
        let next = self.stays.partition_point(|stay| stay.range.end <= at);
        self.stays.get(next).filter(|stay| stay.range.contains(at))
    }

    fn is_in(&self, pool: usize, at: Timestamp) -> bool {
        self.stay_at(at).is_some_and(|stay| stay.pool == Some(pool))
    }

    /// How often it was given anew before a segment of the pool in which it was then.
    fn turn(&self, segment: &Segment) -> u32 {
        let (Some(period), Some(stay)) = (self.period(), self.stay_at(segment.range.start)) else {
            return 0;
        };
        stay.turns + segment.turns.of(period).saturating_sub(stay.first)
    }
}

impl<C: Course> GrantPlan<C> {
    /// The plan of the first of `pools` up to its segment that contains `now`; `None` when no grant counts in it now, nor did
    /// in the window of now, and nothing else held in that.
    pub fn new(pools: Pools<C>, now: Timestamp) -> Option<Self> {
        let mut grants: Vec<_> = pools.grants.iter().map(Timed::new).collect();
        grants.retain(|grant| grant.active.start < grant.active.end);
        let (from, segments) = walk::segments(&grants, &pools.pools, now);
        if from >= now && !grants.iter().any(|grant| grant.is_in(0, now)) {
            return None;
        }
        grants.retain(|grant| grant.active.end > from);
        for grant in &mut grants {
            walk::count_turns(grant, &pools.pools, &segments);
        }
        Some(Self {
            pools,
            grants,
            segments,
        })
    }

    /// Whether it is what [`Self::new`] would make of `pools` at `now`.
    pub fn stands(&self, pools: &Pools<C>, now: Timestamp) -> bool
    where
        C: PartialEq,
    {
        self.is_of(now) && self.pools == *pools
    }

    /// Whether its current segment contains `now`.
    pub fn is_of(&self, now: Timestamp) -> bool {
        self.current().range.contains(now)
    }

    /// Each pool with its segments before now, of which each begins where the one before ends: their usage decides what
    /// is left. The first is the plan's own.
    pub fn past(&self) -> impl Iterator<Item = (&C, &[Segment])> {
        let past = (0..self.segments.len()).map(|pool| self.past_of(pool));
        self.pools.pools.iter().map(|pool| &pool.course).zip(past)
    }

    fn past_of(&self, pool: usize) -> &[Segment] {
        let segments = &self.segments[pool];
        let current = usize::from(pool == 0);
        &segments[..segments.len() - current]
    }

    /// The segment that contains now.
    pub fn current(&self) -> Segment {
        let own = &self.segments[0];
        own[own.len() - 1]
    }
}
