//! Events as serde_json reads them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use turnpike_domain::limits::{EVENT_BYTES_MAX, EVENT_FUTURE_US_MAX, JSON_DEPTH_MAX, NAME_BYTES_MAX};

use super::gateway::{Kept, NOW_US};

/// Attributes that are not extensions.
const KNOWN: [&str; 8] = [
    "id",
    "source",
    "type",
    "subject",
    "time",
    "specversion",
    "data",
    "data_base64",
];

/// Whether `text` is one JSON value.
pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The text of each event of a body that is JSON.
pub(super) fn events(text: &str) -> Vec<&str> {
    if text.trim_start().starts_with('[') {
        let all: Vec<&RawValue> = serde_json::from_str(text).expect("an array");
        return all.into_iter().map(RawValue::get).collect();
    }
    vec![text]
}

/// The members of an object, equal ones too.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

impl Members {
    fn get(&self, name: &str) -> Option<&Value> {
        let found = self.0.iter().rev().find(|(key, _)| key == name);
        found.map(|(_, value)| value).filter(|value| !value.is_null())
    }
}

/// Whether nothing at all is wrong with an event, nor rare about it.
pub(super) fn is_plain(event: &str) -> bool {
    let Ok(members) = serde_json::from_str::<Members>(event) else {
        return false;
    };
    let named = |name: &str| {
        let text = members.get(name).and_then(Value::as_str);
        text.is_some_and(|text| !text.is_empty() && text.len() <= NAME_BYTES_MAX)
    };
    let once =
        |(at, (key, _)): (usize, &(String, Value))| members.0[..at].iter().all(|(other, _)| other != key);
    let data = members.get("data");
    ["id", "source", "type", "subject"].into_iter().all(named)
        && members.0.iter().enumerate().all(once)
        && members.0.iter().all(|(key, _)| KNOWN.contains(&key.as_str()))
        && members.get("specversion").is_none_or(|version| version == "1.0")
        && members.get("time").is_none()
        && members.get("data_base64").is_none()
        && data.is_none_or(|data| data.is_object() && depth(data) < JSON_DEPTH_MAX)
        && event.len() <= EVENT_BYTES_MAX
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// What is kept may be an event, whatever was sent.
pub(super) fn assert_is_an_event(kept: &Kept) {
    for name in [&kept.id, &kept.source, &kept.kind, &kept.subject] {
        assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX, "{kept:?}");
    }
    assert!(kept.data.starts_with('{') && is_json(&kept.data), "{kept:?}");
    assert!(kept.extensions.is_empty() || kept.extensions.starts_with('{') && is_json(&kept.extensions));
    assert!(
        (0..=NOW_US + EVENT_FUTURE_US_MAX).contains(&kept.time_us),
        "{kept:?}"
    );
    assert!(kept.time_sent || kept.time_us == NOW_US, "{kept:?}");
}

/// What is kept is what was sent.
pub(super) fn assert_same(event: &str, kept: &Kept) {
    let members = match serde_json::from_str::<Members>(event) {
        Ok(members) => members,
        Err(error) => {
            // Numbers beyond a float are JSON all the same, and kept as they are written.
            assert!(
                error.to_string().starts_with("number out of range"),
                "{event}: {error}"
            );
            return;
        }
    };
    let texts = [
        ("id", &kept.id),
        ("source", &kept.source),
        ("type", &kept.kind),
        ("subject", &kept.subject),
    ];
    for (name, kept) in texts {
        // A drop-in path puts an id or a source where none was sent.
        assert!(
            members.get(name).is_none_or(|sent| sent == kept.as_str()),
            "{name} of {event}: {kept}"
        );
    }
    let read =
        |text: &str| -> Value { serde_json::from_str(text).expect("what serde_json has read in the event") };
    let nothing = Value::Object(serde_json::Map::new());
    assert_eq!(
        &read(&kept.data),
        members.get("data").unwrap_or(&nothing),
        "{event}"
    );
    let extensions = members
        .0
        .iter()
        .filter(|(key, value)| !KNOWN.contains(&key.as_str()) && !value.is_null());
    let extensions: serde_json::Map<_, _> = extensions.cloned().collect();
    match kept.extensions.as_str() {
        "" => assert!(extensions.is_empty(), "{event}"),
        text => assert_eq!(read(text), Value::Object(extensions), "{event}"),
    }
    let time = members.get("time").and_then(Value::as_str);
    assert_eq!(kept.time_sent, time.is_some(), "{event}");
    if let Some(Ok(time)) = time.map(str::parse::<jiff::Timestamp>) {
        assert_eq!(kept.time_us, time.as_microsecond(), "{event}");
    }
}
