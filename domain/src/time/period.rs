use jiff::civil::DateTime;

use super::{TimeRange, Timestamp, Zone};
use crate::catalog::Interval;

/// The billing periods of a subscription: `[start, end)`, one behind the other, counted from its anchor.
///
/// Boundary `n` is the anchor's local date and time plus `n` intervals, in the subscription's zone, cut to the minute. A
/// day that a month lacks becomes its last (31 January → 28 February → 31 March, for each is counted from the anchor).
#[derive(Debug, Clone)]
pub struct Cycle {
    zone: Zone,
    anchor: DateTime,
    interval: Interval,
    count: i64,
}

impl Cycle {
    /// Periods of `count` (at least 1) × `interval` through `anchor`.
    pub fn new(anchor: Timestamp, zone: Zone, interval: Interval, count: u32) -> Self {
        let local = zone.zoned(anchor.floor_minute()).datetime();
        Self {
            zone,
            anchor: local,
            interval,
            count: i64::from(count.max(1)),
        }
    }

    /// The start of period `n`; period 0 starts at the anchor, earlier ones are negative.
    pub fn boundary(&self, n: i64) -> Timestamp {
        let steps = n.saturating_mul(self.count);
        let span = match self.interval {
            Interval::Day => jiff::Span::new().try_days(steps),
            Interval::Week => jiff::Span::new().try_weeks(steps),
            Interval::Month => jiff::Span::new().try_months(steps),
            Interval::Year => jiff::Span::new().try_years(steps),
        };
        let local = span.and_then(|span| self.anchor.checked_add(span));
        local.map_or(if n < 0 { Timestamp::EPOCH } else { Timestamp::MAX }, |local| {
            self.zone.instant(local)
        })
    }

    /// Period `n`.
    pub fn period(&self, n: i64) -> TimeRange {
        TimeRange::new(self.boundary(n), self.boundary(n + 1))
    }

    /// The number of the period that contains `at`.
    pub fn index_at(&self, at: Timestamp) -> i64 {
        let local = self.zone.zoned(at).datetime();
        let days = local
            .date()
            .since(self.anchor.date())
            .map_or(0, |span| i64::from(span.get_days()));
        let months = i64::from(local.year() - self.anchor.year()) * 12
            + i64::from(local.month() - self.anchor.month());
        let elapsed = match self.interval {
            Interval::Day => days,
            Interval::Week => days.div_euclid(7),
            Interval::Month => months,
            Interval::Year => months.div_euclid(12),
        };
        // The estimate is off by one period at most, for the time of day or the day of the month.
        let mut n = elapsed.div_euclid(self.count) + 1;
        while self.boundary(n) > at {
            n -= 1;
        }
        n
    }

    /// The period that contains `at`.
    pub fn period_at(&self, at: Timestamp) -> TimeRange {
        self.period(self.index_at(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn cycle(anchor: &str, zone: &str, interval: Interval, count: u32) -> Cycle {
        Cycle::new(at(anchor), Zone::parse(zone).unwrap(), interval, count)
    }

    #[test]
    fn month_ends_are_counted_from_the_anchor() {
        let cycle = cycle("2026-01-31T10:30:45Z", "UTC", Interval::Month, 1);
        let starts: Vec<_> = (0..5).map(|n| cycle.boundary(n).to_string()).collect();
        assert_eq!(
            starts,
            [
                "2026-01-31T10:30:00Z",
                "2026-02-28T10:30:00Z",
                "2026-03-31T10:30:00Z",
                "2026-04-30T10:30:00Z",
                "2026-05-31T10:30:00Z",
            ]
        );
        assert_eq!(cycle.index_at(at("2026-02-28T10:29:59.999999Z")), 0);
        assert_eq!(cycle.index_at(at("2026-02-28T10:30:00Z")), 1);
    }

    #[test]
    fn periods_follow_the_zone_through_clock_changes() {
        let month = cycle("2026-03-01T00:00:00+01:00", "Europe/Berlin", Interval::Month, 1);
        let march = month.period_at(at("2026-03-10T00:00:00Z"));
        assert_eq!(
            march,
            TimeRange::new(at("2026-02-28T23:00:00Z"), at("2026-03-31T22:00:00Z"))
        );
        // 02:30 does not exist on 29 March: the period begins at 03:30, which is 01:30 UTC.
        let day = cycle("2026-03-01T02:30:00+01:00", "Europe/Berlin", Interval::Day, 1);
        assert_eq!(day.boundary(28), at("2026-03-29T01:30:00Z"));
        assert_eq!(day.boundary(29), at("2026-03-30T00:30:00Z"));
    }

    #[test]
    fn leap_years() {
        let year = cycle("2024-02-29T00:00:00Z", "UTC", Interval::Year, 1);
        assert_eq!(year.boundary(1), at("2025-02-28T00:00:00Z"));
        assert_eq!(year.boundary(4), at("2028-02-29T00:00:00Z"));
    }

    proptest! {
        #[test]
        fn every_instant_lies_in_its_period(
            anchor in 0i64..4_102_444_800_000_000, instant in 0i64..4_102_444_800_000_000, zone in 0usize..4,
            interval in 0usize..4, count in 1u32..14,
        ) {
            let zone = ["UTC", "Europe/Berlin", "Pacific/Apia", "America/Santiago"][zone];
            let interval = [Interval::Day, Interval::Week, Interval::Month, Interval::Year][interval];
            let anchor = Timestamp::from_micros(anchor).unwrap().floor_minute();
            let cycle = Cycle::new(anchor, Zone::parse(zone).unwrap(), interval, count);
            let instant = Timestamp::from_micros(instant).unwrap();
            let n = cycle.index_at(instant);
            let period = cycle.period(n);
            // Before 1970 everything is the epoch.
            prop_assert!(period.contains(instant) || period.start == Timestamp::EPOCH, "{period:?} {instant}");
            prop_assert_eq!(cycle.period(n + 1).start, period.end);
        }
    }
}
