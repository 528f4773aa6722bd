//! The answer to a quota call.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::Quantity;

/// What was decided. The figures describe the limit that refused, else the one with the least remaining; none where no
/// limit decided. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Decision {
    /// Whether it was granted. A granted consume, reservation or commit is durable.
    pub allowed: bool,
    /// The customer.
    pub customer: String,
    /// The feature.
    pub feature: String,
    /// How much the limit is; none for unlimited.
    pub limit: Option<Quantity>,
    /// What was used in its window.
    pub used: Option<Quantity>,
    /// What is held by reservations and by calls on their way.
    pub reserved: Option<Quantity>,
    /// What is left below the limit; none for unlimited.
    pub remaining: Option<Quantity>,
    /// What is above the limit.
    pub overage: Option<Quantity>,
    /// When its window ends; none for never.
    pub resets_at: Option<String>,
    /// Why.
    pub reason: Reason,
    /// When the figures stood so.
    pub as_of: String,
    /// The value of a static feature.
    #[serde(default)]
    pub value: Option<String>,
    /// All limits, of the customer and of those above it.
    pub limits: Vec<Limit>,
    /// For a refusal: plans and add-ons that would have allowed it.
    #[serde(default)]
    pub upgrade_options: Vec<Upgrade>,
    /// The reservation concerned.
    #[serde(default)]
    pub reservation: Option<Reservation>,
    /// For a refusal: when the same call may be granted; none where no waiting helps.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
    /// The rate-limit headers of the answer.
    #[serde(skip)]
    pub rate_limit: RateLimit,
}

/// Why a call was granted or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// Granted: within every limit.
    WithinLimit,
    /// Granted: the feature has no limit.
    Unlimited,
    /// Granted: above a soft limit, within its grace.
    WithinGrace,
    /// Granted: above a limit beyond which usage is overage.
    Overage,
    /// Granted: the feature is not metered.
    Entitled,
    /// Refused: a limit would be exceeded.
    LimitReached,
    /// Refused: the subscription does not have the feature, or it was revoked.
    NotEntitled,
    /// Refused: no subscription runs.
    NoSubscription,
    /// Refused: the subscription is paused, or the customer suspended.
    Suspended,
    /// Refused: prepaid credit does not cover it.
    InsufficientCredit,
    /// One that this client does not know yet; `allowed` says what it means.
    #[serde(other)]
    Other,
}

impl Reason {
    /// As it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WithinLimit => "within_limit",
            Self::Unlimited => "unlimited",
            Self::WithinGrace => "within_grace",
            Self::Overage => "overage",
            Self::Entitled => "entitled",
            Self::LimitReached => "limit_reached",
            Self::NotEntitled => "not_entitled",
            Self::NoSubscription => "no_subscription",
            Self::Suspended => "suspended",
            Self::InsufficientCredit => "insufficient_credit",
            Self::Other => "other",
        }
    }
}

/// One limit as it stood.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Limit {
    /// Whose limit it is.
    pub customer: String,
    /// Its window: `second`, `minute`, `hour`, `day`, `week`, `month`, `billing` or `ever`.
    pub period: String,
    /// What happens at it: `hard`, `soft` or `overage`.
    pub mode: String,
    /// How much; none for unlimited.
    pub limit: Option<Quantity>,
    /// What was used in its window.
    pub used: Quantity,
    /// What is held.
    pub reserved: Quantity,
    /// What is left below it; none for unlimited.
    pub remaining: Option<Quantity>,
    /// What is above it.
    pub overage: Quantity,
    /// When its window ends; none for never.
    pub resets_at: Option<String>,
}

/// What would have allowed a refused call.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Upgrade {
    /// `plan` or `add_on`.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// Its current version.
    pub version: u32,
    /// Whose subscription it would be for.
    pub customer: String,
}

/// A reservation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Reservation {
    /// Its id, for [`commit`](crate::Client::commit) and [`release`](crate::Client::release).
    pub id: String,
    /// `open`, `committed`, `released` or `expired`.
    pub status: String,
    /// When it ends by itself, or would have.
    pub expires_at: String,
}

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STANDING: HeaderName = HeaderName::from_static("ratelimit");

/// `RateLimit-Policy` and `RateLimit` of an answer, to be passed on. Source: draft-ietf-httpapi-ratelimit-headers-10.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RateLimit {
    /// The limits.
    pub policy: Option<HeaderValue>,
    /// What remains of them, and the seconds to their resets.
    pub standing: Option<HeaderValue>,
}

impl RateLimit {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self {
            policy: headers.get(POLICY).cloned(),
            standing: headers.get(STANDING).cloned(),
        }
    }

    /// Sets both headers where they are known.
    pub fn set(&self, headers: &mut HeaderMap) {
        for (name, value) in [(POLICY, &self.policy), (STANDING, &self.standing)] {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
    }
}
