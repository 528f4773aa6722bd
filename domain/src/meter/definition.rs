use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::identity::MeterId;

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
    /// The number of distinct values, exactly.
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
    /// Path → the values that let an event count; all paths must agree.
    pub filter: BTreeMap<String, Vec<String>>,
}
