use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Entitlement;
use crate::money::Currency;
use crate::rating::Price;

/// The unit of a plan's billing interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    /// Days.
    Day,
    /// Weeks.
    Week,
    /// Months.
    #[default]
    Month,
    /// Years.
    Year,
}

/// A plan at one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Its key.
    #[serde(default)]
    pub key: String,
    /// Its name for people; the key unless said.
    #[serde(default)]
    pub name: String,
    /// Its version, from 1; given by the engine.
    #[serde(default)]
    pub version: u32,
    /// The currency of `prices`.
    #[schema(value_type = String, pattern = "^[A-Z]{3}$")]
    pub currency: Currency,
    /// The unit of the billing interval.
    #[serde(default)]
    pub interval: Interval,
    /// How many units one billing period has.
    #[serde(default = "one")]
    pub interval_count: u32,
    /// Days without charge at the start.
    #[serde(default)]
    pub trial_days: u32,
    /// What it costs.
    #[serde(default)]
    pub prices: Vec<Price>,
    /// What it costs in other currencies.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prices_by_currency: BTreeMap<String, Vec<Price>>,
    /// What it entitles to.
    #[serde(default)]
    pub entitlements: Vec<Entitlement>,
    /// The least total of a period, a decimal of the plan's currency. Subscriptions in another currency have none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::quantity::wire::decimal_text_or_none"
    )]
    pub minimum_commitment: Option<String>,
    /// Credits given each period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credits: Option<PlanCredits>,
}

/// Credits that a plan gives each period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanCredits {
    /// A decimal of the plan's currency.
    #[serde(deserialize_with = "crate::quantity::wire::decimal_text")]
    pub amount: String,
    /// Days after which they end.
    #[serde(default)]
    pub expires_after_days: Option<u32>,
}

/// An addition to a plan, at one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddOn {
    /// Its key.
    #[serde(default)]
    pub key: String,
    /// Its name for people; the key unless said.
    #[serde(default)]
    pub name: String,
    /// Its version, from 1; given by the engine.
    #[serde(default)]
    pub version: u32,
    /// The currency of its prices.
    #[schema(value_type = String, pattern = "^[A-Z]{3}$")]
    pub currency: Currency,
    /// What it costs.
    #[serde(default)]
    pub prices: Vec<Price>,
    /// What it entitles to, on top of the plan: limits of the same feature, period and mode are added.
    #[serde(default)]
    pub entitlements: Vec<Entitlement>,
}

const fn one() -> u32 {
    1
}
