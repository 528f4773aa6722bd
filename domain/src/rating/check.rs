//! Whether a price makes sense beside its meter and currency.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::decimal::Decimal;
use super::price::{Flat, Matrix, Model, Package, Percentage, Price};
use crate::catalog::is_key;
use crate::limits::{PRICE_RATES_MAX, PRICE_TIERS_MAX};
use crate::meter::Meter;
use crate::money::Currency;
use crate::problem::FieldError;
use crate::quantity::Quantity;

/// What a price is checked against.
#[derive(Debug, Clone, Copy)]
pub struct PriceContext<'a> {
    currency: Currency,
    meters: Option<&'a BTreeMap<String, Arc<Meter>>>,
}

impl<'a> PriceContext<'a> {
    /// A price of a plan or add-on: it needs a key and, unless flat, one of `meters`.
    pub const fn catalog(currency: Currency, meters: &'a BTreeMap<String, Arc<Meter>>) -> Self {
        Self {
            currency,
            meters: Some(meters),
        }
    }

    /// A price on its own, without key and meter.
    pub const fn preview(currency: Currency) -> Self {
        Self {
            currency,
            meters: None,
        }
    }
}

/// Collects errors with pointers relative to the price.
struct Errors(Vec<FieldError>);

impl Errors {
    fn add(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.0.push(FieldError {
            pointer: pointer.into(),
            detail: detail.into(),
        });
    }

    fn not_negative(&mut self, pointer: &str, value: Decimal) {
        if value.is_negative() {
            self.add(pointer, "must not be negative");
        }
    }

    fn quantity_not_negative(&mut self, pointer: &str, value: Quantity) {
        if value.is_negative() {
            self.add(pointer, "must not be negative");
        }
    }

    fn money(&mut self, pointer: &str, value: Decimal, currency: Currency) {
        self.not_negative(pointer, value);
        if !value.fits(currency.places()) {
            let places = currency.places();
            self.add(
                pointer,
                format!("has more than the {places} decimals of {currency}"),
            );
        }
    }
}

impl Price {
    /// What is wrong with the price; empty when nothing is. Pointers are relative to the price, such as
    /// `/tiers/0/up_to`.
    pub fn check(&self, context: &PriceContext<'_>) -> Vec<FieldError> {
        let mut errors = Errors(Vec::new());
        self.check_bounds(context.currency, &mut errors);
        if let Some(meters) = context.meters {
            self.check_references(meters, &mut errors);
        }
        match &self.model {
            Model::Flat(Flat { amount, .. }) => errors.money("/amount", *amount, context.currency),
            Model::PerUnit(per_unit) => {
                errors.not_negative("/unit_amount", per_unit.unit_amount);
                errors.quantity_not_negative("/included", per_unit.included);
            }
            Model::Graduated(tiers) | Model::Volume(tiers) => {
                check_ends(tiers.iter().map(|tier| tier.up_to).collect(), &mut errors);
                for (at, tier) in tiers.iter().enumerate() {
                    errors.not_negative(&format!("/tiers/{at}/unit_amount"), tier.unit_amount);
                    errors.not_negative(&format!("/tiers/{at}/flat_amount"), tier.flat_amount);
                }
            }
            Model::Package(package) => check_package(package, &mut errors),
            Model::Percentage(percentage) => check_percentage(percentage, &mut errors),
            Model::GraduatedPercentage(tiers) => {
                check_ends(tiers.iter().map(|tier| tier.up_to).collect(), &mut errors);
                for (at, tier) in tiers.iter().enumerate() {
                    errors.not_negative(&format!("/tiers/{at}/rate_percent"), tier.rate_percent);
                    errors.not_negative(&format!("/tiers/{at}/flat_amount"), tier.flat_amount);
                }
            }
            Model::Matrix(matrix) => check_matrix(matrix, &mut errors),
        }
        errors.0
    }

    fn check_bounds(&self, currency: Currency, errors: &mut Errors) {
        for (pointer, bound) in [
            ("/minimum_amount", self.minimum_amount),
            ("/maximum_amount", self.maximum_amount),
        ] {
            if let Some(bound) = bound {
                errors.money(pointer, bound, currency);
            }
        }
        if let (Some(least), Some(most)) = (self.minimum_amount, self.maximum_amount)
            && least > most
        {
            errors.add("/maximum_amount", "is below minimum_amount");
        }
        for (dimension, values) in &self.filter {
            if values.is_empty() {
                errors.add(pointer_to("/filter", dimension), "names no value");
            }
        }
    }

    fn check_references(&self, meters: &BTreeMap<String, Arc<Meter>>, errors: &mut Errors) {
        if !is_key(&self.key) {
            errors.add("/key", "must be 1 to 128 letters, digits or one of _-.:@/+");
        }
        if self.per_event() {
            let detail = "\"percentage\" charges each event by itself, which invoices cannot do yet (a price preview can): \
                          take \"graduated_percentage\" with one tier for a rate of the total";
            errors.add("/model", detail);
        }
        let is_flat = matches!(self.model, Model::Flat(_));
        let meter = match &self.meter {
            None if is_flat => {
                if !self.filter.is_empty() {
                    errors.add("/filter", "needs a meter, and a flat price has none");
                }
                return;
            }
            None => return errors.add("/meter", "is needed by every price but a flat one"),
            Some(_) if is_flat => return errors.add("/meter", "has no meaning for a flat price"),
            Some(key) => match meters.get(key) {
                None => return errors.add("/meter", format!("there is no meter \"{key}\"")),
                Some(meter) => meter,
            },
        };
        let unknown = |dimension: &String| !meter.group_by.contains_key(dimension);
        let detail =
            |dimension: &str| format!("\"{dimension}\" is no group_by key of meter \"{}\"", meter.key);
        for dimension in self.filter.keys().filter(|d| unknown(d)) {
            errors.add(pointer_to("/filter", dimension), detail(dimension));
        }
        if let Model::Matrix(matrix) = &self.model {
            for (at, dimension) in matrix.dimensions.iter().enumerate().filter(|(_, d)| unknown(d)) {
                errors.add(format!("/dimensions/{at}"), detail(dimension));
            }
        }
    }
}

/// RFC 6901 escapes.
fn pointer_to(parent: &str, name: &str) -> String {
    format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Ends ascend from above zero, and only the last one is open.
fn check_ends(ends: Vec<Option<Quantity>>, errors: &mut Errors) {
    if ends.is_empty() || ends.len() > PRICE_TIERS_MAX {
        return errors.add("/tiers", format!("must be 1 to {PRICE_TIERS_MAX}"));
    }
    let mut before = Quantity::ZERO;
    for (at, end) in ends.iter().enumerate() {
        let (pointer, last) = (format!("/tiers/{at}/up_to"), at + 1 == ends.len());
        match end {
            Some(_) if last => errors.add(pointer, "must be null for the last tier"),
            None if last => {}
            None => errors.add(pointer, "may be null for the last tier only"),
            Some(end) if *end <= before => errors.add(pointer, "must be above the tier before it"),
            Some(end) => before = *end,
        }
    }
}

fn check_package(package: &Package, errors: &mut Errors) {
    if package.package_size <= Quantity::ZERO {
        errors.add("/package_size", "must be above zero");
    }
    errors.not_negative("/package_amount", package.package_amount);
    errors.quantity_not_negative("/included", package.included);
}

fn check_percentage(percentage: &Percentage, errors: &mut Errors) {
    errors.not_negative("/rate_percent", percentage.rate_percent);
    errors.not_negative("/fixed_amount", percentage.fixed_amount);
    errors.quantity_not_negative("/free_amount", percentage.free_amount);
    for (pointer, bound) in [
        ("/min_per_event", percentage.min_per_event),
        ("/max_per_event", percentage.max_per_event),
    ] {
        if let Some(bound) = bound {
            errors.not_negative(pointer, bound);
        }
    }
    if let (Some(least), Some(most)) = (percentage.min_per_event, percentage.max_per_event)
        && least > most
    {
        errors.add("/max_per_event", "is below min_per_event");
    }
}

fn check_matrix(matrix: &Matrix, errors: &mut Errors) {
    let dimensions: BTreeSet<&String> = matrix.dimensions.iter().collect();
    if dimensions.is_empty() || dimensions.len() != matrix.dimensions.len() {
        errors.add("/dimensions", "must name at least one dimension, and each once");
    }
    if matrix.rates.len() > PRICE_RATES_MAX {
        errors.add("/rates", format!("must be at most {PRICE_RATES_MAX}"));
    }
    errors.not_negative("/default_unit_amount", matrix.default_unit_amount);
    let mut seen = BTreeSet::new();
    for (at, rate) in matrix.rates.iter().enumerate() {
        let pointer = format!("/rates/{at}");
        errors.not_negative(&format!("{pointer}/unit_amount"), rate.unit_amount);
        if rate.values.keys().collect::<BTreeSet<_>>() != dimensions {
            errors.add(pointer, "must give one value for each of the price's dimensions");
        } else if !seen.insert(&rate.values) {
            errors.add(pointer, "repeats the combination of an earlier rate");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::MeterId;
    use crate::meter::Aggregation;
    use serde_json::json;

    fn meters() -> BTreeMap<String, Arc<Meter>> {
        let meter = Meter {
            id: MeterId(1),
            key: "tokens".into(),
            event_type: "llm".into(),
            aggregation: Aggregation::Sum,
            value: Some("$.tokens".into()),
            percentile: None,
            group_by: [("model".to_owned(), "$.model".to_owned())].into(),
            filter: BTreeMap::new(),
        };
        [("tokens".to_owned(), Arc::new(meter))].into()
    }

    fn pointers(shape: serde_json::Value, in_catalog: bool) -> Vec<String> {
        let price: Price = serde_json::from_value(shape).unwrap();
        let meters = meters();
        let context = if in_catalog {
            PriceContext::catalog(Currency::USD, &meters)
        } else {
            PriceContext::preview(Currency::USD)
        };
        price
            .check(&context)
            .into_iter()
            .map(|error| error.pointer)
            .collect()
    }

    #[test]
    fn good_prices_pass() {
        for shape in [
            json!({"key": "base", "model": "flat", "amount": "29.00"}),
            json!({"key": "t", "meter": "tokens", "model": "per_unit", "unit_amount": "0.0004", "filter": {"model": ["a"]}}),
            json!({"key": "t", "meter": "tokens", "model": "matrix", "dimensions": ["model"],
                "rates": [{"model": "a", "unit_amount": "1"}, {"model": "b", "unit_amount": "2"}]}),
        ] {
            assert_eq!(pointers(shape, true), Vec::<String>::new());
        }
        assert_eq!(
            pointers(json!({"model": "per_unit", "unit_amount": "1"}), false),
            Vec::<String>::new()
        );
    }

    #[test]
    fn bad_prices_are_pointed_at() {
        for (shape, expected) in [
            (json!({"model": "flat", "amount": "1.001"}), vec!["/amount"]),
            (json!({"model": "flat", "amount": "-1"}), vec!["/amount"]),
            (
                json!({"model": "flat", "amount": "1", "minimum_amount": "3", "maximum_amount": "2"}),
                vec!["/maximum_amount"],
            ),
            (
                json!({"model": "per_unit", "unit_amount": "-1", "included": "-1"}),
                vec!["/unit_amount", "/included"],
            ),
            (json!({"model": "graduated", "tiers": []}), vec!["/tiers"]),
            (
                json!({"model": "graduated", "tiers": [{"up_to": "5"}]}),
                vec!["/tiers/0/up_to"],
            ),
            (
                json!({"model": "volume", "tiers": [{"up_to": null}, {"up_to": null}]}),
                vec!["/tiers/0/up_to"],
            ),
            (
                json!({"model": "volume", "tiers": [{"up_to": "5"}, {"up_to": "5"}, {}]}),
                vec!["/tiers/1/up_to"],
            ),
            (
                json!({"model": "package", "package_size": "0", "package_amount": "1"}),
                vec!["/package_size"],
            ),
            (
                json!({"model": "percentage", "rate_percent": "1", "min_per_event": "2", "max_per_event": "1"}),
                vec!["/max_per_event"],
            ),
            (json!({"model": "matrix", "dimensions": []}), vec!["/dimensions"]),
            (
                json!({"model": "matrix", "dimensions": ["a"], "rates": [{"b": "x", "unit_amount": "1"}]}),
                vec!["/rates/0"],
            ),
            (
                json!({"model": "matrix", "dimensions": ["a"], "rates":
                [{"a": "x", "unit_amount": "1"}, {"a": "x", "unit_amount": "2"}]}),
                vec!["/rates/1"],
            ),
        ] {
            assert_eq!(pointers(shape.clone(), false), expected, "{shape}");
        }
    }

    #[test]
    fn references_are_checked_in_a_catalog() {
        for (shape, expected) in [
            (json!({"model": "flat", "amount": "1"}), vec!["/key"]),
            (
                json!({"key": "a", "model": "flat", "amount": "1", "meter": "tokens"}),
                vec!["/meter"],
            ),
            (
                json!({"key": "a", "model": "per_unit", "unit_amount": "1"}),
                vec!["/meter"],
            ),
            (
                json!({"key": "a", "model": "per_unit", "unit_amount": "1", "meter": "none"}),
                vec!["/meter"],
            ),
            (
                json!({"key": "a", "model": "per_unit", "unit_amount": "1", "meter": "tokens", "filter": {"x/y": ["1"]}}),
                vec!["/filter/x~1y"],
            ),
            (
                json!({"key": "a", "model": "matrix", "meter": "tokens", "dimensions": ["region"]}),
                vec!["/dimensions/0"],
            ),
        ] {
            assert_eq!(pointers(shape.clone(), true), expected, "{shape}");
        }
    }
}
