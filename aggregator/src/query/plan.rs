use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use turnpike_domain::identity::TenantId;
use turnpike_domain::meter::{Aggregation, Meter};
use turnpike_domain::port::usage::SubjectSpan;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::{TimeRange, Timestamp};

use super::{Reach, Selection, Stop};
use crate::rows::key::Level;
use crate::windows::levels;

/// What to read of one meter, checked and made ready.
pub(crate) struct Plan {
    pub tenant: TenantId,
    pub meter: Arc<Meter>,
    /// Windows in ascending order without overlap, on whole minutes.
    pub windows: Vec<TimeRange>,
    /// Which subjects, each over which times, ascending without overlap; `None` for all.
    pub subjects: Option<BTreeMap<String, Vec<TimeRange>>>,
    /// The series to read next.
    pub reach: Reach,
    /// Index of a dimension → the values that are taken.
    pub filter: Vec<(usize, Vec<String>)>,
    /// Ends the reading.
    pub stop: Stop,
}

/// The windows of a plan as far as they lie in one subject's span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clip {
    /// Minutes, and the index of the window that they belong to; ascending.
    pub pieces: Vec<(Range<u32>, usize)>,
    /// The first minute that may be looked at for values from before the windows.
    pub earliest: u32,
}

impl Plan {
    pub(crate) fn new(
        tenant: TenantId,
        meter: Arc<Meter>,
        windows: Vec<TimeRange>,
        subjects: Option<&[SubjectSpan]>,
        filter: &[(String, Vec<String>)],
    ) -> Result<Self, Problem> {
        let filter = filter
            .iter()
            .map(|(name, values)| Ok((filtered(&meter, name)?, values.clone())))
            .collect::<Result<_, Problem>>()?;
        let subjects = subjects.map(by_subject);
        Ok(Self {
            tenant,
            meter,
            windows,
            reach: match &subjects {
                None => Reach::all(),
                Some(all) => Reach::of(all.keys().cloned()),
            },
            subjects,
            filter,
            stop: Stop::default(),
        })
    }

    /// What the partitions' memory is asked for.
    pub(crate) fn selection(&self) -> Selection {
        let first = self.windows.first().map_or(0, |window| window.start.minute());
        let last = self.windows.last().map_or(0, |window| end_minute(window.end));
        let spans = self.subjects.iter().flat_map(|all| all.values().flatten());
        let mut bounds: Vec<u32> = spans
            .chain(&self.windows)
            .flat_map(|range| [range.start.minute(), end_minute(range.end)])
            .collect();
        bounds.sort_unstable();
        bounds.dedup();
        self.selection_between(first..last, Some(bounds.into()))
    }

    /// The same for windows to come, all within `minutes` and ending at `bounds`.
    pub(crate) fn selection_between(&self, minutes: Range<u32>, bounds: Option<Arc<[u32]>>) -> Selection {
        let carried = self.meter.aggregation == Aggregation::TimeWeightedSum;
        Selection::Windows {
            meter: self.meter.id,
            reach: self.reach.clone(),
            minutes: if carried { 0 } else { minutes.start }..minutes.end,
            bounds: bounds.filter(|_| !carried),
        }
    }

    /// Span number `at` of a subject; all time where no subjects are named.
    pub(crate) fn span(&self, subject: &str, at: usize) -> Option<TimeRange> {
        match &self.subjects {
            None => Some(TimeRange::ALL),
            Some(all) => all.get(subject)?.get(at).copied(),
        }
    }

    /// The times of `subject`; `None` when it is not asked for.
    pub(crate) fn clips(&self, subject: &str) -> Option<Vec<Clip>> {
        match &self.subjects {
            None => Some(vec![self.clip(TimeRange::ALL)]),
            Some(all) => all
                .get(subject)
                .map(|spans| spans.iter().map(|span| self.clip(*span)).collect()),
        }
    }

    fn clip(&self, span: TimeRange) -> Clip {
        let piece = |(at, window): (usize, &TimeRange)| {
            let shared = window.intersect(&span)?;
            Some((shared.start.minute()..end_minute(shared.end), at))
        };
        Clip {
            pieces: self.windows.iter().enumerate().filter_map(piece).collect(),
            earliest: span.start.minute(),
        }
    }

    /// Whether a series with these values of the dimensions is asked for.
    pub(crate) fn wants(&self, group: &[String]) -> bool {
        self.filter
            .iter()
            .all(|(at, values)| group.get(*at).is_some_and(|value| values.contains(value)))
    }
}

/// The times of each subject. Those that overlap are made one, so that nothing counts twice; those that only touch stay
/// apart, as a level that was reached in the one is not carried into the other.
fn by_subject(spans: &[SubjectSpan]) -> BTreeMap<String, Vec<TimeRange>> {
    let mut sorted: Vec<&SubjectSpan> = spans.iter().collect();
    sorted.sort_unstable_by(|a, b| (&a.subject, a.span.start).cmp(&(&b.subject, b.span.start)));
    let mut all: BTreeMap<String, Vec<TimeRange>> = BTreeMap::new();
    for SubjectSpan { subject, span } in sorted {
        let known = all.entry(subject.clone()).or_default();
        match known.last_mut() {
            Some(last) if span.start < last.end => last.end = last.end.max(span.end),
            _ => known.push(*span),
        }
    }
    all
}

/// The minute behind the last one before `end`.
pub(crate) fn end_minute(end: Timestamp) -> u32 {
    end.minute() + u32::from(!end.is_whole_minute())
}

/// The index of a dimension of `meter`, which the parameter at `pointer` names.
pub(crate) fn dimension(meter: &Meter, pointer: &str, name: &str) -> Result<usize, Problem> {
    meter
        .group_by
        .keys()
        .position(|known| known == name)
        .ok_or_else(|| {
            let known: Vec<&str> = meter.group_by.keys().map(String::as_str).collect();
            let known = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            let detail = format!(
                "names a dimension \"{name}\" that the meter \"{}\" does not have; it has: {known}",
                meter.key
            );
            Problem::invalid(pointer, detail)
        })
}

/// The index of a dimension that is filtered by.
pub(crate) fn filtered(meter: &Meter, name: &str) -> Result<usize, Problem> {
    dimension(meter, &format!("/filter[{name}]"), name)
}

impl Clip {
    /// From the first minute of its windows to behind the last.
    pub(crate) fn minutes(&self) -> Range<u32> {
        let first = self.pieces.first().map_or(0, |(minutes, _)| minutes.start);
        first..self.pieces.last().map_or(first, |(minutes, _)| minutes.end)
    }

    /// The window of a minute.
    pub(crate) fn window_of(&self, minute: u32) -> Option<usize> {
        let behind = self
            .pieces
            .partition_point(|(minutes, _)| minutes.start <= minute);
        let (minutes, window) = self.pieces.get(behind.checked_sub(1)?)?;
        minutes.contains(&minute).then_some(*window)
    }

    /// The buckets to read, few and long where the windows allow it: none straddles two windows.
    pub(crate) fn segments(&self, aggregation: Aggregation) -> Vec<(Level, Range<u32>)> {
        let mut segments: Vec<(Level, Range<u32>)> = Vec::new();
        for (minutes, _) in &self.pieces {
            cover(
                minutes.clone(),
                levels(aggregation),
                &mut |level, buckets| match segments.iter_mut().rev().find(|(known, _)| *known == level) {
                    Some((_, last)) if last.end == buckets.start => last.end = buckets.end,
                    _ => segments.push((level, buckets)),
                },
            );
        }
        segments
    }
}

/// Covers `minutes` with whole buckets: the longest level inside, shorter ones at the edges.
fn cover(minutes: Range<u32>, levels: &[Level], take: &mut impl FnMut(Level, Range<u32>)) {
    let Some((level, shorter)) = levels.split_last() else {
        return;
    };
    let size = level.minutes();
    let (first, last) = (minutes.start.div_ceil(size), minutes.end / size);
    if first >= last {
        if !minutes.is_empty() {
            cover(minutes, shorter, take);
        }
        return;
    }
    let (start, end) = (first * size, last * size);
    if minutes.start < start {
        cover(minutes.start..start, shorter, take);
    }
    take(*level, first..last);
    if end < minutes.end {
        cover(end..minutes.end, shorter, take);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clip(pieces: &[(u32, u32)]) -> Clip {
        Clip {
            pieces: pieces
                .iter()
                .enumerate()
                .map(|(at, (from, to))| (*from..*to, at))
                .collect(),
            earliest: 0,
        }
    }

    #[test]
    fn times_of_a_subject_that_overlap_are_one() {
        let time = |from, to| {
            let at = |second: i64| Timestamp::from_micros(second * 1_000_000).unwrap();
            TimeRange::new(at(from), at(to))
        };
        let span = |subject: &str, from, to| SubjectSpan {
            subject: subject.to_owned(),
            span: time(from, to),
        };
        let all = by_subject(&[
            span("b", 0, 60),
            span("a", 300, 420),
            span("a", 0, 60),
            span("b", 0, 60),
            span("a", 60, 120),
            span("a", 300, 360),
            span("a", 360, 480),
        ]);
        assert_eq!(all["a"], [time(0, 60), time(60, 120), time(300, 480)]);
        assert_eq!(all["b"], [time(0, 60)]);
    }

    #[test]
    fn long_ranges_are_read_in_long_buckets() {
        let day = 24 * 60;
        assert_eq!(
            clip(&[(0, 30 * day)]).segments(Aggregation::Sum),
            [(Level::Day, 0..30)]
        );
        let hours: Vec<_> = (0..48).map(|h| (h * 60, h * 60 + 60)).collect();
        assert_eq!(clip(&hours).segments(Aggregation::Sum), [(Level::Hour, 0..48)]);
        assert_eq!(
            clip(&[(59, 2 * day + 61)]).segments(Aggregation::Sum),
            [
                (Level::Minute, 59..60),
                (Level::Hour, 1..24),
                (Level::Day, 1..2),
                (Level::Hour, 48..49),
                (Level::Minute, 2 * day + 60..2 * day + 61)
            ]
        );
        assert_eq!(
            clip(&[(0, 600)]).segments(Aggregation::Latest),
            [(Level::Minute, 0..600)]
        );
    }

    proptest! {
        #[test]
        fn buckets_cover_the_windows_exactly_and_straddle_none(
            cuts in prop::collection::btree_set(0..20_000u32, 2..9), skip in any::<u8>(),
        ) {
            let cuts: Vec<u32> = cuts.into_iter().collect();
            let pieces: Vec<(u32, u32)> = cuts
                .windows(2)
                .enumerate()
                .filter(|(at, _)| skip >> (at % 8) & 1 == 0)
                .map(|(_, pair)| (pair[0], pair[1]))
                .collect();
            let clip = clip(&pieces);
            let mut covered = vec![0u8; 20_160];
            for (level, buckets) in clip.segments(Aggregation::Sum) {
                for bucket in buckets {
                    let minutes = bucket * level.minutes()..(bucket + 1) * level.minutes();
                    let window = clip.window_of(minutes.start);
                    prop_assert!(window.is_some() && minutes.clone().all(|m| clip.window_of(m) == window));
                    minutes.for_each(|m| covered[m as usize] += 1);
                }
            }
            for minute in 0..20_160 {
                let inside = pieces.iter().any(|(from, to)| (*from..*to).contains(&minute));
                prop_assert_eq!(covered[minute as usize], u8::from(inside));
                prop_assert_eq!(clip.window_of(minute).is_some(), inside);
            }
        }
    }
}
