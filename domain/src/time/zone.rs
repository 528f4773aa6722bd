use std::fmt;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan, Zoned};

use super::{TimeRange, Timestamp};
use crate::catalog::LimitPeriod;

const HOUR_US: i64 = 60 * super::MINUTE_US;

/// An IANA time zone.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// There is no time zone of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an IANA time zone such as Europe/Istanbul")]
pub struct ZoneError(String);

/// A window of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CalendarUnit {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour of the zone's clock, cut where the clock is changed inside it.
    Hour,
    /// From midnight to midnight: 23 or 25 hours where the clock is changed.
    Day,
    /// From Monday to Monday.
    Week,
    /// From the first of a month to the first of the next.
    Month,
    /// From 1 January to 1 January.
    Year,
}

impl CalendarUnit {
    /// The unit of a limit's window; `None` for those that the calendar does not know (`billing`, `ever`).
    pub(crate) const fn of_limit(period: LimitPeriod) -> Option<Self> {
        match period {
            LimitPeriod::Second => Some(Self::Second),
            LimitPeriod::Minute => Some(Self::Minute),
            LimitPeriod::Hour => Some(Self::Hour),
            LimitPeriod::Day => Some(Self::Day),
            LimitPeriod::Week => Some(Self::Week),
            LimitPeriod::Month => Some(Self::Month),
            LimitPeriod::Billing | LimitPeriod::Ever => None,
        }
    }
}

impl Zone {
    /// UTC.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// The zone of an IANA name. The names and rules are compiled in.
    pub fn parse(name: &str) -> Result<Self, ZoneError> {
        TimeZone::get(name)
            .map(Self)
            .map_err(|_| ZoneError(name.to_owned()))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// The window of the calendar that contains `at`. Windows of one unit follow each other without gap or overlap.
    /// Windows longer than a second begin on whole minutes of UTC.
    pub fn window(&self, unit: CalendarUnit, at: Timestamp) -> TimeRange {
        match unit {
            CalendarUnit::Second => aligned(at, 1_000_000),
            CalendarUnit::Minute => aligned(at, super::MINUTE_US),
            CalendarUnit::Hour => self.hour(at),
            CalendarUnit::Day | CalendarUnit::Week | CalendarUnit::Month | CalendarUnit::Year => {
                self.days(unit, at)
            }
        }
    }

    /// The windows of `unit` that share time with `range`, each cut to it, in order.
    pub fn windows(&self, unit: CalendarUnit, range: TimeRange) -> impl Iterator<Item = TimeRange> + use<'_> {
        let mut from = range.start;
        let mut steady_until = Timestamp::EPOCH;
        std::iter::from_fn(move || {
            if from >= range.end {
                return None;
            }
            let next = from.plus_micros(HOUR_US);
            let window = if next <= steady_until {
                TimeRange::new(from, next)
            } else {
                let window = self.window(unit, from);
                if unit == CalendarUnit::Hour {
                    steady_until = self.change_behind(window.end);
                }
                window
            };
            from = window.end;
            window.intersect(&range)
        })
    }

    /// The minute of the clock's first change behind `at`, the end of an hour: until then hours follow each other as they come.
    /// `at` where it is such a change itself, or that is unknown.
    fn change_behind(&self, at: Timestamp) -> Timestamp {
        let instant = |at: Timestamp| jiff::Timestamp::from_microsecond(at.micros());
        let (Ok(from), Ok(behind)) = (instant(at), instant(at.plus_micros(1))) else {
            return at;
        };
        let micros = |change: jiff::tz::TimeZoneTransition<'_>| change.timestamp().as_microsecond();
        let before = self.0.preceding(behind).next().map(micros);
        if before.is_some_and(|change| at.micros() - change < super::MINUTE_US) {
            return at;
        }
        let next = self.0.following(from).next().map(micros);
        let next = next.unwrap_or(jiff::Timestamp::MAX.as_microsecond());
        Timestamp::from_micros_clamped(next).floor_minute()
    }

    /// The calendar date at `at`: `2026-01-31`.
    pub fn date(&self, at: Timestamp) -> String {
        self.zoned(at).date().to_string()
    }

    pub(super) fn zoned(&self, at: Timestamp) -> Zoned {
        // The calendar library ends a day before the year 9999 does.
        jiff::Timestamp::from_microsecond(at.micros())
            .unwrap_or(jiff::Timestamp::MAX)
            .to_zoned(self.0.clone())
    }

    /// The first instant of a local date; of the next that exists where the zone skipped it.
    fn start_of(&self, date: Date) -> Timestamp {
        self.instant(date.at(0, 0, 0, 0))
    }

    /// The instant of a local time: the first of two, and the one behind a gap, as RFC 5545 has it.
    pub(super) fn instant(&self, local: jiff::civil::DateTime) -> Timestamp {
        let us = self
            .0
            .to_ambiguous_zoned(local)
            .compatible()
            .map_or(i64::MAX, |z| z.timestamp().as_microsecond());
        Timestamp::from_micros_clamped(us).floor_minute()
    }

    fn days(&self, unit: CalendarUnit, at: Timestamp) -> TimeRange {
        let mut first = first_day(unit, self.zoned(at).date());
        loop {
            let next = next_first(unit, first);
            let window = TimeRange::new(self.start_of(first), self.start_of(next));
            // A boundary is cut to its minute, so the last seconds of a window may belong to the next one.
            if at < window.end || next == first {
                return window;
            }
            first = next;
        }
    }

    fn hour(&self, at: Timestamp) -> TimeRange {
        if jiff::Timestamp::from_microsecond(at.plus_micros(HOUR_US).micros()).is_err() {
            return aligned(at, HOUR_US);
        }
        let local = self.zoned(at);
        let into = SignedDuration::new(
            i64::from(local.minute()) * 60 + i64::from(local.second()),
            local.subsec_nanosecond(),
        );
        let shift = |span: SignedDuration| local.timestamp().checked_add(span).unwrap_or(local.timestamp());
        let (mut start, mut end) = (shift(-into), shift(SignedDuration::from_hours(1) - into));
        if let Some(change) = self.0.preceding(local.timestamp()).next() {
            start = start.max(change.timestamp());
        }
        // A change exactly at the instant belongs to the window that it begins.
        if let Some(change) = self.0.preceding(shift(SignedDuration::from_nanos(1))).next() {
            start = start.max(change.timestamp());
        }
        if let Some(change) = self.0.following(local.timestamp()).next() {
            end = end.min(change.timestamp());
        }
        let cut = |t: jiff::Timestamp| Timestamp::from_micros_clamped(t.as_microsecond()).floor_minute();
        let window = TimeRange::new(cut(start), cut(end));
        if at < window.end {
            window
        } else {
            self.hour(window.end.plus_micros(super::MINUTE_US))
        }
    }
}

fn aligned(at: Timestamp, width_us: i64) -> TimeRange {
    let start = at.micros() - at.micros() % width_us;
    TimeRange::new(
        Timestamp::from_micros_clamped(start),
        Timestamp::from_micros_clamped(start + width_us),
    )
}

fn first_day(unit: CalendarUnit, date: Date) -> Date {
    match unit {
        CalendarUnit::Week => {
            let days = date.weekday().since(Weekday::Monday);
            date.checked_sub(i64::from(days).days()).unwrap_or(date)
        }
        CalendarUnit::Month => date.first_of_month(),
        CalendarUnit::Year => date.first_of_year(),
        _ => date,
    }
}

fn next_first(unit: CalendarUnit, first: Date) -> Date {
    let step = match unit {
        CalendarUnit::Week => 7.days(),
        CalendarUnit::Month => 1.month(),
        CalendarUnit::Year => 1.year(),
        _ => 1.day(),
    };
    first.checked_add(step).unwrap_or(first)
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn window(zone: &str, unit: CalendarUnit, instant: &str) -> (String, String) {
        let range = Zone::parse(zone).unwrap().window(unit, at(instant));
        (range.start.to_string(), range.end.to_string())
    }

    type Row = (
        &'static str,
        CalendarUnit,
        &'static str,
        &'static str,
        &'static str,
    );

    #[rustfmt::skip]
    const WINDOWS: &[Row] = &[
        ("Europe/Berlin", CalendarUnit::Day, "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
        ("Europe/Berlin", CalendarUnit::Day, "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
        ("Europe/Berlin", CalendarUnit::Hour, "2026-10-25T00:30:00Z", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"),
        ("Europe/Berlin", CalendarUnit::Hour, "2026-10-25T01:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"),
        ("Asia/Kolkata", CalendarUnit::Hour, "2026-01-01T00:00:00Z", "2025-12-31T23:30:00Z", "2026-01-01T00:30:00Z"),
        ("Europe/Istanbul", CalendarUnit::Month, "2026-01-31T21:00:00Z", "2026-01-31T21:00:00Z", "2026-02-28T21:00:00Z"),
        ("UTC", CalendarUnit::Week, "2026-11-22T23:59:59Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"),
        // Midnight does not exist there on that day.
        ("America/Santiago", CalendarUnit::Day, "2022-09-11T12:00:00Z", "2022-09-11T04:00:00Z", "2022-09-12T03:00:00Z"),
        // That zone skipped 30 December 2011.
        ("Pacific/Apia", CalendarUnit::Day, "2011-12-30T09:00:00Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"),
        // A change by half an hour cuts the hour.
        ("Australia/Lord_Howe", CalendarUnit::Hour, "2026-04-04T15:10:00Z", "2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z"),
    ];

    #[test]
    fn days_are_23_or_25_hours_where_the_clock_changes() {
        for (zone, unit, instant, start, end) in WINDOWS {
            let expected = ((*start).to_owned(), (*end).to_owned());
            assert_eq!(
                window(zone, *unit, instant),
                expected,
                "{zone} {unit:?} {instant}"
            );
        }
    }

    #[test]
    fn an_unknown_zone_is_refused() {
        for name in ["Mars/Olympus", "", "../../etc/passwd"] {
            assert!(Zone::parse(name).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn windows_follow_each_other(us in 0i64..4_102_444_800_000_000, zone in 0usize..8, unit in 0usize..7) {
            let zone = ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe",
                "Africa/Monrovia", "Asia/Beirut", "Pacific/Apia"][zone];
            let unit = [CalendarUnit::Second, CalendarUnit::Minute, CalendarUnit::Hour, CalendarUnit::Day,
                CalendarUnit::Week, CalendarUnit::Month, CalendarUnit::Year][unit];
            let (zone, instant) = (Zone::parse(zone).unwrap(), Timestamp::from_micros(us).unwrap());
            let window = zone.window(unit, instant);
            prop_assert!(window.contains(instant), "{window:?} {instant}");
            prop_assert_eq!(zone.window(unit, window.end).start, window.end);
            prop_assert_eq!(zone.window(unit, window.start), window);
            let last = window.end.plus_micros(-1);
            prop_assert_eq!(zone.window(unit, last), window);
            prop_assert!(unit == CalendarUnit::Second || window.start.is_whole_minute());
        }

        #[test]
        fn hours_in_a_row_are_those_found_one_by_one(day in -200i64..200, hours in 1i64..100, minute in 0i64..60, zone in 0usize..8, year in 0usize..4) {
            let zone = ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe",
                "Africa/Monrovia", "Africa/Casablanca", "Pacific/Apia"][zone];
            let zone = Zone::parse(zone).unwrap();
            let year = at(["2026-07-01T00:00:00Z", "1972-01-07T00:44:30Z", "2011-12-30T10:00:00Z", "9999-12-30T00:00:00Z"][year]);
            let start = year.plus_micros((day * 24 * 60 + minute) * super::super::MINUTE_US);
            let range = TimeRange::new(start, start.plus_micros(hours * HOUR_US + 7));
            let (mut one_by_one, mut from) = (Vec::new(), range.start);
            while from < range.end {
                let window = zone.window(CalendarUnit::Hour, from);
                one_by_one.extend(window.intersect(&range));
                from = window.end;
            }
            prop_assert_eq!(zone.windows(CalendarUnit::Hour, range).collect::<Vec<_>>(), one_by_one);
        }
    }
}
