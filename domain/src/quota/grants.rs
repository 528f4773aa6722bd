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
        let mut segments = segments(&edges, allowance_at, allowance_at(first).window.start, now)?;
        begin_with_window(&mut segments);
        split_at_windows(&mut segments);
        Ok(Some(Self { grants, segments }))
    }

    /// The segments before the current one: their usage decides what is left.
    pub fn past(&self) -> &[Segment] {
        &self.segments[..self.segments.len() - 1]
    }

    /// The segment that contains now.
    pub fn current(&self) -> Segment {
        self.segments[self.segments.len() - 1]
    }

    /// What is left now of each active grant, in the order of drawing, when `used` was used in the past segments and
    /// `total` in the current window, what is held included.
    pub fn left(&self, used: &[Quantity], total: Quantity) -> Vec<(Arc<Grant>, Quantity)> {
        let (mut balances, before) = self.burn(used);
        let current = self.current();
        self.draw(&mut balances, &current, before, total.parts());
        let order = self.order(current.range.start).into_iter();
        let left = |at: usize| Quantity::from_parts(balances[at]).unwrap_or(Quantity::MAX);
        order
            .map(|at| (self.grants[at].grant.clone(), left(at)))
            .collect()
    }

    /// By how much the limits of the current window are raised: what is left of the grants at the start of the current
    /// segment, and what earlier segments of the window used beyond the allowance.
    pub fn extra(&self, used: &[Quantity]) -> Quantity {
        let (balances, before) = self.burn(used);
        let current = self.current();
        let beyond = (before - current.allowance.limit.parts()).max(0);
        let active = self.order(current.range.start).into_iter().map(|at| balances[at]);
        let parts = active.fold(beyond, i128::saturating_add);
        Quantity::from_parts(parts).unwrap_or(Quantity::MAX)
    }

    /// Balances at the start of the current segment, and what its window used before it.
    fn burn(&self, used: &[Quantity]) -> (Vec<i128>, i128) {
        let mut balances = vec![0i128; self.grants.len()];
        // What was used before each segment.
        let mut before = vec![0i128];
        for (at, segment) in self.segments.iter().enumerate() {
            for (grant, balance) in self.grants.iter().zip(&mut balances) {
                *balance = grant.balance_at(segment.range.start, *balance);
            }
            let in_window = before[at] - before[self.first_of_window(segment)];
            if at + 1 == self.segments.len() {
                return (balances, in_window);
            }
            let used = used.get(at).map_or(0, |used| used.parts());
            self.draw(&mut balances, segment, in_window, in_window.saturating_add(used));
            before.push(before[at].saturating_add(used));
        }
        (balances, 0)
    }

    /// Takes from the grants what a segment used beyond its allowance, when its window had used `before` at its start and
    /// `after` at its end.
    fn draw(&self, balances: &mut [i128], segment: &Segment, before: i128, after: i128) {
        let limit = segment.allowance.limit.parts();
        let beyond = |total: i128| total.saturating_sub(limit).max(0);
        let mut due = (beyond(after) - beyond(before)).max(0);
        for at in self.order(segment.range.start) {
            let drawn = balances[at].min(due);
            balances[at] -= drawn;
            due -= drawn;
        }
    }

    /// The first segment that lies in the window of `segment`.
    fn first_of_window(&self, segment: &Segment) -> usize {
        let start = segment.allowance.window.start;
        self.segments.partition_point(|one| one.range.start < start)
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

/// The segments from `from` to the one that contains `now`.
fn segments(
    edges: &[Timestamp],
    allowance_at: &dyn Fn(Timestamp) -> Allowance,
    mut from: Timestamp,
    now: Timestamp,
) -> Result<Vec<Segment>, Problem> {
    let mut segments = Vec::new();
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
            return Ok(segments);
        }
        if segments.len() >= GRANT_SEGMENTS_MAX {
            return Err(too_many());
        }
        from = range.end;
    }
}

/// Puts what the current window holds before the first segment in front: the limit counts it too.
fn begin_with_window(segments: &mut Vec<Segment>) {
    let (Some(first), Some(current)) = (segments.first(), segments.last()) else {
        return;
    };
    let (start, end) = (current.allowance.window.start, first.range.start);
    if start < end {
        let range = TimeRange::new(start, end);
        // No grant had begun: nothing is drawn, whatever was used.
        let allowance = Allowance {
            window: range,
            until: end,
            limit: Quantity::MAX,
        };
        segments.insert(0, Segment { range, allowance });
    }
}

/// Splits segments where a later one's window begins, so that what each window used is a sum of whole segments. Only
/// where another kind of window follows does one begin within a segment.
fn split_at_windows(segments: &mut Vec<Segment>) {
    let mut starts: Vec<_> = segments.iter().map(|one| one.allowance.window.start).collect();
    starts.sort_unstable();
    starts.dedup();
    let split = segments.iter().flat_map(|segment| {
        let TimeRange { start, end } = segment.range;
        let within = |at: &Timestamp| start < *at && *at < end;
        let cuts: Vec<_> = starts[starts.partition_point(|at| *at <= start)..]
            .iter()
            .copied()
            .take_while(within)
            .collect();
        let begins = std::iter::once(start).chain(cuts.clone());
        let ends = cuts.into_iter().chain([end]);
        let allowance = segment.allowance;
        begins.zip(ends).map(move |(start, end)| Segment {
            range: TimeRange::new(start, end),
            allowance,
        })
    });
    *segments = split.collect();
}

fn too_many() -> Problem {
    Problem::new(
        Code::Invalid,
        format!(
            "the grants reach back over more than {GRANT_SEGMENTS_MAX} windows: end them and grant what is left anew"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{CalendarUnit, Zone};
    use proptest::prelude::*;

    const DAY_US: i64 = 86_400_000_000;

    fn day(n: i64) -> Timestamp {
        Timestamp::from_micros_clamped(n * DAY_US)
    }

    fn grant(id: &str, amount: i64, from: i64, until: Option<i64>) -> Grant {
        Grant {
            id: id.to_owned(),
            customer: "acme".to_owned(),
            feature: "tokens".to_owned(),
            amount: Quantity::from_units(amount),
            priority: 50,
            effective_at: Some(day(from)),
            expires_at: until.map(day),
            recurrence: None,
            rollover_max: None,
        }
    }

    /// Days of 10 each.
    fn plan(grants: &[Grant], now: Timestamp) -> Option<GrantPlan> {
        let grants: Vec<_> = grants.iter().cloned().map(Arc::new).collect();
        let windows = Windows {
            zone: &Zone::UTC,
            subscription: None,
        };
        let allowance = |at| {
            let window = Zone::UTC.window(CalendarUnit::Day, at);
            Allowance {
                window,
                until: Timestamp::MAX,
                limit: Quantity::from_units(10),
            }
        };
        GrantPlan::new(&grants, windows, &allowance, now).unwrap()
    }

    fn left(plan: &GrantPlan, used: &[i64]) -> Vec<(String, String)> {
        let used: Vec<_> = used.iter().map(|n| Quantity::from_units(*n)).collect();
        let nothing_more = Quantity::from_parts(plan.burn(&used).1).unwrap();
        let left = plan.left(&used, nothing_more).into_iter();
        left.map(|(grant, left)| (grant.id.clone(), left.to_string()))
            .collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(id, left)| ((*id).to_owned(), (*left).to_owned()))
            .collect()
    }

    #[test]
    fn smaller_priority_then_earlier_end_is_drawn_first() {
        let mut first = grant("late", 5, 0, None);
        first.priority = 0;
        let grants = [grant("z", 5, 0, Some(9)), grant("a", 5, 0, Some(8)), first];
        let plan = plan(&grants, day(1)).unwrap();
        assert_eq!(plan.past().len(), 1);
        assert_eq!(
            left(&plan, &[17]),
            pairs(&[("late", "0"), ("a", "3"), ("z", "5")])
        );
        assert_eq!(left(&plan, &[4]), pairs(&[("late", "5"), ("a", "5"), ("z", "5")]));
        // More than everything draws everything, and nothing of what comes later.
        assert_eq!(
            left(&plan, &[100]),
            pairs(&[("late", "0"), ("a", "0"), ("z", "0")])
        );
        assert_eq!(plan.extra(&[Quantity::from_units(100)]), Quantity::ZERO);
    }

    #[test]
    fn a_recurring_grant_is_given_anew_with_at_most_its_rollover() {
        let mut weekly = grant("w", 5, 4, None); // 5 January 1970 was a Monday.
        weekly.recurrence = Some(LimitPeriod::Week);
        weekly.rollover_max = Some(Quantity::from_units(2));
        let plan = plan(std::slice::from_ref(&weekly), day(12)).unwrap();
        assert_eq!(plan.past().len(), 8);
        assert_eq!(left(&plan, &[0; 8]), pairs(&[("w", "7")]));
        assert_eq!(left(&plan, &[11, 0, 13, 0, 0, 0, 0, 0]), pairs(&[("w", "6")]));
        assert_eq!(left(&plan, &[11, 0, 13, 0, 0, 0, 0, 15]), pairs(&[("w", "1")]));
        weekly.rollover_max = None;
        let plan = super::tests::plan(&[weekly], day(12)).unwrap();
        assert_eq!(left(&plan, &[0; 8]), pairs(&[("w", "5")]));
    }

    #[test]
    fn what_a_window_used_before_a_grant_began_is_not_drawn_from_it() {
        let mut noon = grant("g", 5, 3, None);
        noon.effective_at = Some(day(3).plus_micros(DAY_US / 2));
        let now = day(3).plus_micros(DAY_US * 3 / 4);
        let plan = plan(&[noon], now).unwrap();
        assert_eq!(plan.past().len(), 1);
        assert_eq!(plan.current().range.end, day(4));
        // 13 of 10 were used in the morning: the afternoon has the grant, and no more.
        assert_eq!(plan.extra(&[Quantity::from_units(13)]), Quantity::from_units(8));
        assert_eq!(plan.extra(&[Quantity::from_units(4)]), Quantity::from_units(5));
    }

    #[test]
    fn what_is_left_now_falls_with_what_the_window_uses_beyond_its_allowance() {
        let grants = [grant("a", 5, 3, Some(8)), grant("b", 5, 3, None)];
        let plan = plan(&grants, day(4)).unwrap();
        let left = |total: i64| {
            let left = plan.left(&[Quantity::from_units(12)], Quantity::from_units(total));
            left.iter().map(|(_, left)| left.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(left(10), ["3", "5"]);
        assert_eq!(left(14), ["0", "4"]);
        assert_eq!(left(100), ["0", "0"]);
    }

    /// Days of 10 each until day 5, and nothing but grants from there on.
    fn ended_on_the_fifth(now: Timestamp) -> GrantPlan {
        let windows = Windows {
            zone: &Zone::UTC,
            subscription: None,
        };
        let allowance = |at| {
            if at < day(5) {
                return Allowance {
                    window: Zone::UTC.window(CalendarUnit::Day, at),
                    until: day(5),
                    limit: Quantity::from_units(10),
                };
            }
            Allowance {
                window: TimeRange::ALL,
                until: Timestamp::MAX,
                limit: Quantity::ZERO,
            }
        };
        let grants = [Arc::new(grant("g", 5, 3, None))];
        GrantPlan::new(&grants, windows, &allowance, now)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn the_end_of_a_subscription_draws_nothing_that_its_windows_covered() {
        let plan = ended_on_the_fifth(day(6));
        let ranges: Vec<_> = plan.past().iter().map(|segment| segment.range).collect();
        // The window that goes on for ever counts what was used before the grant too.
        assert_eq!(ranges[0], TimeRange::new(TimeRange::ALL.start, day(3)));
        assert_eq!(
            ranges[1..],
            [TimeRange::new(day(3), day(4)), TimeRange::new(day(4), day(5))]
        );
        let used = |used: [i64; 3]| used.map(Quantity::from_units);
        assert_eq!(plan.extra(&used([70, 10, 9])), Quantity::from_units(94));
        assert_eq!(
            plan.extra(&used([70, 10, 12])),
            Quantity::from_units(95),
            "two were drawn"
        );
        assert_eq!(
            plan.left(&used([0, 10, 12]), Quantity::from_units(24))[0].1,
            Quantity::from_units(1)
        );
    }

    #[test]
    fn a_window_that_begins_within_a_segment_counts_its_own_part() {
        // Nothing but grants until the third, then months: January's allowance counts what January used before.
        let windows = Windows {
            zone: &Zone::UTC,
            subscription: None,
        };
        let month = TimeRange::new(day(1), day(31));
        let allowance = |at| {
            if at < day(3) {
                let (window, limit) = (TimeRange::ALL, Quantity::ZERO);
                return Allowance {
                    window,
                    until: day(3),
                    limit,
                };
            }
            let (window, limit) = (month, Quantity::from_units(10));
            Allowance {
                window,
                until: Timestamp::MAX,
                limit,
            }
        };
        let grants = [Arc::new(grant("g", 5, 0, None))];
        let plan = GrantPlan::new(&grants, windows, &allowance, day(4))
            .unwrap()
            .unwrap();
        let ranges: Vec<_> = plan.past().iter().map(|segment| segment.range).collect();
        assert_eq!(
            ranges,
            [TimeRange::new(day(0), day(1)), TimeRange::new(day(1), day(3)),]
        );
        let used = |used: [i64; 2]| used.map(Quantity::from_units);
        assert_eq!(plan.extra(&used([1, 1])), Quantity::from_units(3));
        assert_eq!(
            plan.extra(&used([1, 13])),
            Quantity::from_units(3),
            "what January used beyond its allowance"
        );
    }

    #[test]
    fn without_a_grant_that_counts_there_is_no_plan() {
        assert!(plan(&[grant("g", 5, 3, None)], day(2)).is_none());
        assert!(plan(&[grant("g", 5, 3, Some(5))], day(5)).is_none());
        assert!(plan(&[grant("g", 5, 3, Some(5))], day(4)).is_some());
    }

    #[derive(Debug, Clone)]
    struct Given {
        amount: i64,
        from: i64,
        days: Option<i64>,
        priority: u8,
        daily: bool,
        rollover: i64,
    }

    fn given() -> impl Strategy<Value = Given> {
        (
            1i64..30,
            0i64..6,
            prop::option::of(1i64..6),
            0u8..3,
            any::<bool>(),
            0i64..20,
        )
            .prop_map(|(amount, from, days, priority, daily, rollover)| Given {
                amount,
                from,
                days,
                priority,
                daily,
                rollover,
            })
    }

    proptest! {
        /// A customer takes whatever is granted, day by day: it never gets more than the days' allowances and all that
        /// was ever given, and nothing that is left is more than what was given.
        #[test]
        fn nothing_is_sold_twice(given in prop::collection::vec(given(), 1..5), wishes in prop::collection::vec(0i64..60, 10)) {
            let grants: Vec<_> = given.iter().enumerate().map(|(n, one)| Grant {
                priority: one.priority,
                recurrence: one.daily.then_some(LimitPeriod::Day),
                rollover_max: one.daily.then(|| Quantity::from_units(one.rollover)),
                ..grant(&n.to_string(), one.amount, one.from, one.days.map(|days| one.from + days))
            }).collect();
            let (mut taken, mut given_by_now) = (Vec::<i64>::new(), 0i64);
            for (today, wish) in (0i64..).zip(&wishes) {
                let active = |one: &&Given| one.from <= today && one.days.is_none_or(|days| today < one.from + days);
                let fresh = given.iter().filter(active).filter(|one| one.daily || one.from == today);
                given_by_now += fresh.map(|one| one.amount).sum::<i64>();
                let extra = match plan(&grants, day(today)) {
                    Some(plan) => {
                        // The plan's past begins with the first grant's day.
                        let past = plan.past().len();
                        let used: Vec<_> = taken[taken.len() - past..].iter().map(|n| Quantity::from_units(*n)).collect();
                        let left = plan.left(&used, Quantity::ZERO);
                        for (one, left) in &left {
                            prop_assert!(*left >= Quantity::ZERO && left.parts() <= one.amount.parts()
                                + one.rollover_max.unwrap_or_default().parts());
                        }
                        let sum = left.iter().fold(Quantity::ZERO, |sum, (_, left)| sum.checked_add(*left).unwrap());
                        prop_assert_eq!(plan.extra(&used), sum);
                        sum.parts() / crate::quantity::UNIT
                    }
                    None => 0,
                };
                let take = (*wish).min(10 + extra as i64);
                taken.push(take);
                let drawn: i64 = taken.iter().map(|taken| (taken - 10).max(0)).sum();
                prop_assert!(drawn <= given_by_now, "drew {drawn} of {given_by_now}");
            }
        }
    }
}
