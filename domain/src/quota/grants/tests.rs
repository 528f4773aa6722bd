use super::*;
use crate::quantity::Quantity;
use crate::quota::course::Allowance;
use crate::time::{CalendarUnit, MINUTE_US, Zone};

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
        deleted_at: None,
    }
}

/// What a function says, with the calendar of UTC.
struct Given<F>(F);

impl<F: Fn(Timestamp) -> Allowance> Course for Given<F> {
    fn allowance_at(&self, at: Timestamp) -> Allowance {
        self.0(at)
    }

    fn recurrence(&self, period: LimitPeriod, at: Timestamp) -> TimeRange {
        Zone::UTC.window(CalendarUnit::of_limit(period).unwrap(), at)
    }
}

fn within(window: TimeRange, limit: i64, until: Timestamp) -> Allowance {
    let limit = Quantity::from_units(limit);
    Allowance {
        bound: Some(Bound { window, limit }),
        covers: false,
        cut: false,
        until: window.end.min(until),
    }
}

fn day_of(at: Timestamp) -> TimeRange {
    Zone::UTC.window(CalendarUnit::Day, at)
}

/// All in one pool, whose customer always had its own.
pub(super) fn in_one<C>(grants: &[Grant], course: C) -> Pools<C> {
    let stays = vec![Stay {
        range: TimeRange::ALL,
        pool: Some(0),
    }];
    let placed = |grant: &Grant| Placed {
        grant: Arc::new(grant.clone()),
        stays: stays.clone(),
    };
    Pools {
        grants: grants.iter().map(placed).collect(),
        pools: vec![Pool {
            course,
            providers: stays.clone(),
            until: Timestamp::MAX,
        }],
    }
}

fn units<const N: usize>(used: [i64; N]) -> [Vec<Quantity>; 1] {
    [used.map(Quantity::from_units).to_vec()]
}

/// Days of 10 each.
fn plan(grants: &[Grant], now: Timestamp) -> Option<GrantPlan<impl Course + use<>>> {
    let days = Given(|at| within(day_of(at), 10, Timestamp::MAX));
    GrantPlan::new(in_one(grants, days), now)
}

fn left(plan: &GrantPlan<impl Course>, used: &[i64]) -> Vec<(String, String)> {
    let used: Vec<_> = used.iter().map(|n| Quantity::from_units(*n)).collect();
    let left = plan
        .left(&plan.standing(&[used]), Quantity::ZERO, Quantity::ZERO)
        .into_iter();
    left.map(|(grant, left)| (grant.id.clone(), left.to_string()))
        .collect()
}

/// By how much the limits are raised, of which `ceiling` is granted without grants, in units.
fn extra(plan: &GrantPlan<impl Course>, used: &[i64], ceiling: i64) -> i128 {
    let used = used.iter().map(|n| Quantity::from_units(*n)).collect();
    let ceiling = Some(Quantity::from_units(ceiling));
    let extra = plan.extra(&plan.standing(&[used]), ceiling, Quantity::ZERO);
    extra.parts() / crate::quantity::UNIT
}

#[test]
fn what_nothing_covered_is_given_by_no_later_grant() {
    let mut hourly = grant("h", 1, 0, None);
    hourly.recurrence = Some(LimitPeriod::Hour);
    let plan = plan(&[hourly], day(0).plus_micros(DAY_US / 8)).unwrap();
    assert_eq!(
        past(&plan).len(),
        3,
        "all of the day, though each hour begins anew"
    );
    // The first hour uses its own grant and all that is granted beyond; the others add one each, where it was drawn.
    assert_eq!(extra(&plan, &[16, 0, 0], 15), 2);
    assert_eq!(extra(&plan, &[16, 1, 1], 15), 4);
    assert_eq!(extra(&plan, &[10, 0, 9], 15), 2);
    assert_eq!(extra(&plan, &[10, 0, 0], 15), 1);
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
    assert_eq!(past(&plan).len(), 1);
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
    assert_eq!(extra(&plan, &[100], 10), 0);
}

#[test]
fn a_recurring_grant_is_given_anew_with_at_most_its_rollover() {
    let mut weekly = grant("w", 5, 4, None); // 5 January 1970 was a Monday.
    weekly.recurrence = Some(LimitPeriod::Week);
    weekly.rollover_max = Some(Quantity::from_units(2));
    let plan = plan(std::slice::from_ref(&weekly), day(12)).unwrap();
    assert_eq!(past(&plan).len(), 8);
    assert_eq!(left(&plan, &[0; 8]), pairs(&[("w", "7")]));
    assert_eq!(left(&plan, &[11, 0, 13, 0, 0, 0, 0, 0]), pairs(&[("w", "6")]));
    assert_eq!(left(&plan, &[11, 0, 13, 0, 0, 0, 0, 15]), pairs(&[("w", "1")]));
    weekly.rollover_max = None;
    let plan = self::plan(&[weekly], day(12)).unwrap();
    assert_eq!(left(&plan, &[0; 8]), pairs(&[("w", "5")]));
}

#[test]
fn what_a_window_used_before_a_grant_began_is_not_drawn_from_it() {
    let mut noon = grant("g", 5, 3, None);
    noon.effective_at = Some(day(3).plus_micros(DAY_US / 2));
    let now = day(3).plus_micros(DAY_US * 3 / 4);
    let plan = plan(&[noon], now).unwrap();
    assert_eq!(past(&plan).len(), 1);
    assert_eq!(plan.current().range.end, day(4));
    // Whether 13 of 10 were used in the morning or 4: the grant raises the limit by what it gives.
    assert_eq!([extra(&plan, &[13], 10), extra(&plan, &[4], 10)], [5, 5]);
}

#[test]
fn what_is_left_now_falls_with_what_the_window_uses_beyond_its_allowance() {
    let grants = [grant("a", 5, 3, Some(8)), grant("b", 5, 3, None)];
    let plan = plan(&grants, day(4)).unwrap();
    let left = |total: i64| {
        let left = plan.left(
            &plan.standing(&units([12])),
            Quantity::from_units(total),
            Quantity::ZERO,
        );
        left.iter().map(|(_, left)| left.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(left(10), ["3", "5"]);
    assert_eq!(left(14), ["0", "4"]);
    assert_eq!(left(100), ["0", "0"]);
}

/// Days of 10 each until day 5, and nothing but grants from there on.
fn ended_on_the_fifth(now: Timestamp) -> GrantPlan<impl Course> {
    let course = Given(|at| {
        if at < day(5) {
            return within(day_of(at), 10, day(5));
        }
        within(TimeRange::ALL, 0, Timestamp::MAX)
    });
    GrantPlan::new(in_one(&[grant("g", 5, 3, None)], course), now).unwrap()
}

fn past(plan: &GrantPlan<impl Course>) -> Vec<TimeRange> {
    plan.past_of(0).iter().map(|segment| segment.range).collect()
}

#[test]
fn the_end_of_a_subscription_draws_nothing_that_its_windows_covered() {
    let plan = ended_on_the_fifth(day(6));
    // The window that goes on for ever counts what was used before the grant too.
    assert_eq!(
        past(&plan),
        [
            TimeRange::new(TimeRange::ALL.start, day(3)),
            TimeRange::new(day(3), day(4)),
            TimeRange::new(day(4), day(5))
        ]
    );
    let extra = |used: [i64; 3]| extra(&plan, &used, 0);
    assert_eq!(extra([70, 10, 9]), 94);
    assert_eq!(extra([70, 10, 12]), 95, "two were drawn");
    let left = plan.left(
        &plan.standing(&units([0, 10, 12])),
        Quantity::from_units(24),
        Quantity::ZERO,
    );
    assert_eq!(left[0].1, Quantity::from_units(1));
}

#[test]
fn a_window_that_begins_within_a_segment_counts_its_own_part() {
    // Nothing but grants until the third, then months: January's allowance counts what January used before.
    let course = Given(|at| {
        if at < day(3) {
            return within(TimeRange::ALL, 0, day(3));
        }
        within(TimeRange::new(day(1), day(31)), 10, Timestamp::MAX)
    });
    let plan = GrantPlan::new(in_one(&[grant("g", 5, 0, None)], course), day(4)).unwrap();
    let changed = day(3).plus_micros(MINUTE_US);
    assert_eq!(
        past(&plan),
        [
            TimeRange::new(day(0), day(1)),
            TimeRange::new(day(1), day(3)),
            TimeRange::new(day(3), changed)
        ]
    );
    let extra = |used: [i64; 3]| extra(&plan, &used, 10);
    assert_eq!(extra([1, 1, 0]), 4, "one that it covered, and three");
    assert_eq!(
        extra([1, 13, 0]),
        4,
        "the grant covered four of January, which has one of its ten left"
    );
}

#[test]
fn the_minute_of_a_change_draws_what_neither_side_covers() {
    // 100 a month until the third, at noon; then 10 a day, and from the fifth at noon on nothing but grants.
    let (lower, end) = (day(3).plus_micros(DAY_US / 2), day(5).plus_micros(DAY_US / 2));
    let month = TimeRange::new(day(0), day(31));
    let course = Given(|at| match at {
        at if at < lower => within(month, 100, lower),
        at if at < end => within(day_of(at), 10, end),
        _ => within(TimeRange::ALL, 0, Timestamp::MAX),
    });
    let plan = GrantPlan::new(in_one(&[grant("g", 50, 1, None)], course), day(6)).unwrap();
    let minute = |at: Timestamp| TimeRange::new(at, at.plus_micros(MINUTE_US));
    let ranges = past(&plan);
    let left = |uses: &[(Timestamp, i64)]| {
        let used = |range: &TimeRange| {
            let uses = uses.iter().filter(|(at, _)| range.contains(*at));
            Quantity::from_units(uses.map(|(_, used)| used).sum())
        };
        let used: Vec<_> = ranges.iter().map(used).collect();
        plan.left(&plan.standing(&[used]), Quantity::ZERO, Quantity::ZERO)[0]
            .1
            .parts()
            / crate::quantity::UNIT
    };
    assert!(ranges.contains(&minute(lower)) && ranges.contains(&minute(end)));
    assert_eq!(left(&[(day(2), 60), (lower, 30)]), 50, "the month covered it");
    assert_eq!(
        left(&[(day(2), 95), (lower, 30)]),
        30,
        "both days and month: 20 of 10"
    );
    assert_eq!(
        left(&[(minute(lower).end, 30)]),
        30,
        "a minute later the day counts"
    );
    assert_eq!(
        left(&[(end, 9)]),
        50,
        "the day covered what was used in the minute of its end"
    );
    assert_eq!(left(&[(end, 19)]), 41);
    let nothing = plan.standing(&[vec![Quantity::ZERO; ranges.len()]]);
    let later = plan.left(&nothing, Quantity::from_units(9), Quantity::ZERO);
    assert_eq!(
        later[0].1,
        Quantity::from_units(41),
        "a minute later nothing else covers it"
    );
}

fn hourly(id: &str, from: i64, until: i64) -> Grant {
    Grant {
        recurrence: Some(LimitPeriod::Hour),
        ..grant(id, 1, from, Some(until))
    }
}

#[test]
fn what_began_anew_since_is_not_followed() {
    let mut grants: Vec<_> = (0..10)
        .map(|n| hourly(&n.to_string(), n * 366, n * 366 + 366))
        .collect();
    let now = day(9 * 366 + 100).plus_micros(DAY_US / 2);
    assert_eq!(
        past(&plan(&grants, now).unwrap()).len(),
        12,
        "the hours of the day"
    );
    grants.push(grant("kept", 5, 9 * 366 + 99, None));
    assert_eq!(
        past(&plan(&grants, now).unwrap()).len(),
        36,
        "hours since the other began"
    );
    // Ten years of hours under a grant that lasts decide about it, however many they are.
    grants.push(grant("old", 1_000, 0, None));
    let plan = plan(&grants, now).unwrap();
    assert_eq!(past(&plan).len(), (9 * 366 + 100) * 24 + 12);
    // Fifty days of two an hour: five hours are the day's allowance, of the others each has one of its own grant.
    let used = vec![Quantity::from_units(2); 50 * 24];
    let left = plan.left(&plan.standing(&[used]), Quantity::ZERO, Quantity::ZERO);
    let old = left.iter().find(|(grant, _)| grant.id == "old").unwrap();
    assert_eq!(old.1, Quantity::from_units(1_000 - 50 * 19));
}

#[test]
fn without_a_grant_that_counts_there_is_no_plan() {
    assert!(plan(&[grant("g", 5, 3, None)], day(2)).is_none());
    assert!(plan(&[grant("g", 5, 3, Some(5))], day(5)).is_none());
    assert!(plan(&[grant("g", 5, 3, Some(5))], day(4)).is_some());
}

#[test]
fn when_grants_give_enough_again_is_known_ahead() {
    const HOUR_US: i64 = DAY_US / 24;
    let filling = Grant {
        rollover_max: Some(Quantity::from_units(500)),
        ..hourly("filling", 0, 365)
    };
    let now = day(3).plus_micros(HOUR_US / 2);
    let gives = |grants: &[Grant], used: i64, more: i64| {
        let plan = plan(grants, now).unwrap();
        let used = plan
            .past_of(0)
            .iter()
            .map(|_| Quantity::from_units(used))
            .collect();
        let left = plan.left(&plan.standing(&[used]), Quantity::ZERO, Quantity::ZERO);
        let mut ahead = plan.ahead(left, now);
        let wanted = ahead.left() + Quantity::from_units(more).parts();
        loop {
            let at = ahead.next()?;
            ahead.pass(at);
            if ahead.left() >= wanted {
                return Some((at.micros() - day(3).micros()) / HOUR_US);
            }
        }
    };
    let once = grant("once", 5, 0, None);
    assert_eq!(gives(std::slice::from_ref(&once), 0, 1), None);
    let both = [once, filling.clone()];
    // Much was used, so that nothing is left but what each hour gives.
    assert_eq!(gives(&both, 1_000, 1), Some(1));
    assert_eq!(gives(&both, 1_000, 20), Some(20));
    assert_eq!(gives(&both, 1_000, 300), Some(300));
    assert_eq!(gives(&both, 1_000, 501), None);
    let ending = Grant {
        expires_at: Some(day(4)),
        ..filling
    };
    assert_eq!(gives(std::slice::from_ref(&ending), 1_000, 23), Some(23));
    assert_eq!(gives(&[ending], 1_000, 24), None, "it ends before");
}
