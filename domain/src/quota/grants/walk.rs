//! From grants and pools to segments: where anything that decides about drawing changes.

use super::{Held, Pool, Segment, Timed, stay_at};
use crate::catalog::LimitPeriod;
use crate::quota::course::{Allowance, Bound, Course};
use crate::time::{MINUTE_US, TimeRange, Timestamp};

/// The periods with which grants recur.
const RECURRENCES: [LimitPeriod; 5] = [
    LimitPeriod::Hour,
    LimitPeriod::Day,
    LimitPeriod::Week,
    LimitPeriod::Month,
    LimitPeriod::Billing,
];

/// How often grants of each recurrence were given anew since the walk began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Turns([u32; RECURRENCES.len()]);

impl Turns {
    pub(super) fn of(&self, period: LimitPeriod) -> u32 {
        place(period).map_or(0, |at| self.0[at])
    }
}

fn place(period: LimitPeriod) -> Option<usize> {
    RECURRENCES.iter().position(|one| *one == period)
}

/// The last instant up to `now` from which on the past does not matter: whatever counts then begins then, or is given
/// anew with nothing carried over. What was used before it can change no balance any more, so it is neither walked nor
/// read, however long ago the first grant began.
fn fresh_start(grants: &[Timed], pools: &[Pool<impl Course>], now: Timestamp) -> Timestamp {
    let (carrying, renewing): (Vec<&Timed>, Vec<&Timed>) = grants.iter().partition(|one| carries(one));
    let carrying = united(carrying.iter().map(|one| one.active).collect());
    let within = |time: &TimeRange, at| time.start < at && at < time.end;
    let mut at = now;
    loop {
        let carried = carrying.iter().find(|time| within(time, at));
        let renewed = renewing.iter().filter(|one| within(&one.active, at));
        let renewed = renewed.map(|one| last_given(one, pools, at));
        let fresh = renewed.chain(carried.map(|time| time.start)).min();
        match fresh {
            Some(fresh) if fresh < at => at = fresh,
            _ => return at,
        }
    }
}

/// Whether what is left of a grant outlives its recurrence. Billing periods are followed from the start, for they are few
/// and depend on which subscription ran; so are grants that moved, for each pool has its own calendar.
fn carries(one: &Timed) -> bool {
    let kept = one.grant.rollover_max.is_some_and(|max| !max.is_zero());
    kept || one.stays.len() > 1 || matches!(one.period(), None | Some(LimitPeriod::Billing))
}

/// When a grant that recurs with the calendar was last given, up to `at`.
fn last_given(one: &Timed, pools: &[Pool<impl Course>], at: Timestamp) -> Timestamp {
    let pool = one.stays.first().and_then(|stay| pools.get(stay.pool?));
    let given = one.period().zip(pool);
    let given = given.map(|(period, pool)| pool.course.recurrence(period, at).start);
    given.map_or(one.active.start, |start| start.max(one.active.start))
}

/// The same times without overlaps. Those that only touch stay apart: between them nothing is carried.
fn united(mut times: Vec<TimeRange>) -> Vec<TimeRange> {
    times.sort_unstable_by_key(|time| time.start);
    let mut united: Vec<TimeRange> = Vec::new();
    for time in times {
        match united.last_mut() {
            Some(last) if time.start < last.end => last.end = last.end.max(time.end),
            _ => united.push(time),
        }
    }
    united
}

/// From when on the past matters, and the segments of each pool from then on, with what the windows in them hold before it
/// in front: those of the first up to the one that contains `now`, those of the others as far as they decide.
pub(super) fn segments(
    grants: &[Timed],
    pools: &[Pool<impl Course>],
    now: Timestamp,
) -> (Timestamp, Vec<Vec<Segment>>) {
    let first = grants.iter().map(|one| one.active.start).min().unwrap_or(now);
    let mut from = fresh_start(grants, pools, now);
    loop {
        let walks = pools.iter().enumerate();
        let walks = walks.map(|(at, pool)| Walk::new(grants, pools, at, from).run(pool.until, now));
        let mut segments: Vec<_> = walks.collect();
        let pairs = pools.iter().zip(&segments).enumerate();
        let unsettled = pairs.filter_map(|(at, (pool, segments))| unsettled(at, pool, segments, from));
        match unsettled.min().map(|start| start.max(first)) {
            Some(start) if start < from => from = fresh_start(grants, pools, start),
            _ => {
                cut(&mut segments);
                return (from, segments);
            }
        }
    }
}

/// Notes how often a grant was given anew before each of its stays. A move alone gives nothing: only where a new turn of
/// the recurrence begins with it, or with the entitlement whose periods it follows.
pub(super) fn count_turns(one: &mut Timed, pools: &[Pool<impl Course>], segments: &[Vec<Segment>]) {
    let Some(period) = one.period() else { return };
    let mut turns = 0;
    for (n, stay) in one.stays.iter_mut().enumerate() {
        let Some((pool, segments)) = stay.pool.map(|at| (&pools[at], &segments[at])) else {
            continue;
        };
        let from = segments.partition_point(|segment| segment.range.start < stay.range.start);
        let until = segments.partition_point(|segment| segment.range.start < stay.range.end);
        let Some((first, last)) = segments.get(from).zip(segments[..until].last()) else {
            continue;
        };
        let renewed = n > 0 && pool.course.recurrence(period, stay.range.start).start == stay.range.start;
        turns += u32::from(renewed);
        (stay.turns, stay.first) = (turns, first.turns.of(period));
        turns += last.turns.of(period).saturating_sub(stay.first);
    }
}

/// The start of a window that lasts beyond `from`, where what counts changed within it: what it used of its allowance
/// depends on what was drawn before. Where nothing changed, usage beyond the allowance is beyond it either way.
fn unsettled(
    at: usize,
    pool: &Pool<impl Course>,
    segments: &[Segment],
    from: Timestamp,
) -> Option<Timestamp> {
    let mut bounds: Vec<Bound> = segments.iter().filter_map(|segment| segment.bound).collect();
    bounds.dedup();
    let long = |bound: &&Bound| bound.window.start < from && !bound.limit.is_zero();
    let changed = bounds.iter().filter(long).filter(|bound| {
        let mut time = bound.window.start;
        while time < from {
            let (own, before) = allowance(at, pool, time);
            if own && before.bound.is_some_and(|before| before != **bound) {
                return true;
            }
            time = before.until.max(time.plus_micros(1));
        }
        false
    });
    changed.map(|bound| bound.window.start).min()
}

/// What a pool's customer was given at an instant, and whether it was in its own pool then.
fn allowance(at: usize, pool: &Pool<impl Course>, time: Timestamp) -> (bool, Allowance) {
    let given = pool.course.allowance_at(time);
    let Some(provider) = stay_at(&pool.providers, time) else {
        return (true, given);
    };
    let until = given.until.min(provider.range.end);
    (provider.pool == Some(at), Allowance { until, ..given })
}

struct Walk<'a, C> {
    /// The place of the pool.
    place: usize,
    pool: &'a Pool<C>,
    at: Timestamp,
    /// Where grants come into the pool and leave it, ascending, with their recurrence and what they change of how many
    /// recur so.
    edges: Vec<(Timestamp, Option<usize>, i8)>,
    next_edge: usize,
    recurring: [usize; RECURRENCES.len()],
    renewals: [Timestamp; RECURRENCES.len()],
    turns: Turns,
    /// What is held against usage now; nothing while another pool's is.
    allowance: Allowance,
    /// What held up to it.
    held: Held,
}

/// While the customer of a pool is in another one, nothing is held against its own usage.
fn elsewhere(until: Timestamp) -> Allowance {
    Allowance {
        bound: None,
        covers: true,
        cut: false,
        until,
    }
}

impl<'a, C: Course> Walk<'a, C> {
    fn new(grants: &[Timed], pools: &'a [Pool<C>], place: usize, from: Timestamp) -> Self {
        let edges = grants.iter().flat_map(|one| {
            let recurrence = one.period().and_then(self::place);
            let stays = one.stays.iter().filter(|stay| stay.pool == Some(place));
            let edges = stays.map(|stay| {
                [
                    (stay.range.start, recurrence, 1),
                    (stay.range.end, recurrence, -1),
                ]
            });
            edges.flatten().collect::<Vec<_>>()
        });
        let mut edges: Vec<_> = edges.collect();
        edges.sort_unstable();
        Self {
            place,
            pool: &pools[place],
            at: from,
            edges,
            next_edge: 0,
            recurring: [0; RECURRENCES.len()],
            renewals: [from; RECURRENCES.len()],
            turns: Turns::default(),
            allowance: elsewhere(from),
            held: Held::Not,
        }
    }

    fn run(mut self, until: Timestamp, now: Timestamp) -> Vec<Segment> {
        let mut segments = Vec::new();
        while self.at < until {
            self.arrive();
            let mut segment = self.segment();
            if self.place != 0 {
                segment.range.end = segment.range.end.min(until);
            }
            segments.push(segment);
            let current = self.place == 0 && segment.range.contains(now);
            if current || segment.range.end >= Timestamp::MAX {
                break;
            }
            self.at = segment.range.end;
        }
        segments
    }

    /// Takes in what happens at `at`.
    fn arrive(&mut self) {
        while let Some((edge, recurrence, change)) = self.edges.get(self.next_edge)
            && *edge <= self.at
        {
            if let Some(recurring) = recurrence.map(|at| &mut self.recurring[at]) {
                *recurring = recurring.saturating_add_signed(isize::from(*change));
            }
            self.next_edge += 1;
        }
        for (at, period) in RECURRENCES.iter().enumerate() {
            if self.recurring[at] > 0 && self.renewals[at] <= self.at {
                self.renewals[at] = self.pool.course.recurrence(*period, self.at).end;
                self.turns.0[at] += 1;
            }
        }
        self.held = Held::Not;
        if self.allowance.until <= self.at {
            let (own, given) = allowance(self.place, self.pool, self.at);
            self.allowance = if own { given } else { elsewhere(given.until) };
            self.held = if own { self.held_before(&given) } else { Held::Not };
        }
    }

    /// The segment that begins at `at`.
    fn segment(&self) -> Segment {
        let edge = self.edges.get(self.next_edge).map(|(edge, ..)| *edge);
        let renewals = self.renewals.iter().zip(&self.recurring);
        let renewal = renewals
            .filter(|(_, recurring)| **recurring > 0)
            .map(|(at, _)| *at);
        let minute = self.at.plus_micros(MINUTE_US);
        let change = (self.held != Held::Not).then_some(minute);
        let end = renewal.chain(edge).chain(change).min().unwrap_or(Timestamp::MAX);
        Segment {
            // Every segment has some length, whatever the course says.
            range: TimeRange::new(self.at, end.min(self.allowance.until).max(self.at.plus_micros(1))),
            bound: self.allowance.bound,
            held: self.held,
            turns: self.turns,
        }
    }

    /// What held before `now` began to, where it changes within its window.
    fn held_before(&self, now: &Allowance) -> Held {
        // Where what holds now covers everything, nothing is drawn anyway; where it is taken away, what held before counts.
        if now.bound.is_none() && now.covers {
            return Held::Not;
        }
        let last = self.at.plus_micros(-1);
        let (own, before) = allowance(self.place, self.pool, last);
        let pool = stay_at(&self.pool.providers, last).map_or(Some(self.place), |stay| stay.pool);
        if own && before.bound == now.bound {
            return Held::Not;
        }
        match (before.bound, pool) {
            (None, _) if before.covers => Held::Wholly,
            (Some(bound), Some(pool)) if before.cut || bound.window.contains(self.at) => {
                Held::Within(pool, bound)
            }
            _ => Held::Not,
        }
    }
}

/// Cuts the segments of all pools where a window begins, so that what each window used is a sum of whole segments, and
/// puts what windows hold before the first one in front: their limits count it too, though no grant counted then. Only
/// where another kind of window follows does one begin within a segment.
fn cut(segments: &mut [Vec<Segment>]) {
    let mut cuts = vec![Vec::new(); segments.len()];
    for (pool, segment) in segments
        .iter()
        .zip(0..)
        .flat_map(|(all, at)| all.iter().map(move |one| (at, one)))
    {
        cuts[pool].extend(segment.bound.map(|bound| bound.window.start));
        if let Held::Within(other, bound) = segment.held {
            cuts[other].extend([bound.window.start, segment.range.start, segment.range.end]);
        }
    }
    for (segments, cuts) in segments.iter_mut().zip(&mut cuts) {
        cuts.sort_unstable();
        cuts.dedup();
        begin_at(segments, cuts.first().copied());
        split_at(segments, cuts);
    }
}

fn begin_at(segments: &mut Vec<Segment>, start: Option<Timestamp>) {
    let Some((first, start)) = segments.first().map(|first| first.range.start).zip(start) else {
        return;
    };
    if start < first {
        let front = Segment {
            range: TimeRange::new(start, first),
            bound: None,
            held: Held::Not,
            turns: Turns::default(),
        };
        segments.insert(0, front);
    }
}

fn split_at(segments: &mut Vec<Segment>, starts: &[Timestamp]) {
    let split = segments.iter().flat_map(|segment| {
        let TimeRange { start, end } = segment.range;
        let within = |at: &Timestamp| start < *at && *at < end;
        let cuts = starts[starts.partition_point(|at| *at <= start)..]
            .iter()
            .copied();
        let cuts: Vec<_> = cuts.take_while(within).collect();
        let begins = std::iter::once(start).chain(cuts.clone());
        let ends = cuts.into_iter().chain([end]);
        begins.zip(ends).map(|(start, end)| Segment {
            range: TimeRange::new(start, end),
            ..*segment
        })
    });
    *segments = split.collect();
}
