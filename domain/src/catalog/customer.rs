use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Entitlement, Limit, LimitPeriod};
use crate::money::Currency;
use crate::quantity::Quantity;
use crate::time::Timestamp;

/// Who uses and pays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Customer {
    /// Its key.
    #[serde(default)]
    pub key: String,
    /// Its name for people; the key unless said.
    #[serde(default)]
    pub name: String,
    /// Where invoices go.
    #[serde(default)]
    pub email: Option<String>,
    /// The currency it pays in; its plan's unless said.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub currency: Option<Currency>,
    /// Its IANA time zone; the tenant's unless said.
    #[serde(default)]
    pub timezone: Option<String>,
    /// The customer above it.
    #[serde(default)]
    pub parent: Option<String>,
    /// Since when it has had this parent: usage timed before does not count for the parent. Given by the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, read_only)]
    pub parent_since: Option<Timestamp>,
    /// The subjects whose events are its own; its key unless said.
    #[serde(default)]
    pub subjects: Vec<String>,
    /// Whether its quota calls are refused.
    #[serde(default)]
    pub suspended: bool,
    /// What the caller keeps with it.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// When it was erased: its personal data is gone, its usage and invoices stay. Given by the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, read_only)]
    pub erased_at: Option<Timestamp>,
}

/// What replaces a plan's entitlement for one customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(from = "FlatOverride", deny_unknown_fields)]
pub struct Override {
    /// The customer's key; taken from the path.
    #[serde(default)]
    pub customer: String,
    /// What it is entitled to instead of plan and add-ons; one per feature.
    #[serde(flatten)]
    pub entitlement: Entitlement,
    /// Whether the feature is taken away altogether.
    #[serde(default)]
    pub revoked: bool,
}

/// An override as it is read: field by field, for serde's `flatten` forgets where in the text a wrong one stood.
#[derive(Deserialize)]
#[serde(rename = "Override", deny_unknown_fields)]
struct FlatOverride {
    #[serde(default)]
    customer: String,
    #[serde(default)]
    feature: String,
    #[serde(default)]
    limits: Vec<Limit>,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    revoked: bool,
}

impl From<FlatOverride> for Override {
    fn from(flat: FlatOverride) -> Self {
        let FlatOverride {
            customer,
            feature,
            limits,
            value,
            revoked,
        } = flat;
        Self {
            customer,
            entitlement: Entitlement {
                feature,
                limits,
                value,
            },
            revoked,
        }
    }
}

/// An amount of a feature given to one customer on top.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Its id; made by the engine unless said.
    #[serde(default)]
    pub id: String,
    /// The customer's key; taken from the path.
    #[serde(default)]
    pub customer: String,
    /// The metered feature.
    pub feature: String,
    /// How much.
    #[schema(value_type = String)]
    pub amount: Quantity,
    /// Smaller is used first; 0 to 100.
    #[serde(default = "fifty")]
    pub priority: u8,
    /// From when it counts; now unless said.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub effective_at: Option<Timestamp>,
    /// When it ends; never unless said.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub expires_at: Option<Timestamp>,
    /// How often it is given anew; once unless said.
    #[serde(default)]
    pub recurrence: Option<LimitPeriod>,
    /// For a recurring one: how much of what is left is carried into the next period, at the most.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub rollover_max: Option<Quantity>,
}

const fn fifty() -> u8 {
    50
}
