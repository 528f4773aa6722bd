use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::path::Path;
use super::scalar::number_text;
use crate::catalog::{KEY_RULE, is_key};
use crate::identity::MeterId;
use crate::limits::{METER_DIMENSIONS_MAX, METER_FILTER_VALUES_MAX, METER_TEXT_BYTES_MAX, NAME_BYTES_MAX};
use crate::problem::Problem;
use crate::quantity::Quantity;
use crate::quantity::wire::{Written, written};

/// How a meter adds up its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// The number of events.
    Count,
    /// The sum of the values.
    Sum,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
    /// Sum by count, rounded half up at 12 places when answered.
    Avg,
    /// The number of distinct values, exactly. A string and a number are never the same value.
    UniqueCount,
    /// The value of the last event; among equal times that of the greatest (source, id).
    Latest,
    /// Value × seconds until the next event, the last value carried into the window.
    TimeWeightedSum,
    /// A percentile by nearest rank.
    Percentile,
}

/// A function of all events of one type. Its definition never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    /// Its number.
    pub id: MeterId,
    /// Its key.
    pub key: String,
    /// The events' `type`.
    pub event_type: String,
    /// How values are added up.
    pub aggregation: Aggregation,
    /// Path of the value in `data`, such as `$.tokens`; none for `count`.
    pub value: Option<String>,
    /// For `percentile`: above 0 up to 100, a decimal.
    pub percentile: Option<String>,
    /// Dimension → path of its value in `data`.
    pub group_by: BTreeMap<String, String>,
    /// Path → the values that let an event count; all paths must agree. Numbers stand as their plain decimal.
    pub filter: BTreeMap<String, Vec<String>>,
}

/// A meter as it is declared: the body of `PUT /v1/meters/{key}`, and an entry of a catalog file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MeterDefinition {
    /// Its key; optional where the path has it.
    #[serde(default)]
    pub key: String,
    /// The `type` of the events that it reads: 1 to 512 bytes.
    #[schema(min_length = 1, max_length = 512)]
    pub event_type: String,
    /// How values are added up.
    pub aggregation: Aggregation,
    /// Path of the value in `data`, such as `$.tokens`; for all but `count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// For `percentile`: above 0 up to 100.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::quantity::wire::decimal_text_or_none"
    )]
    pub percentile: Option<String>,
    /// Dimension → path of its value in `data`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub group_by: BTreeMap<String, String>,
    /// Path → the values that let an event count; all paths must agree.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, Vec<String>>)]
    pub filter: BTreeMap<String, Vec<FilterValue>>,
    /// How far the meter is, as a GET shows it: taken, so that what was shown can be sent back, and not looked at.
    #[serde(default, skip_serializing, deserialize_with = "ignored")]
    #[schema(ignore)]
    pub backfill: (),
}

fn ignored<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(drop)
}

/// A value of a filter: a string, number or boolean, kept as the text that it is compared by. A number stands as its
/// plain decimal, so `200`, `2e2` and `"200"` mean the same, and so do `true` and `"true"`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct FilterValue(pub String);

impl<'de> Deserialize<'de> for FilterValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(
            match written(deserializer, "a string, number or boolean")? {
                Written::Text(text) => text.into_owned(),
                Written::Number(number) => number_text(&number).into_owned(),
                Written::Bool(value) => value.to_string(),
            },
        ))
    }
}

impl MeterDefinition {
    /// The definition of `meter`.
    pub fn of(meter: &Meter) -> Self {
        let values = |values: &Vec<String>| values.iter().cloned().map(FilterValue).collect();
        Self {
            key: meter.key.clone(),
            event_type: meter.event_type.clone(),
            aggregation: meter.aggregation,
            value: meter.value.clone(),
            percentile: meter.percentile.clone(),
            group_by: meter.group_by.clone(),
            filter: meter
                .filter
                .iter()
                .map(|(path, all)| (path.clone(), values(all)))
                .collect(),
            backfill: (),
        }
    }

    /// The meter with number `id`, or what is wrong with the definition.
    pub fn into_meter(self, id: MeterId) -> Result<Meter, Problem> {
        self.check_names()?;
        let percentile = self.checked_value()?;
        self.check_filter()?;
        let texts = |values: Vec<FilterValue>| {
            let mut texts: Vec<String> = values.into_iter().map(|value| value.0).collect();
            texts.sort_unstable();
            texts.dedup();
            texts
        };
        Ok(Meter {
            id,
            key: self.key,
            event_type: self.event_type,
            aggregation: self.aggregation,
            value: self.value,
            percentile: percentile.map(|p| p.to_string()),
            group_by: self.group_by,
            filter: self
                .filter
                .into_iter()
                .map(|(path, values)| (path, texts(values)))
                .collect(),
        })
    }

    fn check_names(&self) -> Result<(), Problem> {
        if !is_key(&self.key) {
            return Err(Problem::invalid("/key", KEY_RULE));
        }
        if self.event_type.is_empty() || self.event_type.len() > NAME_BYTES_MAX {
            let detail = format!("must be 1 to {NAME_BYTES_MAX} bytes");
            return Err(Problem::invalid("/event_type", detail));
        }
        if self.group_by.len() > METER_DIMENSIONS_MAX {
            let detail = format!("has more than {METER_DIMENSIONS_MAX} dimensions");
            return Err(Problem::invalid("/group_by", detail));
        }
        for (name, path) in &self.group_by {
            let pointer = format!("/group_by/{}", escaped(name));
            if !is_key(name) || matches!(name.as_str(), "customer" | "subject") {
                let detail =
                    "a dimension is named by letters, digits, or _ - . : @ / +, and not customer or subject";
                return Err(Problem::invalid(pointer, detail));
            }
            check_path(&pointer, path)?;
        }
        Ok(())
    }

    /// Checks `value` and `percentile`, and reads the latter.
    fn checked_value(&self) -> Result<Option<Quantity>, Problem> {
        match (&self.value, self.aggregation) {
            (None, Aggregation::Count) => {}
            (Some(_), Aggregation::Count) => {
                return Err(Problem::invalid("/value", "is not used by count: leave it out"));
            }
            (None, _) => {
                return Err(Problem::invalid(
                    "/value",
                    "is needed by all aggregations but count",
                ));
            }
            (Some(path), _) => check_path("/value", path)?,
        }
        match (&self.percentile, self.aggregation) {
            (None, Aggregation::Percentile) => {
                Err(Problem::invalid("/percentile", "is needed: above 0, up to 100"))
            }
            (Some(text), Aggregation::Percentile) => match Quantity::parse(text) {
                Ok(p) if p > Quantity::ZERO && p <= Quantity::from_units(100) => Ok(Some(p)),
                _ => Err(Problem::invalid(
                    "/percentile",
                    "must be a decimal above 0, up to 100",
                )),
            },
            (Some(_), _) => Err(Problem::invalid(
                "/percentile",
                "belongs to the aggregation percentile only",
            )),
            (None, _) => Ok(None),
        }
    }

    fn check_filter(&self) -> Result<(), Problem> {
        if self.filter.len() > METER_DIMENSIONS_MAX {
            let detail = format!("has more than {METER_DIMENSIONS_MAX} paths");
            return Err(Problem::invalid("/filter", detail));
        }
        for (path, values) in &self.filter {
            let pointer = format!("/filter/{}", escaped(path));
            check_path(&pointer, path)?;
            if values.is_empty() || values.len() > METER_FILTER_VALUES_MAX {
                let detail = format!("must have 1 to {METER_FILTER_VALUES_MAX} values");
                return Err(Problem::invalid(pointer, detail));
            }
            if values.iter().any(|value| value.0.len() > METER_TEXT_BYTES_MAX) {
                let detail = format!("has a value of more than {METER_TEXT_BYTES_MAX} bytes");
                return Err(Problem::invalid(pointer, detail));
            }
        }
        Ok(())
    }
}

fn check_path(pointer: &str, path: &str) -> Result<(), Problem> {
    match Path::parse(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(Problem::invalid(pointer, format!("is no path: {error}"))),
    }
}

/// A name as a segment of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde::de::IntoDeserializer as _;
    use serde::de::value::F64Deserializer;

    use super::*;

    fn read(json: &str) -> Result<Meter, Problem> {
        let definition: MeterDefinition =
            serde_json::from_str(json).map_err(|error| Problem::invalid("", error.to_string()))?;
        definition.into_meter(MeterId(7))
    }

    #[test]
    fn numbers_of_filters_are_taken_as_they_were_written() {
        let filter = |value: &str| {
            let json = format!(
                r#"{{"key": "m", "event_type": "t", "aggregation": "count", "filter": {{"$.n": [{value}]}}}}"#
            );
            read(&json).map(|meter| meter.filter["$.n"][0].clone())
        };
        for (value, text) in [
            ("12345678901234567890123", "12345678901234567890123"),
            ("123456789.123456789123", "123456789.123456789123"),
            ("0.30000000000000004000", "0.30000000000000004"),
            ("2e2", "200"),
            ("\"2e2\"", "2e2"),
            ("true", "true"),
        ] {
            assert_eq!(filter(value).as_deref(), Ok(text), "{value}");
        }
        for wrong in ["null", "[1]", "{}"] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
        // As other formats hand numbers out.
        let float = |value: f64| {
            let reader: F64Deserializer<serde::de::value::Error> = value.into_deserializer();
            FilterValue::deserialize(reader).map(|value| value.0)
        };
        assert_eq!(float(0.25).as_deref(), Ok("0.25"));
        assert!(float(123_456_789.123_456_79).is_err());
    }

    #[test]
    fn what_was_shown_can_be_sent_back() {
        let shown =
            r#"{"key": "m", "event_type": "t", "aggregation": "count", "backfill": {"complete": true}}"#;
        let read: MeterDefinition = serde_json::from_str(shown).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap().get("backfill"), None);
        assert!(serde_json::from_str::<MeterDefinition>(&shown.replace("backfill", "other")).is_err());
    }

    #[test]
    fn reads_the_example_of_the_contract() {
        let meter = read(
            r#"{"key": "tokens", "event_type": "llm.request", "aggregation": "sum", "value": "$.tokens",
                "group_by": {"model": "$.model"}, "filter": {"$.status": ["ok", 200, 2.0e2, true]}}"#,
        )
        .unwrap();
        assert_eq!(meter.id, MeterId(7));
        assert_eq!(meter.filter["$.status"], ["200", "ok", "true"]);
        assert_eq!(MeterDefinition::of(&meter).into_meter(MeterId(7)), Ok(meter));
    }

    #[test]
    fn reads_percentiles_as_strings_or_numbers() {
        for (text, kept) in [(r#""95""#, "95"), ("99.9", "99.9"), (r#""100.00""#, "100")] {
            let json = format!(
                r#"{{"key": "p", "event_type": "t", "aggregation": "percentile", "value": "$.v", "percentile": {text}}}"#
            );
            assert_eq!(read(&json).unwrap().percentile.as_deref(), Some(kept));
        }
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        for (rest, pointer) in [
            (r#""aggregation": "sum""#, "/value"),
            (r#""aggregation": "sum", "value": "tokens""#, "/value"),
            (r#""aggregation": "count", "value": "$.v""#, "/value"),
            (r#""aggregation": "percentile", "value": "$.v""#, "/percentile"),
            (
                r#""aggregation": "percentile", "value": "$.v", "percentile": "0""#,
                "/percentile",
            ),
            (
                r#""aggregation": "percentile", "value": "$.v", "percentile": "100.1""#,
                "/percentile",
            ),
            (
                r#""aggregation": "sum", "value": "$.v", "percentile": "50""#,
                "/percentile",
            ),
            (
                r#""aggregation": "count", "group_by": {"customer": "$.c"}"#,
                "/group_by/customer",
            ),
            (r#""aggregation": "count", "group_by": {"a": "b"}"#, "/group_by/a"),
            (
                r#""aggregation": "count", "filter": {"$.a/b~": []}"#,
                "/filter/$.a~1b~0",
            ),
            (r#""aggregation": "count", "filter": {"$.a": []}"#, "/filter/$.a"),
        ] {
            let problem = read(&format!(r#"{{"key": "k", "event_type": "t", {rest}}}"#)).unwrap_err();
            assert_eq!(problem.fields[0].pointer, pointer, "{rest}");
        }
        assert_eq!(
            read(r#"{"key": "a b", "event_type": "t", "aggregation": "count"}"#)
                .unwrap_err()
                .fields[0]
                .pointer,
            "/key"
        );
        for json in [
            r#"{"key": "k", "event_type": "t", "aggregation": "median"}"#,
            r#"{"key": "k", "event_type": "t", "aggregation": "count", "valu": "$.x"}"#,
            r#"{"key": "k", "event_type": "t", "aggregation": "count", "filter": {"$.a": [null]}}"#,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
