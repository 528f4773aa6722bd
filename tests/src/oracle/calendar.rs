use jiff::{Timestamp, ToSpan as _, Zoned};

/// The instant of `us` microseconds since 1970, in a zone.
pub(super) fn zoned(us: i64, zone: &str) -> Zoned {
    let at = Timestamp::from_microsecond(us).expect("a time");
    at.in_tz(zone).expect("a zone")
}

/// The window of the calendar around an instant, `[start, end)` in microseconds since 1970.
///
/// # Panics
/// Where there is no such unit.
pub(super) fn calendar(unit: &str, at: &Zoned) -> (i64, i64) {
    let us = |zoned: &Zoned| zoned.timestamp().as_microsecond();
    let day = |date: jiff::civil::Date| us(&date.to_zoned(at.time_zone().clone()).expect("a day"));
    let aligned = |width: i64| (us(at) - us(at) % width, us(at) - us(at) % width + width);
    let first = at.date().first_of_month();
    match unit {
        "second" => aligned(1_000_000),
        "minute" => aligned(60_000_000),
        "hour" => {
            let into = i64::from(at.minute()) * 60_000_000 + us(at) % 60_000_000;
            (us(at) - into, us(at) - into + 3_600_000_000)
        }
        "day" => (day(at.date()), day(at.date().tomorrow().expect("a day"))),
        "week" => {
            let back = i64::from(at.weekday().to_monday_zero_offset());
            let monday = at.date().checked_sub(back.days()).expect("a day");
            (day(monday), day(monday.checked_add(1.week()).expect("a day")))
        }
        "month" => (day(first), day(first.checked_add(1.month()).expect("a month"))),
        other => panic!("the oracle does not know the window {other}"),
    }
}

/// Boundary `n` of the monthly periods that are counted from an anchor: the anchor's local date and time plus `n`
/// months, a day that a month lacks being its last.
pub fn month_boundary(anchor_us: i64, zone: &str, n: i64) -> i64 {
    let anchor = zoned(anchor_us - anchor_us % 60_000_000, zone);
    let local = anchor.datetime().checked_add(n.months()).expect("a month");
    let at = local.to_zoned(anchor.time_zone().clone()).expect("an instant");
    at.timestamp().as_microsecond()
}

/// The monthly period around an instant that is not before the anchor: its number, and `[start, end)`.
pub fn month_period(anchor_us: i64, zone: &str, at_us: i64) -> (i64, i64, i64) {
    let mut n = 0;
    while month_boundary(anchor_us, zone, n + 1) <= at_us {
        n += 1;
    }
    (
        n,
        month_boundary(anchor_us, zone, n),
        month_boundary(anchor_us, zone, n + 1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("a time").as_microsecond()
    }

    #[test]
    fn windows_and_periods_by_hand() {
        let window = |unit, at, zone| calendar(unit, &zoned(us(at), zone));
        let hours = |(start, end): (i64, i64)| (end - start) / 3_600_000_000;
        // The clock is changed on these days.
        assert_eq!(hours(window("day", "2026-03-29T10:00:00Z", "Europe/Berlin")), 23);
        assert_eq!(hours(window("day", "2026-10-25T10:00:00Z", "Europe/Berlin")), 25);
        assert_eq!(
            window("week", "2026-11-22T23:59:59Z", "UTC"),
            (us("2026-11-16T00:00:00Z"), us("2026-11-23T00:00:00Z"))
        );
        assert_eq!(hours(window("month", "2028-02-29T00:00:00Z", "UTC")), 29 * 24);
        let anchor = us("2026-01-31T10:30:00Z");
        assert_eq!(month_boundary(anchor, "UTC", 1), us("2026-02-28T10:30:00Z"));
        assert_eq!(month_boundary(anchor, "UTC", 2), us("2026-03-31T10:30:00Z"));
        let edge = us("2026-02-28T10:30:00Z");
        assert_eq!(month_period(anchor, "UTC", edge - 1).0, 0);
        assert_eq!(
            month_period(anchor, "UTC", edge),
            (1, edge, us("2026-03-31T10:30:00Z"))
        );
    }
}
