//! A new subscription.

use serde::{Deserialize, Serialize};
use turnpike_domain::catalog::{AddOnUse, Catalog, Customer, Interval, Phase, Plan, Subscription};
use turnpike_domain::identity::TenantId;
use turnpike_domain::limits::{PLAN_SPAN_MAX, SUBSCRIPTION_ADD_ONS_MAX};
use turnpike_domain::money::Currency;
use turnpike_domain::port::control::{AuditNote, ControlState, Decision, Effect, answer_of};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{Cycle, Timestamp, Zone};

use super::SubscriptionView;
use crate::control::living_customer;

/// A subscription to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSubscription {
    /// The customer's key.
    pub customer: String,
    /// The plan's key.
    pub plan: String,
    /// The plan's version; the current one unless said.
    #[serde(default)]
    pub plan_version: Option<u32>,
    /// Keys of add-ons, at their current versions.
    #[serde(default)]
    pub add_ons: Vec<String>,
    /// The currency to bill in; the customer's unless said, else the plan's.
    #[serde(default)]
    #[schema(value_type = Option<String>, pattern = "^[A-Z]{3}$")]
    pub currency: Option<Currency>,
    /// When it begins, past or future, cut to its minute; now unless said.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub start: Option<Timestamp>,
    /// The instant whose day and time of day its periods begin at; its start unless said, or the end of its trial.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub anchor: Option<Timestamp>,
    /// Days of trial; the plan's unless said.
    #[serde(default)]
    pub trial_days: Option<u32>,
}

pub(super) fn decide(
    state: &dyn ControlState,
    (tenant, now): (TenantId, Timestamp),
    id: String,
    asked: NewSubscription,
) -> Result<Decision, Problem> {
    let customer = living_customer(state, tenant, &asked.customer).map_err(|_| {
        Problem::invalid(
            "/customer",
            format!("there is no customer \"{}\"", asked.customer),
        )
    })?;
    let catalog = state.catalog(tenant);
    let plan = plan_of(&catalog, &asked.plan, asked.plan_version)?;
    let currency = asked.currency.or(customer.currency).unwrap_or(plan.currency);
    check_currency(plan, currency, "/currency")?;
    let add_ons = add_ons_of(&catalog, &asked.add_ons, &[], currency)?;
    let timezone = zone_of(state, tenant, &customer);
    let start = asked.start.unwrap_or(now).floor_minute();
    let trial_end = trial_end(start, &timezone, asked.trial_days.unwrap_or(plan.trial_days))?;
    let anchor = asked.anchor.or(trial_end).unwrap_or(start).floor_minute();
    let subscription = Subscription {
        id,
        customer: asked.customer,
        currency,
        start,
        trial_end,
        timezone,
        first: Phase {
            from: start,
            plan: plan.key.clone(),
            plan_version: plan.version,
            interval: plan.interval,
            interval_count: plan.interval_count,
            anchor,
            add_ons,
        },
        later: Vec::new(),
        pauses: Vec::new(),
        past_due: false,
        ends_at: None,
        expires: false,
        billed_until: start,
    };
    check_alone(state, tenant, &subscription)?;
    let answer = answer_of(&SubscriptionView::at(&subscription, now))?;
    let note = AuditNote::new("subscription.create", format!("subscription/{}", subscription.id));
    Ok(Decision::changed(
        vec![Effect::Subscription(subscription)],
        note,
        201,
        answer,
    ))
}

/// The zone of anchors: the customer's, else the tenant's.
fn zone_of(state: &dyn ControlState, tenant: TenantId, customer: &Customer) -> String {
    let tenants = || state.tenant(tenant).map(|tenant| tenant.timezone.clone());
    customer
        .timezone
        .clone()
        .or_else(tenants)
        .unwrap_or_else(|| "UTC".to_owned())
}

/// `days` calendar days behind `start`, at the same time of day in the zone.
fn trial_end(start: Timestamp, timezone: &str, days: u32) -> Result<Option<Timestamp>, Problem> {
    if days > PLAN_SPAN_MAX {
        return Err(Problem::invalid(
            "/trial_days",
            format!("must be at most {PLAN_SPAN_MAX}"),
        ));
    }
    if days == 0 {
        return Ok(None);
    }
    let zone = Zone::parse(timezone).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    Ok(Some(Cycle::new(start, zone, Interval::Day, days).boundary(1)))
}

/// A plan that is offered, at a version.
pub(super) fn plan_of<'a>(
    catalog: &'a Catalog,
    key: &str,
    version: Option<u32>,
) -> Result<&'a Plan, Problem> {
    let Some(current) = catalog.current_plan(key) else {
        return Err(Problem::invalid("/plan", format!("there is no plan \"{key}\"")));
    };
    let version = version.unwrap_or(current.version);
    let missing = || {
        Problem::invalid(
            "/plan_version",
            format!("plan \"{key}\" has no version {version}"),
        )
    };
    catalog.plan(key, version).map(AsRef::as_ref).ok_or_else(missing)
}

/// The plan must have prices in the currency that is billed.
pub(super) fn check_currency(plan: &Plan, currency: Currency, pointer: &str) -> Result<(), Problem> {
    if plan.currency == currency || plan.prices_by_currency.contains_key(currency.code()) {
        return Ok(());
    }
    let detail = format!(
        "plan \"{}\" version {} has no prices in {currency}",
        plan.key, plan.version
    );
    Err(Problem::invalid(pointer, detail))
}

/// Add-ons by key: those in `kept` keep their version, others get the current one.
pub(super) fn add_ons_of(
    catalog: &Catalog,
    keys: &[String],
    kept: &[AddOnUse],
    currency: Currency,
) -> Result<Vec<AddOnUse>, Problem> {
    if keys.len() > SUBSCRIPTION_ADD_ONS_MAX {
        return Err(Problem::invalid(
            "/add_ons",
            format!("has more than {SUBSCRIPTION_ADD_ONS_MAX} entries"),
        ));
    }
    let mut add_ons: Vec<AddOnUse> = Vec::with_capacity(keys.len());
    for (index, key) in keys.iter().enumerate() {
        let wrong = |detail: String| Err(Problem::invalid(format!("/add_ons/{index}"), detail));
        if add_ons.iter().any(|earlier| earlier.key == *key) {
            return wrong("stands here twice".to_owned());
        }
        if let Some(same) = kept.iter().find(|kept| kept.key == *key) {
            add_ons.push(same.clone());
            continue;
        }
        let Some(add_on) = catalog.current_add_on(key) else {
            return wrong(format!("there is no add-on \"{key}\""));
        };
        if add_on.currency != currency && !add_on.prices.is_empty() {
            return wrong(format!(
                "has prices in {}, but the subscription is billed in {currency}",
                add_on.currency
            ));
        }
        add_ons.push(AddOnUse {
            key: key.clone(),
            version: add_on.version,
        });
    }
    Ok(add_ons)
}

/// A customer has one subscription at a time: with two, nobody could say which of them entitles it.
pub(super) fn check_alone(
    state: &dyn ControlState,
    tenant: TenantId,
    subscription: &Subscription,
) -> Result<(), Problem> {
    let others = state.subscriptions(tenant, &subscription.customer);
    let meets = |other: &&std::sync::Arc<Subscription>| {
        other.id != subscription.id && other.span().intersect(&subscription.span()).is_some()
    };
    let Some(other) = others.iter().find(meets) else {
        return Ok(());
    };
    let until = other
        .ends_at
        .map_or_else(|| "on".to_owned(), |end| format!("until {end}"));
    Err(Problem::new(
        Code::AlreadyExists,
        format!(
            "customer \"{}\" has subscription {} from {} {until}, and one at a time is all it can have: change that one, \
             or cancel it first",
            subscription.customer, other.id, other.start
        ),
    ))
}
