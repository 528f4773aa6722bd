use std::sync::Arc;

use turnpike_domain::limits::USAGE_WINDOWS_MAX;
use turnpike_domain::time::{CalendarUnit, TimeRange, Timestamp, Zone};

use super::plan::end_minute;

/// Windows whose bounds are told to the owners of memory, so that they add up what lies between.
const BOUNDS_MAX: u32 = 10_000;

/// The windows of a query, made as they are needed: a year has half a million minutes.
#[derive(Debug, Clone)]
pub(crate) struct Windows {
    /// What is left of the range; `None` behind its last window.
    left: Option<TimeRange>,
    /// `None`: the range itself is the one window.
    unit: Option<CalendarUnit>,
    zone: Zone,
}

impl Windows {
    /// No windows at all.
    pub(crate) const NONE: Self = Self {
        left: None,
        unit: None,
        zone: Zone::UTC,
    };

    /// The windows of a range, each cut to it; the range itself without a unit.
    pub(crate) fn of(range: TimeRange, unit: Option<CalendarUnit>, zone: Zone) -> Self {
        Self {
            left: Some(range).filter(|range| range.start < range.end),
            unit,
            zone,
        }
    }

    /// The range that they cover.
    pub(crate) const fn range(&self) -> Option<TimeRange> {
        self.left
    }

    /// Whether there are more than one query takes.
    pub(crate) fn are_too_many(&self) -> bool {
        self.number_min() as usize > USAGE_WINDOWS_MAX
    }

    /// Their number, but for those that a change of the clock cuts in two.
    fn number_min(&self) -> u32 {
        let minutes = self
            .left
            .map_or(0, |range| end_minute(range.end) - range.start.minute());
        minutes.div_ceil(match self.unit {
            Some(CalendarUnit::Second | CalendarUnit::Minute) => 1,
            Some(CalendarUnit::Hour) => 60,
            Some(CalendarUnit::Day) => 24 * 60,
            Some(CalendarUnit::Week) => 7 * 24 * 60,
            Some(CalendarUnit::Month) => 28 * 24 * 60,
            Some(CalendarUnit::Year) => 365 * 24 * 60,
            None => u32::MAX,
        })
    }

    /// The first few.
    pub(crate) fn first(&self, number: usize) -> Vec<TimeRange> {
        match (self.left, self.unit) {
            (Some(range), Some(unit)) => self.zone.windows(unit, range).take(number).collect(),
            (range, _) => range.into_iter().take(number).collect(),
        }
    }

    /// Leaves out those that begin before `at`.
    pub(crate) fn begin_at(&mut self, at: Timestamp) {
        let Some(range) = self.left.filter(|range| range.start < at) else {
            return;
        };
        self.left = self.unit.and_then(|unit| {
            let window = self.zone.window(unit, at);
            let start = if window.start == at { at } else { window.end };
            Some(TimeRange::new(start, range.end)).filter(|left| left.start < left.end)
        });
    }

    /// Ascending minutes between which all lies in one window; `None` where there are so many that it hardly matters.
    pub(crate) fn bounds(&self) -> Option<Arc<[u32]>> {
        if self.number_min() > BOUNDS_MAX {
            return None;
        }
        let all = self.first(usize::MAX);
        let starts = all.iter().map(|window| window.start.minute());
        let end = all.last().map(|window| end_minute(window.end));
        Some(starts.chain(end).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn starts(windows: &Windows, number: usize) -> Vec<String> {
        let all = windows.first(number);
        all.iter().map(|window| window.start.to_string()).collect()
    }

    #[test]
    fn they_begin_where_they_are_told_to_and_end_with_the_range() {
        let range = TimeRange::new(at("2026-03-28T12:00:00Z"), at("2026-03-31T00:00:00Z"));
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        let mut days = Windows::of(range, Some(CalendarUnit::Day), berlin);
        let all = starts(&days, 9);
        let expected = [
            "2026-03-28T12:00:00Z",
            "2026-03-28T23:00:00Z",
            "2026-03-29T22:00:00Z",
            "2026-03-30T22:00:00Z",
        ];
        assert_eq!(all, expected);
        let minutes: Vec<u32> = days.first(9).iter().map(|day| day.start.minute()).collect();
        assert_eq!(days.bounds().unwrap()[..4], minutes);
        assert_eq!(days.bounds().unwrap()[4], range.end.minute());
        days.begin_at(at("2026-03-28T12:00:00Z"));
        assert_eq!(starts(&days, 9), expected);
        days.begin_at(at("2026-03-28T23:00:00Z"));
        assert_eq!(starts(&days, 2), expected[1..3]);
        days.begin_at(at("2026-03-29T00:00:00Z"));
        assert_eq!(
            starts(&days, 9),
            expected[2..],
            "one that began before is left out"
        );
        days.begin_at(range.end);
        assert_eq!((starts(&days, 9).len(), days.range()), (0, None));
        let mut one = Windows::of(range, None, Zone::UTC);
        assert_eq!(one.first(9), [range]);
        one.begin_at(at("2026-03-29T00:00:00Z"));
        assert!(one.first(9).is_empty());
    }

    #[test]
    fn more_than_a_year_of_minutes_is_too_many() {
        let year = |years: i64| {
            let end = Timestamp::EPOCH.plus_micros(years * 365 * 86_400_000_000);
            TimeRange::new(Timestamp::EPOCH, end)
        };
        let of = |range, unit| Windows::of(range, unit, Zone::UTC);
        assert!(!of(year(1), Some(CalendarUnit::Minute)).are_too_many());
        assert!(of(year(2), Some(CalendarUnit::Minute)).are_too_many());
        assert!(!of(TimeRange::ALL, Some(CalendarUnit::Month)).are_too_many());
        assert!(of(TimeRange::ALL, Some(CalendarUnit::Day)).are_too_many());
        assert!(!of(TimeRange::ALL, None).are_too_many());
        assert!(of(year(1), Some(CalendarUnit::Minute)).bounds().is_none());
    }
}
