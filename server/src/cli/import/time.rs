use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;
use turnpike_domain::time::Timestamp;

/// A time with all that a format may tell, to try formats with.
const EXAMPLE: jiff::Timestamp = jiff::Timestamp::constant(1_700_158_623, 0);

/// How the times of a file are written.
#[derive(Debug, Clone)]
pub(crate) struct TimeReader {
    format: Option<String>,
    zone: TimeZone,
}

impl TimeReader {
    /// Times in `format` (strptime's), or in one of the usual ones; those without a zone are in `zone`. An error for a
    /// format that no time can be read in.
    pub(crate) fn new(format: Option<String>, zone: &str) -> Result<Self, String> {
        let zone = TimeZone::get(zone)
            .map_err(|_| format!("\"{zone}\" is no IANA time zone, such as Europe/Istanbul"))?;
        let reader = Self { format, zone };
        if let Some(format) = &reader.format {
            let wrong = |why: &str| format!("--time-format {format}: {why}");
            let example = BrokenDownTime::from(&EXAMPLE.to_zoned(TimeZone::UTC));
            let written = example
                .to_string(format)
                .map_err(|error| wrong(&error.to_string()))?;
            if reader.by_format(format, &written).is_none() {
                return Err(wrong(
                    "no time can be read in it; it must tell year, month, day and time, as \"%d.%m.%Y %H:%M:%S\" does",
                ));
            }
        }
        Ok(reader)
    }

    /// The instant that `text` means. Digits beyond the microsecond are cut.
    pub(crate) fn read(&self, text: &str) -> Result<Timestamp, String> {
        let text = text.trim();
        let read = match &self.format {
            Some(format) => self.by_format(format, text),
            None => self.usual(text),
        };
        let us = read.ok_or_else(|| match &self.format {
            Some(format) => format!("\"{text}\" is not a time of the format {format}"),
            None => format!("\"{text}\" is not a time of a usual format; say which with --time-format"),
        })?;
        Timestamp::from_micros(us).map_err(|error| format!("\"{text}\" {error}"))
    }

    fn by_format(&self, format: &str, text: &str) -> Option<i64> {
        let broken = BrokenDownTime::parse(format, text).ok()?;
        if broken.offset().is_some() || broken.timestamp().is_some() {
            return Some(broken.to_timestamp().ok()?.as_microsecond());
        }
        if broken.iana_time_zone().is_some() {
            return Some(broken.to_zoned().ok()?.timestamp().as_microsecond());
        }
        self.in_zone(broken.to_datetime().ok()?)
    }

    /// RFC 3339, the same without a zone, or seconds, milliseconds or microseconds since 1970, told by their length.
    fn usual(&self, text: &str) -> Option<i64> {
        if let Ok(at) = Timestamp::parse(text) {
            return Some(at.micros());
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let number: i64 = text.parse().ok()?;
            return match text.len() {
                9 | 10 => number.checked_mul(1_000_000),
                12 | 13 => number.checked_mul(1_000),
                15 | 16 => Some(number),
                _ => None,
            };
        }
        self.in_zone(text.parse().ok()?)
    }

    fn in_zone(&self, at: DateTime) -> Option<i64> {
        Some(at.to_zoned(self.zone.clone()).ok()?.timestamp().as_microsecond())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Option<&str>, zone: &str, text: &str) -> Result<String, String> {
        TimeReader::new(format.map(str::to_owned), zone)
            .unwrap()
            .read(text)
            .map(|at| at.to_string())
    }

    #[test]
    fn usual_formats_are_known() {
        for (zone, text, expected) in [
            ("UTC", "2023-11-16 18:17:03.9799600", "2023-11-16T18:17:03.97996Z"),
            ("UTC", "2023-11-16T18:17:03Z", "2023-11-16T18:17:03Z"),
            ("Europe/Istanbul", "2023-11-16 18:17:03", "2023-11-16T15:17:03Z"),
            (
                "Europe/Istanbul",
                "2023-11-16T18:17:03+00:00",
                "2023-11-16T18:17:03Z",
            ),
            ("UTC", "1700158623", "2023-11-16T18:17:03Z"),
            ("UTC", "1700158623123", "2023-11-16T18:17:03.123Z"),
            ("UTC", "1700158623123456", "2023-11-16T18:17:03.123456Z"),
            ("UTC", "2023-11-16", "2023-11-16T00:00:00Z"),
        ] {
            assert_eq!(read(None, zone, text).as_deref(), Ok(expected), "{text} {zone}");
        }
    }

    #[test]
    fn formats_can_be_given() {
        let apache = Some("%d/%b/%Y:%H:%M:%S %z");
        assert_eq!(
            read(apache, "UTC", "17/May/2015:10:05:03 +0200").as_deref(),
            Ok("2015-05-17T08:05:03Z")
        );
        assert_eq!(
            read(Some("%d.%m.%Y %H:%M"), "Europe/Berlin", "01.07.2024 12:00").as_deref(),
            Ok("2024-07-01T10:00:00Z")
        );
        assert!(read(apache, "UTC", "yesterday").unwrap_err().contains("%d/%b/%Y"));
    }

    #[test]
    fn formats_that_read_no_time_are_refused_at_once() {
        for (format, word) in [
            ("%d.%m.%Y %E", "%E"),
            ("%Q", "no time can be read"),
            ("%H:%M", "no time can be read"),
            ("%", "%"),
            ("", "no time can be read"),
            ("noon", "no time can be read"),
        ] {
            let refused = TimeReader::new(Some(format.to_owned()), "UTC").unwrap_err();
            let said = refused.starts_with("--time-format ") && refused.contains(word);
            assert!(said, "{format}: {refused}");
        }
        for format in [
            "%s",
            "%Y-%m-%dT%H:%M:%S%.f%z",
            "%F %T",
            "%d/%b/%y %I:%M %p",
            "%Y-%m-%d",
            "%F %T %Q",
            "%a, %d %b %Y %T %z",
        ] {
            assert!(
                TimeReader::new(Some(format.to_owned()), "UTC").is_ok(),
                "{format}"
            );
        }
        assert_eq!(
            read(Some("%s"), "Europe/Berlin", "1700158623").as_deref(),
            Ok("2023-11-16T18:17:03Z")
        );
        assert_eq!(
            read(Some("%F %T %Q"), "UTC", "2024-07-01 12:00:00 Europe/Berlin").as_deref(),
            Ok("2024-07-01T10:00:00Z")
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "soon",
            "12",
            "99999999999999999999",
            "1960-01-01T00:00:00Z",
            "2023-02-30 00:00:00",
        ] {
            assert!(read(None, "UTC", text).is_err(), "{text}");
        }
        assert!(TimeReader::new(None, "Mars/Base").is_err());
    }
}
