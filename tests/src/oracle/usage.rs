use std::collections::{BTreeMap, BTreeSet};

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed as _, Zero as _};
use serde_json::Value;

use super::calendar::{calendar, zoned};
use super::{Oracle, OracleEvent, decimal, show};

/// A meter as the oracle knows it. Paths are the names of members of `data`, without nesting.
#[derive(Debug, Clone, Default)]
pub struct OracleMeter {
    /// The events' type.
    pub event_type: String,
    /// One of the API's aggregations.
    pub aggregation: String,
    /// The member of `data` that holds the value.
    pub value: Option<String>,
    /// For `percentile`.
    pub percentile: Option<String>,
    /// Dimension → member of `data`.
    pub group_by: BTreeMap<String, String>,
    /// Member of `data` → values that let an event count.
    pub filter: BTreeMap<String, Vec<String>>,
}

/// Which usage is asked for.
#[derive(Debug, Clone, Default)]
pub struct Select {
    /// Subjects; empty means all.
    pub subjects: Vec<String>,
    /// Microseconds since 1970, inclusive.
    pub from_us: i64,
    /// Microseconds since 1970, exclusive.
    pub to_us: i64,
    /// `minute`, `hour`, `day` or `month`; none: one row.
    pub window: Option<String>,
    /// IANA zone of the windows; UTC unless said.
    pub zone: Option<String>,
    /// Dimensions to split by; `subject` splits by subject.
    pub group_by: Vec<String>,
    /// Dimension → values that are taken.
    pub filter: BTreeMap<String, Vec<String>>,
}

/// One row of an answer: start of the window in microseconds, group values in the order asked, value.
pub type Row = (i64, Vec<String>, Option<String>);

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

impl Oracle {
    /// The rows of a meter's usage, ordered by start and group; rows without events are left out.
    pub fn usage(&self, meter: &OracleMeter, select: &Select) -> Vec<Row> {
        let mut rows: BTreeMap<(i64, i64, Vec<String>), Vec<&OracleEvent>> = BTreeMap::new();
        let mut windows = Windows::new(select);
        for event in self.matching(meter, select) {
            if event.time_us < select.from_us || event.time_us >= select.to_us {
                continue;
            }
            let group = select
                .group_by
                .iter()
                .map(|name| group_value(meter, event, name))
                .collect();
            let (start, end) = windows.around(event.time_us);
            rows.entry((start, end, group)).or_default().push(event);
        }
        rows.into_iter()
            .map(|((start, _, group), events)| (start, group, value(meter, &events)))
            .collect()
    }

    /// The one value of a range, also when it is empty.
    pub fn total(&self, meter: &OracleMeter, select: &Select) -> Option<String> {
        let within = |event: &&OracleEvent| event.time_us >= select.from_us && event.time_us < select.to_us;
        let events: Vec<_> = self.matching(meter, select).filter(within).collect();
        if meter.aggregation == "time_weighted_sum" {
            self.time_weighted(meter, select)
        } else {
            value(meter, &events)
        }
    }

    fn matching<'a>(
        &'a self,
        meter: &'a OracleMeter,
        select: &'a Select,
    ) -> impl Iterator<Item = &'a OracleEvent> {
        self.live().filter(move |event| {
            let declared =
                |(member, values): (&String, &Vec<String>)| values.contains(&text(event.data.get(member)));
            let asked =
                |(name, values): (&String, &Vec<String>)| values.contains(&group_value(meter, event, name));
            event.kind == meter.event_type
                && (select.subjects.is_empty() || select.subjects.contains(&event.subject))
                && meter.filter.iter().all(declared)
                && select.filter.iter().all(asked)
                && meter
                    .value
                    .as_ref()
                    .is_none_or(|member| readable(meter, event.data.get(member)))
        })
    }

    /// Per series (subject and group): value × seconds until the next event, the last one before the range carried in.
    fn time_weighted(&self, meter: &OracleMeter, select: &Select) -> Option<String> {
        let mut series: BTreeMap<(String, Vec<String>), Vec<&OracleEvent>> = BTreeMap::new();
        for event in self
            .matching(meter, select)
            .filter(|event| event.time_us < select.to_us)
        {
            let group = meter
                .group_by
                .keys()
                .map(|name| group_value(meter, event, name))
                .collect();
            series
                .entry((event.subject.clone(), group))
                .or_default()
                .push(event);
        }
        if series.is_empty() {
            return None;
        }
        let mut sum = BigRational::zero();
        for events in series.values_mut() {
            events.sort_by_key(|event| order(event));
            let ends = events
                .iter()
                .skip(1)
                .map(|next| next.time_us)
                .chain([select.to_us])
                .collect::<Vec<_>>();
            for (event, end) in events.iter().zip(ends) {
                let us = end.max(select.from_us) - event.time_us.max(select.from_us);
                sum += number(meter, event) * BigRational::new(BigInt::from(us), BigInt::from(1_000_000));
            }
        }
        Some(show(&sum, 12))
    }
}

/// Whether a value can be read as the meter needs it: else the event is a dead letter of this meter.
fn readable(meter: &OracleMeter, value: Option<&Value>) -> bool {
    match value {
        Some(Value::Number(number)) => {
            let text = number.to_string();
            is_short(&text) || is_in_range(&decimal(&text))
        }
        Some(Value::String(text)) if meter.aggregation == "unique_count" => text.len() <= 512,
        Some(Value::String(text)) => {
            let is_decimal = text.parse::<f64>().is_ok_and(f64::is_finite) && !text.starts_with('+');
            is_decimal
                && (is_short(text) || {
                    let (value, parts) = (decimal(text), decimal("1e12"));
                    is_in_range(&value) && (value * parts).is_integer()
                })
        }
        _ => false,
    }
}

/// Whether a decimal is too short to be out of range or to have more than 12 places.
fn is_short(text: &str) -> bool {
    text.len() <= 13 && !text.contains(['e', 'E'])
}

/// At most 26 digits before the point.
fn is_in_range(value: &BigRational) -> bool {
    value.abs() < decimal("1e26")
}

fn order(event: &OracleEvent) -> (i64, String, String) {
    (event.time_us, event.source.clone(), event.id.clone())
}

fn group_value(meter: &OracleMeter, event: &OracleEvent, name: &str) -> String {
    if name == "subject" {
        return event.subject.clone();
    }
    text(meter.group_by.get(name).and_then(|member| event.data.get(member)))
}

fn number(meter: &OracleMeter, event: &OracleEvent) -> BigRational {
    decimal(&text(
        meter.value.as_ref().and_then(|member| event.data.get(member)),
    ))
}

fn value(meter: &OracleMeter, events: &[&OracleEvent]) -> Option<String> {
    let mut numbers: Vec<BigRational> = match meter.aggregation.as_str() {
        "count" | "unique_count" | "latest" => Vec::new(),
        _ => events.iter().map(|event| number(meter, event)).collect(),
    };
    numbers.sort();
    let sum = || numbers.iter().sum::<BigRational>();
    let count = BigRational::from(BigInt::from(events.len()));
    let value = match meter.aggregation.as_str() {
        "count" => count,
        "sum" => sum(),
        "unique_count" => {
            let member = meter.value.as_deref().unwrap_or("");
            let distinct: BTreeSet<_> = events
                .iter()
                .map(|event| event.data.get(member).map(distinct_key))
                .collect();
            BigRational::from(BigInt::from(distinct.len()))
        }
        _ if events.is_empty() => return None,
        "min" => numbers.first()?.clone(),
        "max" => numbers.last()?.clone(),
        "avg" => sum() / count,
        "latest" => number(meter, events.iter().max_by_key(|event| order(event))?),
        "percentile" => {
            let share = decimal(meter.percentile.as_deref()?) / BigRational::from(BigInt::from(100));
            let rank: usize = (share * count).ceil().to_integer().try_into().ok()?;
            numbers.get(rank.max(1) - 1)?.clone()
        }
        other => panic!("the oracle does not know the aggregation {other}"),
    };
    Some(show(&value, 12))
}

/// Numbers are the same by meaning; a text is never the same as a number.
fn distinct_key(value: &Value) -> String {
    match value {
        Value::Number(number) => format!("n{}", show(&decimal(&number.to_string()), 12)),
        other => format!("s{}", text(Some(other))),
    }
}

/// The windows of a selection; each is derived from the calendar once.
struct Windows<'a> {
    select: &'a Select,
    /// Start → end of those that were asked for.
    known: BTreeMap<i64, i64>,
}

impl<'a> Windows<'a> {
    const fn new(select: &'a Select) -> Self {
        let known = BTreeMap::new();
        Self { select, known }
    }

    /// The window around an instant, cut to the selection.
    fn around(&mut self, time_us: i64) -> (i64, i64) {
        let Some(unit) = &self.select.window else {
            return (self.select.from_us, self.select.to_us);
        };
        let before = self.known.range(..=time_us).next_back();
        let found = before.map(|(start, end)| (*start, *end));
        let (start, end) = found.filter(|(_, end)| time_us < *end).unwrap_or_else(|| {
            let zone = self.select.zone.as_deref().unwrap_or("UTC");
            calendar(unit, &zoned(time_us, zone))
        });
        self.known.insert(start, end);
        (start.max(self.select.from_us), end.min(self.select.to_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Verdict;

    fn event(id: &str, time_s: i64, value: &str) -> OracleEvent {
        OracleEvent {
            source: "s".into(),
            id: id.into(),
            kind: "t".into(),
            subject: "c".into(),
            time_us: time_s * 1_000_000,
            data: serde_json::json!({ "v": value }),
        }
    }

    #[test]
    fn every_aggregation_by_hand() {
        let mut oracle = Oracle::default();
        for (id, time, value) in [("a", 10, "1"), ("b", 20, "4"), ("c", 50, "2.5"), ("d", 50, "4")] {
            assert_eq!(oracle.send(event(id, time, value)), Verdict::Accepted);
        }
        assert_eq!(oracle.send(event("a", 10, "1")), Verdict::Duplicate);
        assert_eq!(oracle.send(event("a", 10, "2")), Verdict::Conflict);
        let select = Select {
            from_us: 0,
            to_us: 60_000_000,
            ..Select::default()
        };
        for (aggregation, expected) in [
            ("count", "4"),
            ("sum", "11.5"),
            ("min", "1"),
            ("max", "4"),
            ("avg", "2.875"),
            ("unique_count", "3"),
            ("latest", "4"),
            ("percentile", "2.5"),
            ("time_weighted_sum", "170"),
        ] {
            let meter = OracleMeter {
                event_type: "t".into(),
                aggregation: aggregation.into(),
                value: Some("v".into()),
                percentile: Some("50".into()),
                ..OracleMeter::default()
            };
            assert_eq!(
                oracle.total(&meter, &select).as_deref(),
                Some(expected),
                "{aggregation}"
            );
        }
        let count = OracleMeter {
            event_type: "t".into(),
            aggregation: "count".into(),
            ..OracleMeter::default()
        };
        assert!(oracle.void("s", "a") && !oracle.amend("s", "a", None, Some(1)));
        assert_eq!(oracle.total(&count, &select).as_deref(), Some("3"));
    }

    #[test]
    fn what_a_meter_can_read() {
        let sum = OracleMeter {
            aggregation: "sum".into(),
            ..OracleMeter::default()
        };
        for (value, expected) in [
            ("1", true),
            ("\"12.5\"", true),
            ("1e25", true),
            ("1e26", false),
            ("-1e40", false),
            ("\"99999999999999999999999999.999999999999\"", true),
            ("\"100000000000000000000000000\"", false),
            ("\"0.000000000001\"", true),
            ("\"0.0000000000001\"", false),
            ("0.0000000000001", true),
            ("\"abc\"", false),
            ("\"+1\"", false),
            ("true", false),
            ("null", false),
        ] {
            let value: Value = serde_json::from_str(value).expect("JSON");
            assert_eq!(readable(&sum, Some(&value)), expected, "{value}");
        }
        assert!(!readable(&sum, None));
    }

    #[test]
    fn windows_are_found_again() {
        let select = Select {
            from_us: 0,
            to_us: i64::MAX,
            window: Some("hour".into()),
            ..Select::default()
        };
        let (mut windows, hour) = (Windows::new(&select), 3_600_000_000);
        for at in [2 * hour + 5, 5, 2 * hour, 2 * hour - 1, 3 * hour - 1, 0] {
            let start = at - at % hour;
            assert_eq!(windows.around(at), (start, start + hour), "{at}");
        }
        assert_eq!(windows.known.len(), 3);
    }
}
