//! Query strings in which names may repeat.

use percent_encoding::percent_decode_str;
use turnpike_domain::limits::USAGE_WINDOWS_MAX;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{CalendarUnit, TimeRange, Timestamp, Zone};
use turnpike_http::parse_time;

use crate::query::Windows;

/// Names and values of a query string, in order. What is read is taken out, so that what is left is unknown.
pub(super) struct Pairs(Vec<(String, String)>);

impl Pairs {
    pub(super) fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let pairs = query.unwrap_or("").split('&').filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(name)?, decoded(value)?))
        };
        pairs.map(pair).collect::<Result<_, Problem>>().map(Self)
    }

    /// All values of `name`; an error when one is empty.
    pub(super) fn all(&mut self, name: &str) -> Result<Vec<String>, Problem> {
        let all = self.take(name);
        if all.iter().any(String::is_empty) {
            let detail = "is empty: give it a value or leave it out";
            return Err(Problem::invalid(format!("/{name}"), detail));
        }
        Ok(all)
    }

    fn take(&mut self, name: &str) -> Vec<String> {
        let (taken, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(known, _)| known == name);
        self.0 = left;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// Whether `name` is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// The value of `name`; an error when it is empty or repeats.
    pub(super) fn one(&mut self, name: &str) -> Result<Option<String>, Problem> {
        single(name, self.all(name)?)
    }

    /// Leaves out what another reads.
    pub(super) fn leave_out(&mut self, names: &[&str]) {
        self.0.retain(|(name, _)| !names.contains(&name.as_str()));
    }

    /// The values of all `name[key]`, by key.
    pub(super) fn keyed(&mut self, name: &str) -> Vec<(String, Vec<String>)> {
        let key = |full: &str| {
            Some(
                full.strip_prefix(name)?
                    .strip_prefix('[')?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        };
        let mut keyed: Vec<(String, Vec<String>)> = Vec::new();
        self.0.retain(|(full, value)| {
            let Some(key) = key(full) else {
                return true;
            };
            match keyed.iter_mut().find(|(known, _)| *known == key) {
                Some((_, values)) => values.push(value.clone()),
                None => keyed.push((key, vec![value.clone()])),
            }
            false
        });
        keyed
    }

    /// An error when anything is left.
    pub(super) fn end(self) -> Result<(), Problem> {
        match self.0.first() {
            Some((name, _)) => Err(Problem::invalid(
                format!("/{name}"),
                "is no parameter of this path",
            )),
            None => Ok(()),
        }
    }
}

fn single(name: &str, mut all: Vec<String>) -> Result<Option<String>, Problem> {
    if all.len() > 1 {
        return Err(Problem::invalid(format!("/{name}"), "is given more than once"));
    }
    Ok(all.pop())
}

fn decoded(text: &str) -> Result<String, Problem> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Problem::new(Code::InvalidRequest, "the query string is not UTF-8"))
}

/// A time of a query string.
pub(super) fn time(pointer: &str, text: &str) -> Result<Timestamp, Problem> {
    parse_time(text).map_err(|error| Problem::invalid(pointer, error.to_string()))
}

/// A zone of a query string; UTC unless said.
pub(super) fn zone(pointer: &str, text: Option<&str>) -> Result<Zone, Problem> {
    text.map_or(Ok(Zone::UTC), |name| {
        Zone::parse(name).map_err(|error| Problem::invalid(pointer, error.to_string()))
    })
}

/// A length of windows.
pub(super) fn unit(pointer: &str, text: &str) -> Result<CalendarUnit, Problem> {
    match text {
        "minute" => Ok(CalendarUnit::Minute),
        "hour" => Ok(CalendarUnit::Hour),
        "day" => Ok(CalendarUnit::Day),
        "month" => Ok(CalendarUnit::Month),
        _ => Err(Problem::invalid(pointer, "must be minute, hour, day or month")),
    }
}

/// The windows of a range, each cut to it; the range itself without a unit. `pointer` is what the unit was named by.
pub(super) fn windows(
    pointer: &str,
    range: TimeRange,
    unit: Option<CalendarUnit>,
    zone: Zone,
) -> Result<Windows, Problem> {
    let windows = Windows::of(range, unit, zone);
    if windows.are_too_many() {
        let detail = format!("the range has more than {USAGE_WINDOWS_MAX} windows; ask for a shorter one");
        return Err(Problem::invalid(pointer, detail));
    }
    Ok(windows)
}

/// A range whose bounds must be whole minutes.
pub(super) fn whole_minutes(from: Timestamp, to: Timestamp) -> Result<TimeRange, Problem> {
    for (pointer, at) in [("/from", from), ("/to", to)] {
        if !at.is_whole_minute() && at != Timestamp::MAX {
            return Err(Problem::invalid(pointer, "must be on a whole minute"));
        }
    }
    if from >= to {
        return Err(Problem::invalid("/to", "must be after from"));
    }
    Ok(TimeRange::new(from, to))
}

/// The first whole minute not before `at`.
pub(super) fn ceil_minute(at: Timestamp) -> Timestamp {
    if at.is_whole_minute() {
        at
    } else {
        at.floor_minute().plus_micros(turnpike_domain::time::MINUTE_US)
    }
}

/// The end of a range that is open: the start of the minute after the one that `now` lies in, so that what was
/// accepted just now is contained, also while the clock stands on a whole minute.
pub(super) fn end_of_now(now: Timestamp) -> Timestamp {
    now.floor_minute().plus_micros(turnpike_domain::time::MINUTE_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_repeat_and_nothing_unknown_passes() {
        let mut pairs = Pairs::parse(Some("a=1&b=x%20y&a=2&f[m]=p&f[m]=q&f%5Bn%5D=r+s&c=")).unwrap();
        assert_eq!(pairs.all("a").unwrap(), ["1", "2"]);
        let text = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            pairs.keyed("f"),
            [
                ("m".to_owned(), text(&["p", "q"])),
                ("n".to_owned(), text(&["r s"]))
            ]
        );
        assert!(pairs.one("c").is_err());
        assert_eq!(pairs.one("d"), Ok(None));
        assert_eq!(pairs.one("b"), Ok(Some("x y".to_owned())));
        assert_eq!(pairs.end(), Ok(()));
        let mut twice = Pairs::parse(Some("a=1&a=2&z=3")).unwrap();
        assert!(twice.one("a").is_err());
        assert!(twice.end().is_err());
        assert!(Pairs::parse(Some("a=%ff")).is_err());
        let mut rest = Pairs::parse(Some("c=&f[m]=&c=1&d=2")).unwrap();
        rest.leave_out(&["c", "e"]);
        assert!(rest.has("d") && !rest.has("c"));
        assert_eq!(rest.keyed("f"), [("m".to_owned(), text(&[""]))]);
    }
}
