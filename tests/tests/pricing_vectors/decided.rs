//! Examples whose source decided otherwise than BILLING does, each with our figure.
//!
//! | example | its source | ours | by which rule |
//! |---|---|---|---|
//! | stripe-discount-allocation | 166 and 334 | 167 and 333 | what is left goes to the largest remainder |
//! | numscript-77-source | 8, 16, 53 | 8, 15, 54 | the same |
//! | lago-tax-per-invoice | total 5.56 | 5.55 | tax is rounded per line |
//! | lago-coupons-breakdown | tax 18.89, coupons in parts of a cent | 18.87 | both |

use serde_json::{Value, json};
use turnpike_domain::rating::{Exact, split};

use crate::arithmetic::share_of;
use crate::{currency, exact};

fn amounts(values: &Value) -> Vec<i64> {
    values
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_i64().unwrap())
        .collect()
}

fn weights(amounts: &[i64]) -> Vec<u64> {
    amounts.iter().map(|amount| *amount as u64).collect()
}

/// Compares our figure; `false` for an example whose rule is ours.
pub(crate) fn run(id: &str, inputs: &Value, expected: &Value) -> bool {
    match id {
        "stripe-discount-allocation" => {
            let lines = amounts(&inputs["lines_minor"]);
            let parts = split(inputs["discount_minor"].as_i64().unwrap(), &weights(&lines)).unwrap();
            assert_eq!(
                (json!(parts), &expected["discount_by_line_minor"]),
                (json!([167, 333]), &json!([166, 334]))
            );
        }
        "numscript-77-source" => {
            let parts = split(inputs["total_minor"].as_i64().unwrap(), &[1, 2, 7]).unwrap();
            assert_eq!(
                (json!(parts), &expected["parts"]),
                (json!([8, 15, 54]), &json!([8, 16, 53]))
            );
        }
        "lago-tax-per-invoice" => {
            let lines: Vec<Exact> = inputs["lines"].as_array().unwrap().iter().map(exact).collect();
            let net: i64 = lines
                .iter()
                .map(|line| line.to_minor(currency(inputs)).unwrap())
                .sum();
            let tax: i64 = lines
                .iter()
                .map(|line| share_of(line, &inputs["tax_percent"], currency(inputs)))
                .sum();
            assert_eq!((net + tax, &expected["total"]), (555, &json!("5.56")));
        }
        "lago-coupons-breakdown" => {
            assert_eq!(
                (taxes_behind_coupons(inputs), &expected["tax_minor"]),
                (1_887, &json!(1_889))
            );
        }
        _ => return false,
    }
    true
}

/// Coupons one behind the other, each split over what is left of its fees; then each fee's tax.
fn taxes_behind_coupons(inputs: &Value) -> i64 {
    let fees = inputs["fees_minor"].as_object().unwrap();
    let mut left: Vec<i64> = fees.values().map(|fee| fee.as_i64().unwrap()).collect();
    for coupon in inputs["coupons"].as_array().unwrap() {
        let in_scope = |name: &String| match coupon["scope"].as_array() {
            None => true,
            Some(scope) => scope.iter().any(|fee| fee == name),
        };
        let shares: Vec<i64> = fees
            .keys()
            .zip(&left)
            .map(|(name, left)| if in_scope(name) { *left } else { 0 })
            .collect();
        let parts = split(coupon["amount_minor"].as_i64().unwrap(), &weights(&shares)).unwrap();
        left.iter_mut().zip(parts).for_each(|(left, part)| *left -= part);
    }
    let tax = |(name, left): (&String, &i64)| {
        let left = Exact::from_minor(*left, currency(inputs));
        share_of(&left, &inputs["tax_percent"][name], currency(inputs))
    };
    fees.keys().zip(&left).map(tax).sum()
}
