//! Whether the prices on the lines are those of the plan versions that they name, and the invoice is its subscription's.

use turnpike_domain::catalog::Catalog;
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::{Basis, Difference, Invoice, Line, LineKind};
use turnpike_domain::money::Currency;
use turnpike_domain::rating::Price;

use super::Verifier;
use crate::invoice::charges::{add_on_prices, plan_prices};
use crate::invoice::commitment;

impl Verifier {
    /// Customer and currency are the subscription's for good.
    pub(super) fn compare_subscription(&self, tenant: TenantId, invoice: &Invoice) -> Vec<Difference> {
        let found = self.directory.subscription(tenant, &invoice.subscription);
        let Some(subscription) = found else {
            let known = "a subscription that there is";
            let difference = Difference::of("/subscription", known, &invoice.subscription);
            return difference.into_iter().collect();
        };
        let customer = Difference::of("/customer", &subscription.customer, &invoice.customer);
        let currency = Difference::of("/currency", subscription.currency, invoice.currency);
        customer.into_iter().chain(currency).collect()
    }

    /// Versions of plans and add-ons never change and stay for good, so each line's price must be one of theirs.
    pub(super) fn compare_declared(&self, tenant: TenantId, invoice: &Invoice) -> Vec<Difference> {
        let catalog = self.directory.catalog(tenant);
        let lines = invoice.lines.iter().enumerate();
        let compared = lines.map(|(at, line)| {
            let mut differences = compare_with_basis(at, line);
            differences.extend(compare_price((at, line), invoice.currency, &catalog));
            differences
        });
        compared.flatten().collect()
    }
}

/// What a line says must be what its basis says.
fn compare_with_basis(at: usize, line: &Line) -> Vec<Difference> {
    let place = |field: &str| format!("/lines/{at}/{field}");
    let kinds: &[LineKind] = match &line.basis {
        Basis::Recurring {
            part_us, whole_us, ..
        } if part_us == whole_us => &[LineKind::Recurring],
        Basis::Recurring { .. } => &[LineKind::Proration],
        Basis::Usage { .. } => &[LineKind::Usage],
        Basis::Minimum { .. } => &[LineKind::Minimum],
        Basis::Adjustment { .. } => &[LineKind::Adjustment],
        Basis::Commitment { .. } => &[LineKind::Minimum, LineKind::Adjustment],
    };
    let mut differences = Vec::new();
    if !kinds.contains(&line.kind) {
        let expected = kinds.first().map_or("", |kind| kind.as_str());
        differences.extend(Difference::of(place("kind"), expected, line.kind.as_str()));
    }
    let (key, meter) = match line.basis.price() {
        Some(price) => (price.key.as_str(), price.meter.as_deref()),
        None => (commitment::KEY, None),
    };
    differences.extend(Difference::of(place("price"), key, &line.price));
    let meters = (
        meter.unwrap_or_default(),
        line.meter.as_deref().unwrap_or_default(),
    );
    differences.extend(Difference::of(place("meter"), meters.0, meters.1));
    if let Basis::Recurring { part_us, .. } | Basis::Commitment { part_us, .. } = &line.basis {
        let length = line
            .period
            .end
            .micros()
            .saturating_sub(line.period.start.micros());
        let differs = |length: i64| format!("{length} microseconds");
        differences.extend(Difference::of(
            place("period"),
            differs(*part_us),
            differs(length),
        ));
    }
    differences
}

/// Compares a line's price with the one that its source declares.
fn compare_price((at, line): (usize, &Line), currency: Currency, catalog: &Catalog) -> Option<Difference> {
    let pointer = format!("/lines/{at}/price");
    let Some(declared) = declared(&line.source, currency, catalog) else {
        let known = format!("a version of a plan or add-on with prices in {currency}");
        return Difference::of(format!("/lines/{at}/source"), known, &line.source);
    };
    let Some(price) = line.basis.price() else {
        let Basis::Commitment { commitment, .. } = &line.basis else {
            return None;
        };
        let amount = declared.commitment.map(|amount| currency.parse_amount(amount));
        let promised = match amount {
            Some(Ok(minor)) => currency.format_amount(minor),
            _ => "no minimum commitment".to_owned(),
        };
        return Difference::of(pointer, promised, currency.format_amount(*commitment));
    };
    match declared.prices.iter().find(|declared| declared.key == price.key) {
        Some(declared) => Difference::of(pointer, json(declared), json(price)),
        None => Difference::of(pointer, format!("a price of {}", line.source), &price.key),
    }
}

/// What a version of a plan or add-on declares in a currency.
struct Declared<'c> {
    prices: &'c [Price],
    /// The minimum commitment, as an amount of the currency.
    commitment: Option<&'c str>,
}

fn declared<'c>(source: &str, currency: Currency, catalog: &'c Catalog) -> Option<Declared<'c>> {
    let (what, version) = source.rsplit_once('@')?;
    let version = version.parse().ok()?;
    if let Some(key) = what.strip_prefix("plan/") {
        let plan = catalog.plan(key, version)?;
        return Some(Declared {
            prices: plan_prices(plan, currency)?,
            commitment: plan
                .minimum_commitment
                .as_deref()
                .filter(|_| plan.currency == currency),
        });
    }
    let add_on = catalog.add_on(what.strip_prefix("add_on/")?, version)?;
    Some(Declared {
        prices: add_on_prices(add_on, currency)?,
        commitment: None,
    })
}

/// A price is made of texts and numbers in a fixed order: writing it cannot fail.
fn json(price: &Price) -> String {
    serde_json::to_string(price).unwrap_or_default()
}
