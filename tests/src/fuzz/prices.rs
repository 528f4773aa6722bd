//! Prices: read, checked, and applied to usage.
//!
//! Input: a line with the currency, a line with quantities divided by commas, and the price in JSON.

use turnpike_domain::money::Currency;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::rating::{Exact, Model, Price, PriceContext, Rated, Usage, rate, rate_step};

use super::divided;

/// Quantities that are looked at.
const QUANTITIES_MAX: usize = 8;

/// See [`super::Target`].
///
/// # Panics
/// Where a price is not written as it is read, an amount is not the same each time, is not the sum of its lines, is not
/// the nearest minor unit, or lies outside its bounds, or where bills in steps do not sum to the whole.
pub fn enter(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    let (currency, rest) = divided(text, "\n");
    let (quantities, json) = divided(rest, "\n");
    let (Ok(currency), Ok(price)) = (Currency::parse(currency), serde_json::from_str::<Price>(json)) else {
        return false;
    };
    let written = serde_json::to_string(&price).expect("a price is JSON");
    assert_eq!(
        serde_json::from_str::<Price>(&written).ok().as_ref(),
        Some(&price),
        "{written}"
    );
    let wrong = price.check(&PriceContext::preview(currency));
    assert!(
        wrong.iter().all(|error| error.pointer.starts_with('/')),
        "{wrong:?}"
    );
    if !wrong.is_empty() {
        return false;
    }
    let quantities: Vec<Quantity> = quantities
        .split(',')
        .filter_map(|text| text.parse().ok())
        .filter(|quantity: &Quantity| !quantity.is_negative())
        .take(QUANTITIES_MAX)
        .collect();
    if let Ok(all) = rate(&price, &usage(&price, &quantities), currency) {
        assert_sound(&price, &all, currency);
        assert_eq!(rate(&price, &usage(&price, &quantities), currency), Ok(all));
    }
    in_steps(&price, &quantities, currency);
    true
}

/// The quantities as the usage that the price takes.
fn usage(price: &Price, quantities: &[Quantity]) -> Usage {
    let first = quantities.first().copied().unwrap_or_default();
    match &price.model {
        Model::Percentage(_) | Model::GraduatedPercentage(_) => Usage::Events(quantities.to_vec()),
        Model::Matrix(matrix) => {
            let group = |at: usize| match matrix.rates.get(at) {
                Some(rate) => matrix
                    .dimensions
                    .iter()
                    .map(|name| rate.values.get(name).cloned().unwrap_or_default())
                    .collect(),
                None => vec![at.to_string(); matrix.dimensions.len()],
            };
            let groups = quantities.iter().enumerate();
            Usage::Groups(groups.map(|(at, quantity)| (group(at), *quantity)).collect())
        }
        _ => Usage::Total(first),
    }
}

fn assert_sound(price: &Price, rated: &Rated, currency: Currency) {
    let sum: Exact = rated.lines.iter().map(|line| line.amount.clone()).sum();
    assert_eq!(sum, rated.unrounded, "the lines are not the amount");
    let difference = &Exact::from_minor(rated.minor, currency) - &rated.unrounded;
    let half = &Exact::from_minor(1, currency) * &Exact::fraction(1, 2).expect("a half");
    let near = difference <= half && difference >= &Exact::zero() - &half;
    assert!(near, "{} is not the nearest minor unit", rated.minor);
    assert!(rated.minor >= 0, "a price that gives {}", rated.minor);
    let bound = |amount| Exact::from(amount).to_minor(currency);
    if let Some(Ok(least)) = price.minimum_amount.map(bound) {
        assert!(rated.minor >= least, "{} below {least}", rated.minor);
    }
    if let Some(Ok(most)) = price.maximum_amount.map(bound) {
        assert!(rated.minor <= most, "{} above {most}", rated.minor);
    }
}

/// The bills of a growing total sum to the bill of the whole.
fn in_steps(price: &Price, quantities: &[Quantity], currency: Currency) {
    if !matches!(
        price.model,
        Model::PerUnit(_) | Model::Graduated(_) | Model::Volume(_) | Model::Package(_)
    ) {
        return;
    }
    let (mut already, mut billed) = (Quantity::ZERO, 0_i64);
    for quantity in quantities {
        let Some(total) = already.checked_add(*quantity) else {
            return;
        };
        let (before, now) = (Usage::Total(already), Usage::Total(total));
        let (Ok(step), Ok(whole)) = (
            rate_step(price, &before, &now, currency),
            rate(price, &now, currency),
        ) else {
            return;
        };
        // Where nothing was billed, the first bill is that of the whole.
        billed = if already.is_zero() {
            step.minor
        } else {
            billed + step.minor
        };
        assert_eq!(billed, whole.minor, "after {total}");
        already = total;
    }
}
