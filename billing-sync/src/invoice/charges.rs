//! What falls due at a boundary of a subscription: pure, from subscription and catalog.

use turnpike_domain::catalog::{AddOn, Catalog, Phase, Plan, Subscription};
use turnpike_domain::money::Currency;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::rating::{Model, Price};
use turnpike_domain::time::{Cycle, TimeRange, Timestamp, Zone};

/// A price of a plan or add-on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Charge {
    /// Where it is declared.
    pub(super) source: String,
    /// The plan's or add-on's name for people.
    pub(super) name: String,
    /// The price.
    pub(super) price: Price,
}

/// Something to charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    /// A flat price for `part_us` of a period of `whole_us`.
    Flat {
        /// The price.
        charge: Charge,
        /// The time that it is for.
        period: TimeRange,
        /// Microseconds that are charged.
        part_us: i64,
        /// Microseconds of the whole period.
        whole_us: i64,
    },
    /// Usage in the period that ends.
    Usage(Charge),
}

/// What falls due at the end of `period`: prices in advance for the period behind it, then the others for `period`
/// itself, in the order of the plan. An empty period is the subscription's start.
///
/// A trial is free, and so are recurring prices of a period that begins in a pause. A flat price of a period that is cut
/// short (by the subscription's end, a change of plan, or an anchor that is not its start) is charged by its share.
pub(super) fn dues(
    subscription: &Subscription,
    catalog: &Catalog,
    period: TimeRange,
) -> Result<Vec<Due>, Problem> {
    let mut dues = Vec::new();
    if let Some(next) = subscription.period_at(period.end)
        && is_charged(subscription, next.start)
    {
        let phase = subscription.phase_at(next.start);
        for charge in phase_charges(subscription, catalog, phase)? {
            if charge.price.in_advance() && !subscription.is_paused(next.start) {
                dues.push(flat(subscription, phase, charge, next));
            }
        }
    }
    if period.start < period.end && is_charged(subscription, period.start) {
        let phase = subscription.phase_at(period.start);
        for charge in phase_charges(subscription, catalog, phase)? {
            match &charge.price.model {
                Model::Flat(_) if charge.price.in_advance() => {}
                Model::Flat(_) if subscription.is_paused(period.start) => {}
                Model::Flat(_) => dues.push(flat(subscription, phase, charge, period)),
                _ => dues.push(Due::Usage(charge)),
            }
        }
    }
    Ok(dues)
}

/// Nothing is charged for a trial.
fn is_charged(subscription: &Subscription, at: Timestamp) -> bool {
    !subscription.is_trial(at)
}

fn flat(subscription: &Subscription, phase: &Phase, charge: Charge, period: TimeRange) -> Due {
    let whole = whole_period(subscription, phase, period.start);
    let length = |range: TimeRange| range.end.micros() - range.start.micros();
    Due::Flat {
        charge,
        period,
        part_us: length(period),
        whole_us: length(whole),
    }
}

/// The whole period around `at`, however early it is cut short.
pub(super) fn whole_period(subscription: &Subscription, phase: &Phase, at: Timestamp) -> TimeRange {
    let zone = Zone::parse(&subscription.timezone).unwrap_or(Zone::UTC);
    Cycle::new(phase.anchor, zone, phase.interval, phase.interval_count).period_at(at)
}

fn phase_charges(
    subscription: &Subscription,
    catalog: &Catalog,
    phase: &Phase,
) -> Result<Vec<Charge>, Problem> {
    let gone = |what: &str, key: &str, version: u32| {
        Problem::new(
            Code::NotFound,
            format!("{what} \"{key}\" has no version {version}"),
        )
    };
    let no_prices = |what: &str, key: &str| {
        let currency = subscription.currency;
        Problem::new(
            Code::Invalid,
            format!("{what} \"{key}\" has no prices in {currency}"),
        )
    };
    let (key, version) = (&phase.plan, phase.plan_version);
    let plan = catalog
        .plan(key, version)
        .ok_or_else(|| gone("plan", key, version))?;
    let prices = plan_prices(plan, subscription.currency).ok_or_else(|| no_prices("plan", key))?;
    let charge = |source: String, name: &str| {
        let name = name.to_owned();
        move |price: &Price| Charge {
            source: source.clone(),
            name: name.clone(),
            price: price.clone(),
        }
    };
    let name = |name: &str, key: &str| {
        if name.is_empty() {
            key.to_owned()
        } else {
            name.to_owned()
        }
    };
    let source = format!("plan/{key}@{version}");
    let mut charges: Vec<Charge> = prices
        .iter()
        .map(charge(source, &name(&plan.name, key)))
        .collect();
    for used in &phase.add_ons {
        let found = catalog.add_on(&used.key, used.version);
        let add_on = found.ok_or_else(|| gone("add-on", &used.key, used.version))?;
        let prices = add_on_prices(add_on, subscription.currency);
        let prices = prices.ok_or_else(|| no_prices("add-on", &used.key))?;
        let source = format!("add_on/{}@{}", used.key, used.version);
        let name = name(&add_on.name, &used.key);
        charges.extend(prices.iter().map(charge(source, &name)));
    }
    Ok(charges)
}

/// A plan's prices in a currency; `None` when it has none.
pub(super) fn plan_prices(plan: &Plan, currency: Currency) -> Option<&[Price]> {
    if plan.currency == currency {
        return Some(&plan.prices);
    }
    plan.prices_by_currency.get(currency.code()).map(Vec::as_slice)
}

/// An add-on's prices in a currency; `None` when it has prices, but in another.
pub(super) fn add_on_prices(add_on: &AddOn, currency: Currency) -> Option<&[Price]> {
    let fits = add_on.currency == currency || add_on.prices.is_empty();
    fits.then_some(&add_on.prices)
}

/// The period to close behind `closed_until`; `None` when the subscription is closed to its end. The first one is the
/// empty period at the subscription's start, if something is charged in advance there.
pub(super) fn next_period(
    subscription: &Subscription,
    catalog: &Catalog,
    closed_until: Option<Timestamp>,
) -> Result<Option<TimeRange>, Problem> {
    let Some(from) = closed_until else {
        let start = TimeRange::new(subscription.start, subscription.start);
        let at_start = dues(subscription, catalog, start)?;
        let first = || subscription.period_at(subscription.start);
        return Ok(if at_start.is_empty() { first() } else { Some(start) });
    };
    Ok(subscription.period_at(from))
}
