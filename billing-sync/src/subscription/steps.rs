//! What can be done with a subscription, as pure rules: each alters it or refuses.

use serde::{Deserialize, Serialize};
use turnpike_domain::catalog::{Catalog, Pause, Phase, Subscription, SubscriptionStatus};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::Timestamp;

use super::create::{add_ons_of, check_currency, plan_of};

/// When something takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effective {
    /// At once.
    Now,
    /// At the end of the current period.
    #[default]
    PeriodEnd,
}

/// What a subscription changes to. What is left out stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// The plan's key.
    #[serde(default)]
    pub plan: Option<String>,
    /// The plan's version: with `plan` the current one unless said.
    #[serde(default)]
    pub plan_version: Option<u32>,
    /// Keys of all add-ons from then on. Those that it has already keep their version.
    #[serde(default)]
    pub add_ons: Option<Vec<String>>,
    /// When; at the end of the period unless said.
    #[serde(default)]
    pub effective: Effective,
}

/// How a subscription is cancelled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// When; at the end of the period unless said.
    #[serde(default)]
    pub at: Effective,
}

fn refuse(subscription: &Subscription, detail: impl std::fmt::Display) -> Problem {
    Problem::new(
        Code::IllegalTransition,
        format!("subscription {} {detail}", subscription.id),
    )
}

fn check_not_ended(subscription: &Subscription, now: Timestamp) -> Result<(), Problem> {
    if subscription.has_ended(now) {
        return Err(refuse(subscription, "has ended: make a new one"));
    }
    Ok(())
}

pub(super) fn change(
    catalog: &Catalog,
    subscription: &mut Subscription,
    now: Timestamp,
    asked: &ChangeRequest,
) -> Result<(), Problem> {
    check_not_ended(subscription, now)?;
    let mut next = changed_phase(catalog, subscription, now, asked)?;
    let current = subscription.phase_at(now).clone();
    let same_cycle = (next.interval, next.interval_count) == (current.interval, current.interval_count);
    match asked.effective {
        Effective::PeriodEnd => {
            let at = subscription
                .period_at(now.max(subscription.start))
                .map_or(subscription.start, |p| p.end);
            if subscription.ends_at.is_some_and(|end| end <= at) {
                return Err(refuse(subscription, "ends with this period: reactivate it first"));
            }
            subscription.later.retain(|later| later.from <= now);
            next.from = at;
            next.anchor = if same_cycle { current.anchor } else { at };
            if !same_content(&next, &current) {
                subscription.later.push(next);
            }
        }
        Effective::Now => {
            let at = now.floor_minute().max(subscription.start);
            if now >= subscription.start && !subscription.is_trial(now) {
                return Err(Problem::invalid(
                    "/effective",
                    "must be period_end: the running period is charged as it was begun, and there are no proration lines",
                ));
            }
            subscription.later.retain(|later| later.from <= now);
            next.from = at;
            next.anchor = current.anchor;
            replace_from(subscription, next);
        }
    }
    Ok(())
}

/// Puts `phase` in force from its instant on, in place of what began there.
fn replace_from(subscription: &mut Subscription, phase: Phase) {
    subscription.later.retain(|later| later.from < phase.from);
    if phase.from == subscription.first.from {
        subscription.first = phase;
    } else {
        subscription.later.push(phase);
    }
}

fn same_content(a: &Phase, b: &Phase) -> bool {
    (&a.plan, a.plan_version, &a.add_ons) == (&b.plan, b.plan_version, &b.add_ons)
}

fn changed_phase(
    catalog: &Catalog,
    subscription: &Subscription,
    now: Timestamp,
    asked: &ChangeRequest,
) -> Result<Phase, Problem> {
    if (&asked.plan, &asked.plan_version, &asked.add_ons) == (&None, &None, &None) {
        return Err(Problem::invalid("", "name a plan, a plan_version or add_ons"));
    }
    let current = subscription.phase_at(now);
    let mut next = current.clone();
    if asked.plan.is_some() || asked.plan_version.is_some() {
        let plan = plan_of(
            catalog,
            asked.plan.as_deref().unwrap_or(&current.plan),
            asked.plan_version,
        )?;
        check_currency(plan, subscription.currency, "/plan")?;
        next.plan.clone_from(&plan.key);
        next.plan_version = plan.version;
        next.interval = plan.interval;
        next.interval_count = plan.interval_count;
    }
    if let Some(keys) = &asked.add_ons {
        next.add_ons = add_ons_of(catalog, keys, &current.add_ons, subscription.currency)?;
    }
    Ok(next)
}

pub(super) fn pause(subscription: &mut Subscription, now: Timestamp) -> Result<(), Problem> {
    match subscription.status_at(now) {
        SubscriptionStatus::Paused => Err(refuse(subscription, "is paused already")),
        SubscriptionStatus::Scheduled => Err(refuse(subscription, "has not begun")),
        SubscriptionStatus::Cancelled | SubscriptionStatus::Expired => check_not_ended(subscription, now),
        SubscriptionStatus::Trial | SubscriptionStatus::Active | SubscriptionStatus::PastDue => {
            subscription.pauses.push(Pause {
                from: now.floor_minute().max(subscription.start),
                until: None,
            });
            Ok(())
        }
    }
}

pub(super) fn resume(subscription: &mut Subscription, now: Timestamp) -> Result<(), Problem> {
    check_not_ended(subscription, now)?;
    let Some(pause) = subscription
        .pauses
        .last_mut()
        .filter(|pause| pause.until.is_none())
    else {
        return Err(refuse(subscription, "is not paused"));
    };
    pause.until = Some(now.floor_minute());
    // One that was paused and resumed within a minute was not paused at all.
    subscription
        .pauses
        .retain(|pause| pause.until.is_none_or(|until| until > pause.from));
    Ok(())
}

pub(super) fn cancel(subscription: &mut Subscription, now: Timestamp, at: Effective) -> Result<(), Problem> {
    check_not_ended(subscription, now)?;
    let end = match at {
        _ if now < subscription.start => subscription.start,
        Effective::Now => now.floor_minute().max(subscription.start),
        Effective::PeriodEnd => subscription
            .period_at(now)
            .map_or(now.floor_minute(), |period| period.end),
    };
    let end = subscription.ends_at.map_or(end, |earlier| earlier.min(end));
    subscription.ends_at = Some(end);
    subscription.expires = false;
    Ok(())
}

pub(super) fn reactivate(subscription: &mut Subscription, now: Timestamp) -> Result<(), Problem> {
    check_not_ended(subscription, now)?;
    if subscription.ends_at.is_none() {
        return Err(refuse(subscription, "is not cancelled"));
    }
    subscription.ends_at = None;
    Ok(())
}
