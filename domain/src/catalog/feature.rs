use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;

/// What a feature is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    /// On or off.
    Boolean,
    /// A configuration value.
    Static,
    /// Limits over a meter.
    Metered,
}

/// Something that a plan can entitle to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    /// Its key.
    #[serde(default)]
    pub key: String,
    /// Its name for people; the key unless said.
    #[serde(default)]
    pub name: String,
    /// What it is.
    pub kind: FeatureKind,
    /// The meter that it is measured by, when it is metered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meter: Option<String>,
}

/// What a plan, add-on, override or grant gives of a feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Entitlement {
    /// The feature's key.
    #[serde(default)]
    pub feature: String,
    /// The limits of a metered feature; none: unlimited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
    /// The value of a static feature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// One limit of a metered feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// How much.
    pub limit: Quantity,
    /// Per which window.
    #[serde(default = "LimitPeriod::billing")]
    pub period: LimitPeriod,
    /// What happens at the limit.
    #[serde(default)]
    pub mode: LimitMode,
    /// For `soft`: per cent above the limit that are still granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_percent: Option<Quantity>,
}

/// The window of a limit. Calendar windows follow the customer's zone; weeks begin on Monday.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LimitPeriod {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// A week.
    Week,
    /// A month.
    Month,
    /// The subscription's billing period.
    Billing,
    /// All of time.
    Ever,
}

impl LimitPeriod {
    /// As it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Billing => "billing",
            Self::Ever => "ever",
        }
    }

    const fn billing() -> Self {
        Self::Billing
    }
}

/// What happens at a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitMode {
    /// Never beyond it.
    #[default]
    Hard,
    /// Beyond it by the grace share.
    Soft,
    /// Beyond it without bound; what is beyond is overage.
    Overage,
}

impl LimitMode {
    /// As it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
            Self::Overage => "overage",
        }
    }
}
