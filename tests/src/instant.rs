//! Instants as tests write them, in microseconds since 1970.

use jiff::Timestamp;

/// Microseconds of an hour.
pub const HOUR_US: i64 = 3_600_000_000;
/// Microseconds of a day.
pub const DAY_US: i64 = 24 * HOUR_US;

/// A time as the API shows it.
pub fn time(us: i64) -> String {
    Timestamp::from_microsecond(us).expect("a time").to_string()
}

/// The instant of a time that the API shows.
pub fn us(text: &str) -> i64 {
    let at: Timestamp = text.parse().expect("a time");
    at.as_microsecond()
}
