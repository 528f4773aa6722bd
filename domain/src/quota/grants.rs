use std::sync::Arc;

use super::Windows;
use crate::catalog::{Grant, LimitPeriod};
use crate::limits::GRANT_SEGMENTS_MAX;
use crate::problem::{Code, Problem};
use crate::quantity::Quantity;
use crate::time::{TimeRange, Timestamp};

/// What plan, add-ons and override give in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// The window.
    pub window: TimeRange,
    /// Until when this holds: at most the window's end.
    pub until: Timestamp,
    /// How much may be used in the window before grants are drawn on.
    pub limit: Quantity,
}

/// A stretch of time in which neither the window nor the set of grants changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// When.
    pub range: TimeRange,
    /// The allowance that it lies in.
    pub allowance: Allowance,
}

/// How the grants of one level are used up.
///
/// Usage draws on the plan's allowance of its window first, for that is lost at the window's end; only what is beyond
/// it draws on grants: smaller priority first, then earlier end (of the grant, or of its recurrence), then earlier
/// start, then id. A recurring grant is given anew at each boundary of its recurrence, with at most `rollover_max` of
/// what was left. Usage that nothing covers (plain events beyond everything) draws on no later grant.
///
/// What is left is a function of the usage alone, by segments: nothing is kept that could be lost or counted twice.
pub struct GrantPlan {
    grants: Vec<Timed>,
    segments: Vec<Segment>,
}

struct Timed {
    grant: Arc<Grant>,
    active: TimeRange,
    /// Starts of its later recurrences, ascending.
    renewals: Vec<Timestamp>,
}

impl GrantPlan {
    /// The plan of `grants` up to the segment that contains `now`; `None` when no grant has begun and not all ended.
    /// `allowance_at` gives what else is available at an instant, past ones included.
    pub fn new(
        grants: &[Arc<Grant>],
        windows: Windows<'_>,
        allowance_at: &dyn Fn(Timestamp) -> Allowance,
        now: Timestamp,
    ) -> Result<Option<Self>, Problem> {
        let mut grants: Vec<Timed> = grants
            .iter()
            .map(|grant| Timed::new(grant, windows, now))
            .collect::<Result<_, _>>()?;
        grants.retain(|grant| grant.active.start < grant.active.end);
        let Some(first) = grants
            .iter()
            .map(|g| g.active.start)
            .filter(|start| *start <= now)
            .min()
        else {
            return Ok(None);
        };
        if grants.iter().all(|grant| grant.active.end <= now) {
            return Ok(None);
        }
        let edges = edges(&grants);
        let (mut segments, mut from) = (Vec::new(), allowance_at(first).window.start);
        loop {
            let allowance = allowance_at(from);
            let edge = edges[edges.partition_point(|edge| *edge <= from)..].first();
            let end = edge
                .copied()
                .unwrap_or(Timestamp::MAX)
                .min(allowance.until)
                .min(allowance.window.end);
            // Every segment has some length, whatever the allowance says.
            let range = TimeRange::new(from, end.max(from.plus_micros(1)));
            segments.push(Segment { range, allowance });
            if range.contains(now) || range.end >= Timestamp::MAX {
                return Ok(Some(Self { grants, segments }));
            }
            if segments.len() >= GRANT_SEGMENTS_MAX {
                return Err(too_many());
            }
            from = range.end;
        }
    }

    /// The segments before the current one: their usage decides what is left.
    pub fn past(&self) -> &[Segment] {
        &self.segments[..self.segments.len() - 1]
    }

    /// The segment that contains now.
    pub fn current(&self) -> Segment {
        self.segments[self.segments.len() - 1]
    }

    /// What is left of each grant that is active at the start of the current segment, in the order of drawing, when
    /// `used` was used in the past segments.
    pub fn left(&self, used: &[Quantity]) -> Vec<(Arc<Grant>, Quantity)> {
        let balances = self.burn(used).0;
        let start = self.current().range.start;
        let order = self.order(start);
        let shown = order.into_iter().map(|at| (at, balances[at]));
        shown
            .map(|(at, left)| {
                (
                    self.grants[at].grant.clone(),
                    Quantity::from_parts(left).unwrap_or(Quantity::MAX),
                )
            })
            .collect()
    }

    /// By how much the limits of the current window are raised: what is left of the grants, and what earlier segments
    /// of the window used beyond the allowance.
    pub fn extra(&self, used: &[Quantity]) -> Quantity {
        let (balances, used_in_window) = self.burn(used);
        let beyond = (used_in_window - self.current().allowance.limit.parts()).max(0);
        let start = self.current().range.start;
        let active = self.order(start).into_iter().map(|at| balances[at]);
        let parts = active.fold(beyond, i128::saturating_add);
        Quantity::from_parts(parts).unwrap_or(Quantity::MAX)
    }

    /// Balances at the start of the current segment, and what its window used before it.
    fn burn(&self, used: &[Quantity]) -> (Vec<i128>, i128) {
        let mut balances = vec![0i128; self.grants.len()];
        let (mut window, mut used_in_window) = (None, 0i128);
        for (at, segment) in self.segments.iter().enumerate() {
            let start = segment.range.start;
            if window != Some(segment.allowance.window) {
                (window, used_in_window) = (Some(segment.allowance.window), 0);
            }
            for (grant, balance) in self.grants.iter().zip(&mut balances) {
                *balance = grant.balance_at(start, *balance);
            }
            let Some(used) = used.get(at).filter(|_| at + 1 < self.segments.len()) else {
                continue;
            };
            let limit = segment.allowance.limit.parts();
            let beyond = |total: i128| total.saturating_sub(limit).max(0);
            let after = used_in_window.saturating_add(used.parts());
            let mut due = (beyond(after) - beyond(used_in_window)).max(0);
            for at in self.order(start) {
                let drawn = balances[at].min(due);
                balances[at] -= drawn;
                due -= drawn;
            }
            used_in_window = after;
        }
        (balances, used_in_window)
    }

    /// The grants that are active at `at`, in the order of drawing.
    fn order(&self, at: Timestamp) -> Vec<usize> {
        let mut active: Vec<usize> = (0..self.grants.len())
            .filter(|index| self.grants[*index].active.contains(at))
            .collect();
        active.sort_by_key(|index| self.grants[*index].rank(at));
        active
    }
}

impl Timed {
    fn new(grant: &Arc<Grant>, windows: Windows<'_>, now: Timestamp) -> Result<Self, Problem> {
        let start = grant.effective_at.unwrap_or(Timestamp::EPOCH).floor_minute();
        let end = grant.expires_at.map_or(Timestamp::MAX, Timestamp::floor_minute);
        let mut renewals = Vec::new();
        if let Some(period) = grant.recurrence.filter(|period| *period != LimitPeriod::Ever) {
            let mut next = windows.containing(period, start).end;
            // One beyond now, so that the current segment ends there.
            while next < end && renewals.last().is_none_or(|last| *last <= now) {
                renewals.push(next);
                next = windows.containing(period, next).end.max(next.plus_micros(1));
                if renewals.len() >= GRANT_SEGMENTS_MAX {
                    return Err(too_many());
                }
            }
        }
        Ok(Self {
            grant: grant.clone(),
            active: TimeRange::new(start, end),
            renewals,
        })
    }

    /// Its balance at the start of a segment, from what was left at the end of the one before.
    fn balance_at(&self, start: Timestamp, left: i128) -> i128 {
        let amount = self.grant.amount.parts();
        if !self.active.contains(start) {
            0
        } else if start == self.active.start {
            amount
        } else if self.renewals.binary_search(&start).is_ok() {
            let carried = self
                .grant
                .rollover_max
                .map_or(0, |max| left.min(max.parts()).max(0));
            carried.saturating_add(amount)
        } else {
            left
        }
    }

    fn rank(&self, at: Timestamp) -> (u8, Timestamp, Timestamp, &str) {
        let renewal = self.renewals[self.renewals.partition_point(|renewal| *renewal <= at)..].first();
        let end = renewal.copied().unwrap_or(Timestamp::MAX).min(self.active.end);
        (self.grant.priority, end, self.active.start, &self.grant.id)
    }
}

fn edges(grants: &[Timed]) -> Vec<Timestamp> {
    let ends = grants
        .iter()
        .flat_map(|grant| [grant.active.start, grant.active.end]);
    let renewals = grants.iter().flat_map(|grant| grant.renewals.iter().copied());
    let mut edges: Vec<_> = ends.chain(renewals).collect();
    edges.sort_unstable();
    edges.dedup();
    edges
}

fn too_many() -> Problem {
    Problem::new(
        Code::Invalid,
        format!(
            "the grants reach back over more than {GRANT_SEGMENTS_MAX} windows: end them and grant what is left anew"
        ),
    )
}

/// Whether a grant may be kept: its amount, times, recurrence and rollover make sense. Points to the field that does not.
pub fn check_grant(grant: &Grant) -> Result<(), Problem> {
    if grant.amount <= Quantity::ZERO {
        return Err(Problem::invalid("/amount", "must be above 0"));
    }
    if grant.priority > 100 {
        return Err(Problem::invalid("/priority", "must be 0 to 100"));
    }
    if let (Some(start), Some(end)) = (grant.effective_at, grant.expires_at)
        && end.floor_minute() <= start.floor_minute()
    {
        return Err(Problem::invalid(
            "/expires_at",
            "must be at least a minute after effective_at",
        ));
    }
    if matches!(grant.recurrence, Some(LimitPeriod::Second | LimitPeriod::Minute)) {
        return Err(Problem::invalid(
            "/recurrence",
            "must be hour, day, week, month, billing or ever",
        ));
    }
    match grant.rollover_max {
        Some(max) if max.is_negative() => Err(Problem::invalid("/rollover_max", "must not be negative")),
        Some(_) if grant.recurrence.is_none() => Err(Problem::invalid(
            "/rollover_max",
            "is only for a grant with a recurrence",
        )),
        _ => Ok(()),
    }
}
