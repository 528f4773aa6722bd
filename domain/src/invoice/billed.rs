use std::collections::BTreeMap;

use super::{Basis, Counted, Line};
use crate::quantity::Quantity;
use crate::rating::{Price, RatingError};
use crate::time::TimeRange;

/// What was billed so far for the usage of a price in a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BilledUsage {
    /// The period.
    pub period: TimeRange,
    /// Where the price is declared.
    pub source: String,
    /// The price as it was.
    pub price: Price,
    /// Whose events the first of the lines counted.
    pub counted: Counted,
    /// The quantity billed, corrections included.
    pub quantity: Quantity,
    /// The minor units billed, minimum and corrections included.
    pub amount: i64,
}

/// Sums lines of usage, minimum and adjustment, given in the order of their invoices, by period and price.
pub fn sum_billed<'a>(lines: impl Iterator<Item = &'a Line>) -> Result<Vec<BilledUsage>, RatingError> {
    let mut sums: BTreeMap<(TimeRange, String, String), BilledUsage> = BTreeMap::new();
    for line in lines {
        let Some((price, counted)) = line.basis.usage() else {
            continue;
        };
        let key = (line.period, line.source.clone(), line.price.clone());
        let sum = sums.entry(key).or_insert_with(|| BilledUsage {
            period: line.period,
            source: line.source.clone(),
            price: price.clone(),
            counted: counted.clone(),
            quantity: Quantity::ZERO,
            amount: 0,
        });
        sum.amount = sum.amount.checked_add(line.amount).ok_or(RatingError::Overflow)?;
        if !matches!(line.basis, Basis::Minimum { .. }) {
            sum.quantity = sum
                .quantity
                .checked_add(line.quantity)
                .ok_or(RatingError::Overflow)?;
        }
    }
    Ok(sums.into_values().collect())
}
