//! Meters compiled for reading events.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::aggregate::{Sample, SampleValue};
use super::extract::{Fields, Paths, dimension};
use super::path::{Path, PathError};
use super::scalar::{Scalar, unquoted};
use super::{Aggregation, Meter};
use crate::limits::METER_TEXT_BYTES_MAX;
use crate::quantity::{Quantity, QuantityError};
use crate::record::EventRecord;

/// The meters that read one event type, compiled so that `data` is read once for all of them.
#[derive(Debug, Default)]
pub struct TypeReader {
    paths: Paths,
    meters: Vec<MeterReader>,
}

/// One meter, with its paths resolved to slots.
#[derive(Debug)]
struct MeterReader {
    meter: Arc<Meter>,
    value: Option<usize>,
    dimensions: Vec<usize>,
    filter: Vec<(usize, Vec<String>)>,
}

/// Why a meter cannot read an event: the reason on its dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Unreadable {
    /// `data` is no JSON object.
    #[error("data is not a JSON object")]
    NoObject,
    /// The value path leads nowhere, or to null.
    #[error("the value is missing")]
    Missing,
    /// The value is a boolean, object or array, or a string that is no decimal.
    #[error("the value is not a decimal number")]
    NotANumber,
    /// The value has more than 26 digits before the point.
    #[error("the value has more than 26 digits before the point")]
    Overflow,
    /// The value is a string with more than 12 decimal places.
    #[error("the value is a string with more than 12 decimal places")]
    TooPrecise,
    /// The value of `unique_count` is neither a string nor a number.
    #[error("the value is neither a string nor a number")]
    NotAText,
    /// A value of a dimension or of `unique_count` is too long.
    #[error("a value is longer than {METER_TEXT_BYTES_MAX} bytes")]
    TooLong,
}

/// What one meter read from one event.
#[derive(Debug)]
pub struct Reading<'f, 'a> {
    /// What is added.
    pub sample: Sample<'a>,
    /// Whether the value was a JSON number whose places beyond 12 were rounded.
    pub rounded: bool,
    dimensions: &'f [usize],
    fields: &'f Fields,
    data: &'a str,
}

impl<'a> Reading<'_, 'a> {
    /// Values of the meter's dimensions, in the order of their names.
    pub fn group(&self) -> impl Iterator<Item = Cow<'a, str>> {
        let slots = self.dimensions.iter();
        slots.map(|slot| dimension(self.fields, self.data, *slot))
    }
}

impl TypeReader {
    /// A reader for meters that all read the same event type.
    pub fn new(meters: impl IntoIterator<Item = Arc<Meter>>) -> Result<Self, PathError> {
        let mut reader = Self::default();
        for meter in meters {
            let mut slot = |path: &String| Ok(reader.paths.slot(&Path::parse(path)?));
            let value = meter.value.as_ref().map(&mut slot).transpose()?;
            let dimensions = meter
                .group_by
                .values()
                .map(&mut slot)
                .collect::<Result<_, PathError>>()?;
            let filter = meter
                .filter
                .iter()
                .map(|(path, values)| Ok((slot(path)?, values.clone())))
                .collect::<Result<_, PathError>>()?;
            reader.meters.push(MeterReader {
                meter,
                value,
                dimensions,
                filter,
            });
        }
        Ok(reader)
    }

    /// The meters, in the order they were given.
    pub fn meters(&self) -> impl ExactSizeIterator<Item = &Arc<Meter>> {
        self.meters.iter().map(|reader| &reader.meter)
    }

    /// Reads `event` for each meter whose filter lets it count: `take` gets the meter and what it read.
    pub fn read<'f, 'e>(
        &'f self,
        event: &EventRecord<'e>,
        fields: &'f mut Fields,
        mut take: impl FnMut(&Arc<Meter>, Result<Reading<'f, 'e>, Unreadable>),
    ) {
        if self.paths.find(event.data, fields).is_err() {
            for reader in &self.meters {
                take(&reader.meter, Err(Unreadable::NoObject));
            }
            return;
        }
        for reader in &self.meters {
            if reader.passes(fields, event.data) {
                take(&reader.meter, reader.reading(event, fields));
            }
        }
    }
}

impl MeterReader {
    fn passes(&self, fields: &Fields, data: &str) -> bool {
        self.filter.iter().all(|(slot, values)| {
            let found = fields.get(data, *slot).map(|raw| Scalar::of(raw).dimension());
            found.is_some_and(|found| values.iter().any(|value| *value == found))
        })
    }

    fn reading<'f, 'e>(
        &'f self,
        event: &EventRecord<'e>,
        fields: &'f Fields,
    ) -> Result<Reading<'f, 'e>, Unreadable> {
        let (value, rounded) = self.value(event.data, fields)?;
        let mut slots = self.dimensions.iter();
        // No text is longer than what it is written as, but for numbers, whose texts are short.
        let is_too_long = |slot: &usize| {
            fields
                .get(event.data, *slot)
                .is_some_and(|raw| raw.len() > METER_TEXT_BYTES_MAX)
                && dimension(fields, event.data, *slot).len() > METER_TEXT_BYTES_MAX
        };
        if slots.any(is_too_long) {
            return Err(Unreadable::TooLong);
        }
        let sample = Sample {
            value,
            time_us: event.time_us,
            source: event.source,
            id: event.id,
        };
        Ok(Reading {
            sample,
            rounded,
            dimensions: &self.dimensions,
            fields,
            data: event.data,
        })
    }

    fn value<'e>(&self, data: &'e str, fields: &Fields) -> Result<(SampleValue<'e>, bool), Unreadable> {
        let Some(slot) = self.value else {
            return Ok((SampleValue::None, false));
        };
        let raw = fields.get(data, slot).ok_or(Unreadable::Missing)?;
        match (self.meter.aggregation, Scalar::of(raw)) {
            (_, Scalar::Null) => Err(Unreadable::Missing),
            (Aggregation::UniqueCount, scalar) => distinct(scalar),
            (_, Scalar::Number(raw)) => {
                let (value, rounded) = Quantity::parse_rounding(raw).map_err(unreadable)?;
                Ok((SampleValue::Number(value), rounded))
            }
            (_, Scalar::Text(raw)) => {
                let value = Quantity::parse(&unquoted(raw)).map_err(unreadable)?;
                Ok((SampleValue::Number(value), false))
            }
            (_, Scalar::True | Scalar::False | Scalar::Nested) => Err(Unreadable::NotANumber),
        }
    }
}

/// The value of `unique_count`: strings by their characters, numbers by their meaning at 12 places, the two never equal;
/// and whether a number was rounded.
fn distinct(scalar: Scalar<'_>) -> Result<(SampleValue<'_>, bool), Unreadable> {
    match scalar {
        Scalar::Text(raw) => match unquoted(raw) {
            text if text.len() > METER_TEXT_BYTES_MAX => Err(Unreadable::TooLong),
            text => Ok((SampleValue::Text(text), false)),
        },
        Scalar::Number(raw) => {
            let (value, rounded) = Quantity::parse_rounding(raw).map_err(unreadable)?;
            Ok((SampleValue::NumberText(value.to_string().into()), rounded))
        }
        _ => Err(Unreadable::NotAText),
    }
}

fn unreadable(error: QuantityError) -> Unreadable {
    match error {
        QuantityError::Malformed => Unreadable::NotANumber,
        QuantityError::Overflow => Unreadable::Overflow,
        QuantityError::TooPrecise => Unreadable::TooPrecise,
    }
}

/// Readers by event type.
#[derive(Debug, Default)]
pub struct Readers {
    by_type: BTreeMap<String, TypeReader>,
}

impl Readers {
    /// Readers for all of `meters`.
    pub fn new(meters: impl IntoIterator<Item = Arc<Meter>>) -> Result<Self, PathError> {
        let mut grouped: BTreeMap<String, Vec<Arc<Meter>>> = BTreeMap::new();
        for meter in meters {
            grouped.entry(meter.event_type.clone()).or_default().push(meter);
        }
        let by_type = grouped
            .into_iter()
            .map(|(kind, meters)| Ok((kind, TypeReader::new(meters)?)))
            .collect::<Result<_, PathError>>()?;
        Ok(Self { by_type })
    }

    /// The reader for an event type; `None` when no meter reads it.
    pub fn of(&self, kind: &str) -> Option<&TypeReader> {
        self.by_type.get(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::MeterId;

    fn meter(aggregation: Aggregation, extra: impl FnOnce(&mut Meter)) -> Arc<Meter> {
        let mut meter = Meter {
            id: MeterId(1),
            key: "m".to_owned(),
            event_type: "t".to_owned(),
            aggregation,
            value: (aggregation != Aggregation::Count).then(|| "$.v".to_owned()),
            percentile: None,
            group_by: BTreeMap::new(),
            filter: BTreeMap::new(),
        };
        extra(&mut meter);
        Arc::new(meter)
    }

    fn event(data: &str) -> EventRecord<'_> {
        EventRecord {
            tenant: 1,
            source: "s",
            id: "i",
            kind: "t",
            subject: "c",
            time_us: 5,
            time_sent: true,
            received_us: 6,
            data,
            extensions: "",
            grant: None,
        }
    }

    /// What each meter reads, as text: `None` where the filter excludes the event.
    fn read(meters: &[Arc<Meter>], data: &str) -> Vec<Option<String>> {
        let reader = TypeReader::new(meters.iter().cloned()).unwrap();
        let mut out = vec![None; meters.len()];
        reader.read(&event(data), &mut Fields::default(), |meter, reading| {
            let at = meters.iter().position(|m| Arc::ptr_eq(m, meter)).unwrap();
            out[at] = Some(match reading {
                Ok(r) => format!(
                    "{:?} {:?}{}",
                    r.sample.value,
                    r.group().collect::<Vec<_>>(),
                    if r.rounded { " rounded" } else { "" }
                ),
                Err(error) => format!("{error:?}"),
            });
        });
        out
    }

    fn one(meter: Arc<Meter>, data: &str) -> Option<String> {
        read(&[meter], data).remove(0)
    }

    #[test]
    fn reads_values_of_numbers_and_strings() {
        for (data, expected) in [
            (r#"{"v": 1.5}"#, "Number(1.5) []"),
            (r#"{"v": "1.5"}"#, "Number(1.5) []"),
            (r#"{"v": "1\u002e5"}"#, "Number(1.5) []"),
            (r#"{"v": -2e3}"#, "Number(-2000) []"),
            (
                r#"{"v": 9007199254740993.000000000001}"#,
                "Number(9007199254740993.000000000001) []",
            ),
            (r#"{"v": 0.0000000000005}"#, "Number(0.000000000001) [] rounded"),
            (r#"{"v": "0.0000000000005"}"#, "TooPrecise"),
            (r#"{"v": "NaN"}"#, "NotANumber"),
            (r#"{"v": ""}"#, "NotANumber"),
            (r#"{"v": true}"#, "NotANumber"),
            (r#"{"v": {}}"#, "NotANumber"),
            (r#"{"v": null}"#, "Missing"),
            (r#"{"w": 1}"#, "Missing"),
            (r#"{"v": 1e40}"#, "Overflow"),
            (r#"{"v": 1e999}"#, "Overflow"),
            ("[]", "NoObject"),
        ] {
            assert_eq!(
                one(meter(Aggregation::Sum, |_| {}), data).as_deref(),
                Some(expected),
                "{data}"
            );
        }
    }

    #[test]
    fn distinct_values_are_strings_or_numbers_and_never_both() {
        let unique = || meter(Aggregation::UniqueCount, |_| {});
        for (data, expected) in [
            (r#"{"v": "1"}"#, r#"Text("1") []"#),
            (r#"{"v": 1.0}"#, r#"NumberText("1") []"#),
            (
                r#"{"v": 0.0000000000005}"#,
                r#"NumberText("0.000000000001") [] rounded"#,
            ),
            (r#"{"v": 1e-14}"#, r#"NumberText("0") [] rounded"#),
            (r#"{"v": 1e40}"#, "Overflow"),
            (r#"{"v": ""}"#, r#"Text("") []"#),
            (r#"{"v": false}"#, "NotAText"),
            (r#"{"v": null}"#, "Missing"),
        ] {
            assert_eq!(one(unique(), data).as_deref(), Some(expected), "{data}");
        }
        let long = format!(r#"{{"v": "{}"}}"#, "x".repeat(METER_TEXT_BYTES_MAX + 1));
        assert_eq!(one(unique(), &long).as_deref(), Some("TooLong"));
    }

    #[test]
    fn filters_and_groups() {
        let filtered = meter(Aggregation::Count, |m| {
            m.filter
                .insert("$.status".to_owned(), vec!["200".to_owned(), "ok".to_owned()]);
            m.filter.insert("$.live".to_owned(), vec!["true".to_owned()]);
            m.group_by.insert("b".to_owned(), "$.y".to_owned());
            m.group_by.insert("a".to_owned(), "$.x".to_owned());
        });
        for (data, expected) in [
            (
                r#"{"status": 2e2, "live": true, "x": "1", "y": 2.0}"#,
                Some(r#"None ["1", "2"]"#),
            ),
            (
                r#"{"status": "ok", "live": "true", "y": [1]}"#,
                Some(r#"None ["", ""]"#),
            ),
            (r#"{"status": "ok"}"#, None),
            (r#"{"status": 201, "live": true}"#, None),
        ] {
            assert_eq!(one(filtered.clone(), data).as_deref(), expected, "{data}");
        }
    }

    #[test]
    fn one_meter_that_cannot_read_leaves_the_others_alone() {
        let meters = [
            meter(Aggregation::Count, |_| {}),
            meter(Aggregation::Sum, |_| {}),
            meter(Aggregation::UniqueCount, |_| {}),
        ];
        assert_eq!(
            read(&meters, r#"{"v": "x"}"#),
            [
                Some("None []".to_owned()),
                Some("NotANumber".to_owned()),
                Some(r#"Text("x") []"#.to_owned())
            ]
        );
    }
}
