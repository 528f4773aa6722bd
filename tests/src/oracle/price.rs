use num_rational::BigRational;
use num_traits::Zero as _;

use super::{decimal, show};

/// A price as the oracle knows it.
#[derive(Debug, Clone)]
pub enum OraclePrice {
    /// The same each period.
    Flat {
        /// How much.
        amount: String,
    },
    /// So much per unit beyond what is included.
    PerUnit {
        /// Per unit.
        unit_amount: String,
        /// Free units.
        included: String,
    },
    /// Each unit at the price of its tier.
    Graduated {
        /// In ascending order.
        tiers: Vec<OracleTier>,
    },
    /// Whole packages.
    Package {
        /// Units of a package.
        size: String,
        /// Per package.
        amount: String,
    },
}

/// A tier: up to and with `up_to` units (none: without end).
#[derive(Debug, Clone)]
pub struct OracleTier {
    /// The last unit of the tier.
    pub up_to: Option<String>,
    /// Per unit in the tier.
    pub unit_amount: String,
    /// Once, when the tier is reached.
    pub flat_amount: String,
}

/// Lines and total of an invoice, in decimals of a currency with `places`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    /// One per price.
    pub lines: Vec<String>,
    /// Their sum.
    pub total: String,
}

impl Bill {
    /// Rates quantities, one per price (the quantity of a flat price is not looked at).
    pub fn of(prices: &[(OraclePrice, &str)], places: u32) -> Self {
        let rounded =
            |price: &OraclePrice, quantity| decimal(&show(&price.exact(&decimal(quantity)), places));
        let amounts: Vec<_> = prices
            .iter()
            .map(|(price, quantity)| rounded(price, quantity))
            .collect();
        let total: BigRational = amounts.iter().sum();
        Self {
            lines: amounts.iter().map(|a| fixed(a, places)).collect(),
            total: fixed(&total, places),
        }
    }
}

/// With all decimals of the currency.
pub(super) fn fixed(value: &BigRational, places: u32) -> String {
    let text = show(value, places);
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    if places == 0 {
        whole.to_owned()
    } else {
        format!("{whole}.{fraction:0<width$}", width = places as usize)
    }
}

impl OraclePrice {
    pub(super) fn exact(&self, quantity: &BigRational) -> BigRational {
        let zero = BigRational::zero;
        match self {
            Self::Flat { amount } => decimal(amount),
            Self::PerUnit {
                unit_amount,
                included,
            } => (quantity - decimal(included)).max(zero()) * decimal(unit_amount),
            Self::Package { size, amount } => {
                let packages = (quantity.clone().max(zero()) / decimal(size)).ceil();
                packages * decimal(amount)
            }
            Self::Graduated { tiers } => {
                let (mut below, mut sum) = (zero(), zero());
                for (at, tier) in tiers.iter().enumerate() {
                    if at > 0 && *quantity <= below {
                        break;
                    }
                    let end = tier
                        .up_to
                        .as_deref()
                        .map_or_else(|| quantity.clone(), decimal)
                        .min(quantity.clone());
                    sum += (end.clone() - &below).max(zero()) * decimal(&tier.unit_amount)
                        + decimal(&tier.flat_amount);
                    below = tier.up_to.as_deref().map_or(end, decimal);
                }
                sum
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bills_by_hand() {
        let tier = |up_to: Option<&str>, unit: &str, flat: &str| OracleTier {
            up_to: up_to.map(str::to_owned),
            unit_amount: unit.into(),
            flat_amount: flat.into(),
        };
        let graduated = OraclePrice::Graduated {
            tiers: vec![tier(Some("10"), "1", "2"), tier(None, "0.5", "3")],
        };
        let bill = Bill::of(
            &[
                (OraclePrice::Flat { amount: "29".into() }, "0"),
                (
                    OraclePrice::PerUnit {
                        unit_amount: "0.0005".into(),
                        included: "100".into(),
                    },
                    "130",
                ),
                (graduated.clone(), "12"),
                (graduated.clone(), "10"),
                (graduated, "0"),
                (
                    OraclePrice::Package {
                        size: "1000".into(),
                        amount: "1.5".into(),
                    },
                    "1001",
                ),
            ],
            2,
        );
        assert_eq!(bill.lines, ["29.00", "0.02", "16.00", "12.00", "2.00", "3.00"]);
        assert_eq!(bill.total, "62.02");
    }
}
