//! From grants and a course to segments: where anything that decides about drawing changes.

use super::{Held, Segment, Timed};
use crate::catalog::LimitPeriod;
use crate::quota::course::{Allowance, Course};
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
pub(super) fn fresh_start(grants: &[Timed], course: &impl Course, now: Timestamp) -> Timestamp {
    let (carrying, renewing): (Vec<&Timed>, Vec<&Timed>) = grants.iter().partition(|one| carries(one));
    let carrying = united(carrying.iter().map(|one| one.active).collect());
    let within = |time: &TimeRange, at| time.start < at && at < time.end;
    let mut at = now;
    loop {
        let carried = carrying.iter().find(|time| within(time, at));
        let renewed = renewing.iter().filter(|one| within(&one.active, at));
        let renewed = renewed.map(|one| last_given(one, course, at));
        let fresh = renewed.chain(carried.map(|time| time.start)).min();
        match fresh {
            Some(fresh) if fresh < at => at = fresh,
            _ => return at,
        }
    }
}

/// Whether what is left of a grant outlives its recurrence. Billing periods are followed from the start, for they are few
/// and depend on which subscription ran.
fn carries(one: &Timed) -> bool {
    let kept = one.grant.rollover_max.is_some_and(|max| !max.is_zero());
    kept || matches!(one.period(), None | Some(LimitPeriod::Billing))
}

/// When a grant that recurs with the calendar was last given, up to `at`.
fn last_given(one: &Timed, course: &impl Course, at: Timestamp) -> Timestamp {
    let given = one.period().map(|period| course.recurrence(period, at).start);
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

/// The segments up to the one that contains `now`: from `from` on, with what the windows in them hold before it in front.
pub(super) fn segments(
    grants: &[Timed],
    course: &impl Course,
    from: Timestamp,
    now: Timestamp,
) -> Vec<Segment> {
    let mut segments = Walk::new(grants, course, from).run(now);
    begin_with_windows(&mut segments);
    split_at_windows(&mut segments);
    segments
}

struct Walk<'a, C> {
    course: &'a C,
    at: Timestamp,
    /// Starts and ends of grants, ascending, with their recurrence and what they change of how many recur so.
    edges: Vec<(Timestamp, Option<usize>, i8)>,
    next_edge: usize,
    recurring: [usize; RECURRENCES.len()],
    renewals: [Timestamp; RECURRENCES.len()],
    turns: Turns,
    allowance: Allowance,
    /// What held up to `allowance`.
    before: Allowance,
}

impl<'a, C: Course> Walk<'a, C> {
    fn new(grants: &[Timed], course: &'a C, from: Timestamp) -> Self {
        let edges = grants.iter().flat_map(|one| {
            let recurrence = one.period().and_then(place);
            [
                (one.active.start, recurrence, 1),
                (one.active.end, recurrence, -1),
            ]
        });
        let mut edges: Vec<_> = edges.collect();
        edges.sort_unstable();
        Self {
            course,
            at: from,
            edges,
            next_edge: 0,
            recurring: [0; RECURRENCES.len()],
            renewals: [from; RECURRENCES.len()],
            turns: Turns::default(),
            allowance: course.allowance_at(from),
            before: course.allowance_at(from.plus_micros(-1)),
        }
    }

    fn run(mut self, now: Timestamp) -> Vec<Segment> {
        let mut segments = Vec::new();
        loop {
            self.arrive();
            let segment = self.segment();
            segments.push(segment);
            if segment.range.contains(now) || segment.range.end >= Timestamp::MAX {
                return segments;
            }
            self.at = segment.range.end;
        }
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
                self.renewals[at] = self.course.recurrence(*period, self.at).end;
                self.turns.0[at] += 1;
            }
        }
        if self.allowance.until <= self.at {
            self.before = self.allowance;
            self.allowance = self.course.allowance_at(self.at);
        }
    }

    /// The segment that begins at `at`.
    fn segment(&self) -> Segment {
        let edge = self.edges.get(self.next_edge).map(|(edge, ..)| *edge);
        let renewals = self.renewals.iter().zip(&self.recurring);
        let renewal = renewals
            .filter(|(_, recurring)| **recurring > 0)
            .map(|(at, _)| *at);
        let held = self.held_before();
        let minute = self.at.plus_micros(MINUTE_US);
        let change = (held != Held::Not).then_some(minute);
        let end = renewal.chain(edge).chain(change).min().unwrap_or(Timestamp::MAX);
        Segment {
            // Every segment has some length, whatever the course says.
            range: TimeRange::new(self.at, end.min(self.allowance.until).max(self.at.plus_micros(1))),
            bound: self.allowance.bound,
            held,
            turns: self.turns,
        }
    }

    /// What held before, where it changes within its window.
    fn held_before(&self) -> Held {
        let changed = self.before.until == self.at && self.before.bound != self.allowance.bound;
        // Where what holds now covers everything, nothing is drawn anyway; where it is taken away, what held before counts.
        let covered = self.allowance.bound.is_none() && self.allowance.covers;
        match self.before.bound {
            _ if !changed || covered => Held::Not,
            None if self.before.covers => Held::Wholly,
            Some(before) if self.before.cut || before.window.contains(self.at) => Held::Within(before),
            _ => Held::Not,
        }
    }
}

/// Puts what windows hold before the first segment in front: their limits count it too. No grant counted then.
fn begin_with_windows(segments: &mut Vec<Segment>) {
    let Some(first) = segments.first().map(|first| first.range.start) else {
        return;
    };
    let start = windows(segments).map(|window| window.start).min();
    if let Some(start) = start.filter(|start| *start < first) {
        let front = Segment {
            range: TimeRange::new(start, first),
            bound: None,
            held: Held::Not,
            turns: Turns::default(),
        };
        segments.insert(0, front);
    }
}

fn windows(segments: &[Segment]) -> impl Iterator<Item = TimeRange> + '_ {
    segments
        .iter()
        .flat_map(Segment::bounds)
        .map(|bound| bound.window)
}

/// Splits segments where a later one's window begins, so that what each window used is a sum of whole segments. Only
/// where another kind of window follows does one begin within a segment.
fn split_at_windows(segments: &mut Vec<Segment>) {
    let mut starts: Vec<_> = windows(segments).map(|window| window.start).collect();
    starts.sort_unstable();
    starts.dedup();
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
