use std::sync::Arc;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use turnpike_domain::meter::{Aggregation, Fields, Meter, Path, Step, TypeReader};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::record::EventRecord;

/// Makes the data of granted events for one meter: `properties` with the amount put where the meter reads it.
pub(crate) struct Writer {
    pub(crate) meter: Arc<Meter>,
    path: Option<Path>,
    reader: TypeReader,
}

impl Writer {
    pub(crate) fn new(meter: &Arc<Meter>) -> Result<Self, Problem> {
        let unreadable = |error: turnpike_domain::meter::PathError| {
            Problem::new(
                Code::Internal,
                format!(
                    "the meter \"{}\" has a path that cannot be read: {error}",
                    meter.key
                ),
            )
        };
        Ok(Self {
            meter: meter.clone(),
            path: meter
                .value
                .as_deref()
                .map(Path::parse)
                .transpose()
                .map_err(unreadable)?,
            reader: TypeReader::new([meter.clone()]).map_err(unreadable)?,
        })
    }

    /// An error unless `amount` can be counted by the meter at all.
    pub(crate) fn check_amount(&self, amount: Quantity) -> Result<(), Problem> {
        if self.meter.aggregation == Aggregation::Count && amount != Quantity::ONE {
            return Err(Problem::invalid(
                "/amount",
                "must be 1, for the feature's meter counts events",
            ));
        }
        Ok(())
    }

    /// The data of an event of `amount`; an error if the meter would not count it so.
    pub(crate) fn data(&self, properties: &str, amount: Quantity) -> Result<String, Problem> {
        self.check_amount(amount)?;
        let data = match &self.path {
            Some(path) => put(properties, path.steps(), amount)?,
            None => properties.to_owned(),
        };
        let event = EventRecord {
            tenant: 0,
            source: "",
            id: "",
            kind: &self.meter.event_type,
            subject: "",
            time_us: 0,
            time_sent: false,
            received_us: 0,
            data: &data,
            extensions: "",
            grant: None,
        };
        let mut read = None;
        self.reader.read(&event, &mut Fields::default(), |_, reading| {
            read = Some(reading.map(drop));
        });
        match read {
            Some(Ok(())) => Ok(data),
            Some(Err(why)) => Err(Problem::invalid(
                "/properties",
                format!("cannot be counted by the meter: {why}"),
            )),
            None => Err(Problem::invalid(
                "/properties",
                "the filter of the feature's meter excludes this event",
            )),
        }
    }
}

/// `object` with `amount`, as a decimal string, at `steps`.
fn put(object: &str, steps: &[Step], amount: Quantity) -> Result<String, Problem> {
    let Some((Step::Member(name), rest)) = steps.split_first() else {
        return Err(Problem::invalid(
            "/feature",
            "its meter reads an element of a list, which no decision can write",
        ));
    };
    let members = members(object).map_err(|error| Problem::invalid("/properties", error))?;
    let inner = members
        .iter()
        .rev()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.get());
    let value = if rest.is_empty() {
        format!("\"{amount}\"")
    } else {
        // Something else than an object in the way is replaced, as the amount itself would be.
        put(
            inner
                .filter(|inner| inner.trim_start().starts_with('{'))
                .unwrap_or("{}"),
            rest,
            amount,
        )?
    };
    let kept = members
        .iter()
        .filter(|(key, _)| key != name)
        .map(|(key, value)| (key, value.get()));
    let mut out = String::with_capacity(object.len() + value.len() + name.len() + 8);
    for (key, value) in kept.chain([(name, value.as_str())]) {
        out.push(if out.is_empty() { '{' } else { ',' });
        out.push_str(&json_string(key));
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
    Ok(out)
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The members of a JSON object in their order, values as they were written.
fn members(object: &str) -> Result<Vec<(String, Box<RawValue>)>, String> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(String, Box<RawValue>)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(object);
    reader.deserialize_map(Members).map_err(|error| error.to_string())
}

/// `json` in one spelling of its meaning: members sorted (the last of equal keys counts), numbers and strings in one form.
pub(crate) fn canonical(json: &str) -> Result<String, Problem> {
    let text = json.trim();
    let broken = |error: String| Problem::invalid("/properties", error);
    match text.as_bytes().first() {
        Some(b'{') => {
            let members: std::collections::BTreeMap<_, _> =
                members(text).map_err(broken)?.into_iter().collect();
            let shown: Result<Vec<_>, Problem> = members
                .iter()
                .map(|(key, value)| Ok(format!("{}:{}", json_string(key), canonical(value.get())?)))
                .collect();
            Ok(format!("{{{}}}", shown?.join(",")))
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> =
                serde_json::from_str(text).map_err(|error| broken(error.to_string()))?;
            let shown: Result<Vec<_>, Problem> =
                elements.iter().map(|value| canonical(value.get())).collect();
            Ok(format!("[{}]", shown?.join(",")))
        }
        Some(b'"') => {
            let string: String = serde_json::from_str(text).map_err(|error| broken(error.to_string()))?;
            Ok(json_string(&string))
        }
        Some(b'-' | b'0'..=b'9') => {
            Ok(Quantity::parse(text).map_or_else(|_| text.to_owned(), |number| number.to_string()))
        }
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use turnpike_domain::identity::MeterId;

    fn meter(aggregation: Aggregation, value: Option<&str>, filter: &[(&str, &str)]) -> Arc<Meter> {
        let filter = filter
            .iter()
            .map(|(path, value)| ((*path).to_owned(), vec![(*value).to_owned()]));
        Arc::new(Meter {
            id: MeterId(1),
            key: "tokens".to_owned(),
            event_type: "llm".to_owned(),
            aggregation,
            value: value.map(str::to_owned),
            percentile: None,
            group_by: BTreeMap::new(),
            filter: filter.collect(),
        })
    }

    fn data(value: &str, properties: &str, amount: &str) -> Result<String, Problem> {
        let writer = Writer::new(&meter(Aggregation::Sum, Some(value), &[])).unwrap();
        writer.data(properties, Quantity::parse(amount).unwrap())
    }

    #[test]
    fn the_amount_stands_where_the_meter_reads_it() {
        for (path, properties, made) in [
            ("$.tokens", "{}", r#"{"tokens":"2.5"}"#),
            (
                "$.tokens",
                r#"{"model":"m","n":1.00000000000000000001}"#,
                r#"{"model":"m","n":1.00000000000000000001,"tokens":"2.5"}"#,
            ),
            (
                "$.tokens",
                r#"{"tokens":7,"a":[1, 2]}"#,
                r#"{"a":[1, 2],"tokens":"2.5"}"#,
            ),
            (
                "$.usage.tokens",
                r#"{"usage":{"kind":"x"}}"#,
                r#"{"usage":{"kind":"x","tokens":"2.5"}}"#,
            ),
            (
                "$.usage.tokens",
                r#"{"usage":3}"#,
                r#"{"usage":{"tokens":"2.5"}}"#,
            ),
            ("$['a \"key\"']", "{}", r#"{"a \"key\"":"2.5"}"#),
        ] {
            assert_eq!(
                data(path, properties, "2.5").unwrap(),
                made,
                "{path} {properties}"
            );
        }
    }

    #[test]
    fn what_the_meter_would_not_count_is_refused() {
        assert_eq!(
            data("$.list[0]", "{}", "1").unwrap_err().fields[0].pointer,
            "/feature"
        );
        assert_eq!(
            data("$.a", "[1]", "1").unwrap_err().fields[0].pointer,
            "/properties"
        );
        let filtered = Writer::new(&meter(Aggregation::Sum, Some("$.n"), &[("$.status", "ok")])).unwrap();
        assert!(filtered.data(r#"{"status":"ok"}"#, Quantity::ONE).is_ok());
        for properties in ["{}", r#"{"status":"failed"}"#] {
            assert_eq!(
                filtered.data(properties, Quantity::ONE).unwrap_err().code,
                Code::Invalid
            );
        }
        let count = Writer::new(&meter(Aggregation::Count, None, &[])).unwrap();
        assert_eq!(count.data(r#"{"a":1}"#, Quantity::ONE).unwrap(), r#"{"a":1}"#);
        assert_eq!(
            count.data("{}", Quantity::from_units(2)).unwrap_err().fields[0].pointer,
            "/amount"
        );
    }

    #[test]
    fn one_spelling_for_one_meaning() {
        for (one, other) in [
            (
                r#"{"a":1,"b":[true,null]}"#,
                r#"{ "b" : [true, null], "a": 1.0 }"#,
            ),
            (r#"{"a":100}"#, r#"{"a":1e2}"#),
            (r#"{"\u0061":"\u00e9"}"#, r#"{"a":"é"}"#),
        ] {
            assert_eq!(canonical(one).unwrap(), canonical(other).unwrap());
        }
        for (one, other) in [
            (r#"{"a":1}"#, r#"{"a":"1"}"#),
            ("[1,2]", "[2,1]"),
            (r#"{"a":{}}"#, r#"{"a":[]}"#),
        ] {
            assert_ne!(canonical(one).unwrap(), canonical(other).unwrap());
        }
    }
}
