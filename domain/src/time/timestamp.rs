use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::MINUTE_US;

/// An instant in UTC: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// Why a text is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Not RFC 3339.
    #[error("is not an RFC 3339 time such as 2026-01-31T23:59:59.5Z")]
    Malformed,
    /// Outside the years 1970 to 9999.
    #[error("lies outside the years 1970 to 9999")]
    OutOfRange,
}

/// 9999-12-31T23:59:59.999999Z.
const MAX_US: i64 = 253_402_300_799_999_999;

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);
    /// The last instant of the year 9999.
    pub const MAX: Self = Self(MAX_US);

    /// From microseconds since 1970; an error outside the years 1970 to 9999.
    pub const fn from_micros(us: i64) -> Result<Self, TimeError> {
        if us < 0 || us > MAX_US {
            Err(TimeError::OutOfRange)
        } else {
            Ok(Self(us))
        }
    }

    /// From microseconds since 1970, cut to the years 1970 to 9999.
    pub const fn from_micros_clamped(us: i64) -> Self {
        if us < 0 {
            Self(0)
        } else if us > MAX_US {
            Self(MAX_US)
        } else {
            Self(us)
        }
    }

    /// Microseconds since 1970.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The whole minutes since 1970.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "instants lie between 1970 and MAX_US, whose minutes fit 32 bits"
    )]
    pub const fn minute(self) -> u32 {
        (self.0 / MINUTE_US) as u32
    }

    /// The start of a minute counted since 1970.
    pub const fn from_minute(minute: u32) -> Self {
        Self::from_micros_clamped(minute as i64 * MINUTE_US)
    }

    /// The instant cut to its minute.
    #[must_use]
    pub const fn floor_minute(self) -> Self {
        Self(self.0 - self.0 % MINUTE_US)
    }

    /// Whether the instant is on a whole minute.
    pub const fn is_whole_minute(self) -> bool {
        self.0 % MINUTE_US == 0
    }

    /// The instant `us` microseconds later (earlier when negative), cut to the years 1970 to 9999.
    #[must_use]
    pub const fn plus_micros(self, us: i64) -> Self {
        Self::from_micros_clamped(self.0.saturating_add(us))
    }

    /// Reads RFC 3339. Digits beyond the microsecond are cut; a leap second counts as the second before it.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        let bytes = text.as_bytes();
        let digits = |from: usize, to: usize| -> Result<i64, TimeError> {
            let part = bytes.get(from..to).ok_or(TimeError::Malformed)?;
            part.iter().try_fold(0i64, |n, b| match b {
                b'0'..=b'9' => Ok(n * 10 + i64::from(b - b'0')),
                _ => Err(TimeError::Malformed),
            })
        };
        let is = |at: usize, set: &[u8]| bytes.get(at).is_some_and(|b| set.contains(b));
        if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
            return Err(TimeError::Malformed);
        }
        let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
        let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
        let valid_date = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
        if !valid_date || hour > 23 || minute > 59 || second > 60 {
            return Err(TimeError::Malformed);
        }
        let (fraction_us, rest) = fraction(&bytes[19..])?;
        let offset_s = offset(rest)?;
        let seconds =
            days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second.min(59);
        Self::from_micros((seconds - offset_s) * 1_000_000 + fraction_us)
    }
}

fn fraction(bytes: &[u8]) -> Result<(i64, &[u8]), TimeError> {
    let Some((b'.', rest)) = bytes.split_first() else {
        return Ok((0, bytes));
    };
    let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if count == 0 {
        return Err(TimeError::Malformed);
    }
    let us = (0..6).fold(0, |us, at| {
        us * 10 + if at < count { i64::from(rest[at] - b'0') } else { 0 }
    });
    Ok((us, &rest[count..]))
}

fn offset(bytes: &[u8]) -> Result<i64, TimeError> {
    let (sign, rest) = match bytes {
        [b'Z' | b'z'] => return Ok(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return Err(TimeError::Malformed),
    };
    let [h1, h2, b':', m1, m2] = rest else {
        return Err(TimeError::Malformed);
    };
    if ![h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()) {
        return Err(TimeError::Malformed);
    }
    let two = |a: &u8, b: &u8| i64::from(a - b'0') * 10 + i64::from(b - b'0');
    let (hours, minutes) = (two(h1, h2), two(m1, m2));
    if hours > 23 || minutes > 59 {
        return Err(TimeError::Malformed);
    }
    Ok(sign * (hours * 3_600 + minutes * 60))
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + is_leap(year) as i64,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y - era * 400;
    let shifted_month = (month + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The reverse: year, month and day. Source: as above.
const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// An instant as RFC 3339 has it, in UTC, without zeros at the end of its fraction.
struct Text {
    bytes: [u8; 27],
    len: usize,
}

impl Text {
    /// By hand, for the calendar library ends a day before the year 9999 does, and answers have many of them.
    fn new(time: Timestamp) -> Self {
        let (seconds, fraction_us) = (time.0 / 1_000_000, time.0 % 1_000_000);
        let (year, month, day) = civil_from_days(seconds / 86_400);
        let mut text = Self {
            bytes: *b"0000-00-00T00:00:00.000000Z",
            len: 27,
        };
        text.put(0, 4, year);
        text.put(5, 2, month);
        text.put(8, 2, day);
        text.put(11, 2, seconds / 3_600 % 24);
        text.put(14, 2, seconds / 60 % 60);
        text.put(17, 2, seconds % 60);
        if fraction_us == 0 {
            text.len = 20;
            text.bytes[19] = b'Z';
            return text;
        }
        text.put(20, 6, fraction_us);
        while text.bytes[text.len - 2] == b'0' {
            text.len -= 1;
        }
        text.bytes[text.len - 1] = b'Z';
        text
    }

    fn put(&mut self, at: usize, width: usize, mut number: i64) {
        for byte in self.bytes[at..at + width].iter_mut().rev() {
            let [digit, ..] = (number % 10).to_le_bytes();
            *byte = b'0' + digit;
            number /= 10;
        }
    }

    fn as_str(&self) -> &str {
        // Digits and what stands between them are ASCII.
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Text::new(*self).as_str())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Text::new(*self).as_str())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The instants from `start` until before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TimeRange {
    /// The first instant.
    pub start: Timestamp,
    /// The instant behind the last.
    pub end: Timestamp,
}

impl TimeRange {
    /// All of time.
    pub const ALL: Self = Self {
        start: Timestamp::EPOCH,
        end: Timestamp::MAX,
    };

    /// `[start, end)`.
    pub const fn new(start: Timestamp, end: Timestamp) -> Self {
        Self { start, end }
    }

    /// Whether `at` lies in the range.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }

    /// What both ranges share, `None` when that is nothing.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let shared = Self {
            start: self.start.max(other.start),
            end: self.end.min(other.end),
        };
        (shared.start < shared.end).then_some(shared)
    }

    /// What lies outside the other range, oldest first: none, one or two.
    pub fn without(&self, other: &Self) -> impl Iterator<Item = Self> + use<> {
        let parts = match self.intersect(other) {
            None => [Some(*self), None],
            Some(shared) => [
                Some(Self::new(self.start, shared.start)),
                Some(Self::new(shared.end, self.end)),
            ],
        };
        parts.into_iter().flatten().filter(|part| part.start < part.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_range_without_another() {
        let at = |n: i64| Timestamp::from_micros_clamped(n);
        let range = |(from, to): (i64, i64)| TimeRange::new(at(from), at(to));
        for (other, left) in [
            ((0, 5), vec![(10, 20)]),
            ((20, 30), vec![(10, 20)]),
            ((5, 15), vec![(15, 20)]),
            ((12, 15), vec![(10, 12), (15, 20)]),
            ((10, 20), vec![]),
            ((15, 40), vec![(10, 15)]),
            ((15, 15), vec![(10, 20)]),
        ] {
            let found: Vec<_> = range((10, 20)).without(&range(other)).collect();
            assert_eq!(
                found,
                left.into_iter().map(range).collect::<Vec<_>>(),
                "{other:?}"
            );
        }
    }

    #[test]
    fn the_last_hours_of_the_year_9999_are_written_as_they_are_read() {
        for text in [
            "9999-12-30T21:59:59.999999Z",
            "9999-12-30T23:59:59.5Z",
            "9999-12-31T23:59:00Z",
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn reads_rfc_3339() {
        for (text, us) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.000001Z", 1),
            ("1970-01-01T02:00:00+02:00", 0),
            ("2024-02-29T23:59:59.9999999z", 1_709_251_199_999_999),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000_000),
            ("1969-12-31T23:00:00-01:30", 1_800_000_000),
        ] {
            assert_eq!(Timestamp::parse(text).map(Timestamp::micros), Ok(us), "{text}");
        }
    }

    #[test]
    fn the_last_day_is_written_as_it_is_read() {
        for text in [
            "9999-12-30T22:00:01Z",
            "9999-12-31T23:59:00Z",
            "9999-12-31T23:59:59.999999Z",
            "1970-01-01T00:00:00Z",
            "2000-02-29T12:30:00.05Z",
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "now",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:61Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+0200",
            "2026-01-01T00:00:00+24:00",
            "1969-12-31T23:59:59Z",
            "2026-1-01T00:00:00Z",
            "2026-01-01T00:00:00ZZ",
            "1700000000",
            "２０２６-01-01T00:00:00Z",
        ] {
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn display_then_parse_is_the_same(us in 0..=MAX_US) {
            let at = Timestamp::from_micros(us).unwrap();
            prop_assert_eq!(Timestamp::parse(&at.to_string()), Ok(at));
        }
    }
}
