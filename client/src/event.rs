//! Events, and what became of them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A CloudEvent 1.0. (source, id) names it: sent again it is a duplicate and counts once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Its id, 1 to 512 bytes, as are the other texts.
    pub id: String,
    /// Where it comes from.
    pub source: String,
    /// What it is: meters read events of one type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whose usage it is.
    pub subject: String,
    /// When it happened, RFC 3339; the time at which the engine receives it where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// What meters read. Numbers that count are exact as strings.
    pub data: Map<String, Value>,
}

impl Event {
    /// An event without data that happens now.
    pub fn new(
        id: impl Into<String>,
        source: impl Into<String>,
        kind: impl Into<String>,
        subject: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            source: source.into(),
            kind: kind.into(),
            subject: subject.into(),
            time: None,
            data: Map::new(),
        }
    }

    /// With one more member of its data.
    #[must_use]
    pub fn data(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.data.insert(name.into(), value.into());
        self
    }

    /// With the time at which it happened, RFC 3339.
    #[must_use]
    pub fn time(mut self, time: impl Into<String>) -> Self {
        self.time = Some(time.into());
        self
    }
}

/// What became of the events of one call. Where the call had to be tried again, what its first try brought in is counted
/// among the duplicates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[non_exhaustive]
pub struct EventsAnswer {
    /// New events: durable and counted.
    pub accepted: u64,
    /// Events that were sent before, with the same payload.
    pub duplicates: u64,
    /// Events whose id was sent before with another payload; the first one stands.
    pub conflicts: u64,
    /// Events that are invalid.
    pub rejected: u64,
    /// The first 1,000 conflicts and rejected events, in the order of the call.
    pub errors: Vec<EventError>,
    /// How many more there were than are listed.
    #[serde(default)]
    pub errors_omitted: u64,
}

/// What was wrong with one event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct EventError {
    /// Its place in the call, from 0.
    pub index: u64,
    /// Its id, empty where it could not be read.
    pub id: String,
    /// The stable code: the server's `/docs/errors/{code}` explains it.
    pub code: String,
    /// What was wrong.
    pub detail: String,
}
