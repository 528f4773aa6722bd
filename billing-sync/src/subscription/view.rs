//! A subscription as callers see it: what follows from its facts at an instant.

use serde::{Deserialize, Serialize};
use turnpike_domain::catalog::{Phase, Subscription, SubscriptionStatus};
use turnpike_domain::money::Currency;
use turnpike_domain::time::{TimeRange, Timestamp};

/// A customer's use of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SubscriptionView {
    /// Its id.
    pub id: String,
    /// The customer's key.
    pub customer: String,
    /// The plan's key.
    pub plan: String,
    /// The plan's version, which stays.
    pub plan_version: u32,
    /// Keys of its add-ons.
    pub add_ons: Vec<String>,
    /// The currency that it is billed in.
    #[schema(value_type = String, pattern = "^[A-Z]{3}$")]
    pub currency: Currency,
    /// Where it stands.
    pub status: SubscriptionStatus,
    /// When it began or begins.
    #[schema(value_type = String, format = DateTime)]
    pub start: Timestamp,
    /// The instant whose day and time of day, in `timezone`, its periods begin at.
    #[schema(value_type = String, format = DateTime)]
    pub anchor: Timestamp,
    /// The zone of its periods.
    pub timezone: String,
    /// When its trial ends.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub trial_end: Option<Timestamp>,
    /// The period that contains now; before the start the first one, after the end the last one.
    #[schema(value_type = Object)]
    pub current_period: TimeRange,
    /// When it ended or will end.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ends_at: Option<Timestamp>,
    /// What it changes to.
    pub scheduled_change: Option<ScheduledChange>,
}

/// A change of a subscription that waits for the end of the period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ScheduledChange {
    /// When it takes effect.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The plan's key.
    pub plan: String,
    /// The plan's version.
    pub plan_version: u32,
    /// Keys of the add-ons.
    pub add_ons: Vec<String>,
}

impl SubscriptionView {
    /// How `subscription` looks at `now`.
    pub fn at(subscription: &Subscription, now: Timestamp) -> Self {
        let phase = subscription.phase_at(now);
        let waiting = subscription.change_after(now);
        Self {
            id: subscription.id.clone(),
            customer: subscription.customer.clone(),
            plan: phase.plan.clone(),
            plan_version: phase.plan_version,
            add_ons: add_on_keys(phase),
            currency: subscription.currency,
            status: subscription.status_at(now),
            start: subscription.start,
            anchor: phase.anchor,
            timezone: subscription.timezone.clone(),
            trial_end: subscription.trial_end,
            current_period: shown_period(subscription, now),
            ends_at: subscription.ends_at,
            scheduled_change: waiting.map(|later| ScheduledChange {
                at: later.from,
                plan: later.plan.clone(),
                plan_version: later.plan_version,
                add_ons: add_on_keys(later),
            }),
        }
    }
}

fn add_on_keys(phase: &Phase) -> Vec<String> {
    phase.add_ons.iter().map(|add_on| add_on.key.clone()).collect()
}

fn shown_period(subscription: &Subscription, now: Timestamp) -> TimeRange {
    let last = subscription
        .ends_at
        .map_or(now, |end| now.min(end.plus_micros(-1)));
    // One that was cancelled before it began has no period.
    subscription
        .period_at(last.max(subscription.start))
        .unwrap_or(TimeRange::new(subscription.start, subscription.start))
}
