use serde::{Deserialize, Serialize};

use crate::money::Currency;
use crate::time::{TimeRange, Timestamp};

/// Where a subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionStatus {
    /// Not yet charged.
    Trial,
    /// Running.
    Active,
    /// Neither charged nor entitled for now.
    Paused,
    /// An invoice was not paid in time.
    PastDue,
    /// Ended by somebody.
    Cancelled,
    /// Ended by itself.
    Expired,
}

/// A customer's use of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Its id.
    pub id: String,
    /// The customer's key.
    pub customer: String,
    /// The plan's key.
    pub plan: String,
    /// The plan's version, which stays.
    pub plan_version: u32,
    /// Add-ons: key and version.
    pub add_ons: Vec<AddOnUse>,
    /// The currency that it is billed in.
    pub currency: Currency,
    /// Where it stands.
    pub status: SubscriptionStatus,
    /// When it began, on a whole minute.
    pub start: Timestamp,
    /// The instant whose day and time of day, in `timezone`, its periods begin at.
    pub anchor: Timestamp,
    /// The zone of its periods, kept from its start.
    pub timezone: String,
    /// The period that contains now.
    pub current_period: TimeRange,
    /// When it ended or will end.
    pub ends_at: Option<Timestamp>,
    /// Everything before this is billed.
    pub billed_until: Timestamp,
}

/// An add-on in a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AddOnUse {
    /// The add-on's key.
    pub key: String,
    /// Its version, which stays.
    pub version: u32,
}
