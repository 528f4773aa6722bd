use serde::{Deserialize, Serialize};

use super::RatingError;
use super::decimal::Decimal;
use super::exact::Exact;
use crate::money::{Currency, Money};
use crate::problem::FieldError;

/// The platform's fee of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Fee {
    /// Per cent of the gross amount.
    #[serde(default)]
    pub rate_percent: Decimal,
    /// Added once, in the currency of the gross amount.
    #[serde(default)]
    pub fixed: Decimal,
}

/// The provider's share of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Commission {
    /// Per cent of the gross amount.
    #[serde(default)]
    pub rate_percent: Decimal,
}

/// How a gross amount is shared: the three parts sum to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeeSplit {
    /// Rate of gross, rounded half up, plus the fixed part.
    pub platform_fee: Money,
    /// Rate of gross, rounded half up.
    pub provider_commission: Money,
    /// What is left.
    pub net_seller: Money,
}

/// The smallest step of an amount that payment providers move: currencies of three decimals go in tens.
/// Source: Stripe, "Supported currencies".
const fn step_minor(currency_places: u32) -> i64 {
    if currency_places == 3 { 10 } else { 1 }
}

/// What is wrong with a fee and a commission of a gross amount in `currency`; empty when nothing is.
pub fn check_fee(fee: &Fee, commission: &Commission, currency: Currency) -> Vec<FieldError> {
    let hundred = Exact::whole(100);
    let mut errors = Vec::new();
    let mut add = |pointer: &str, detail: &str| {
        errors.push(FieldError {
            pointer: pointer.to_owned(),
            detail: detail.to_owned(),
        });
    };
    for (pointer, rate) in [
        ("/fee/rate_percent", fee.rate_percent),
        ("/commission/rate_percent", commission.rate_percent),
    ] {
        if rate.is_negative() || Exact::from(rate) > hundred {
            add(pointer, "must be 0 to 100");
        }
    }
    if fee.fixed.is_negative() {
        add("/fee/fixed", "must not be negative");
    }
    if !fee.fixed.fits(currency.places()) {
        add("/fee/fixed", "has more decimals than the currency");
    }
    errors
}

/// Shares `gross`. An error when less than one minor unit is left for the seller.
pub fn split_fee(gross: Money, fee: &Fee, commission: &Commission) -> Result<FeeSplit, RatingError> {
    let currency = gross.currency();
    let step = step_minor(currency.places());
    let exact = Exact::from_minor(gross.minor(), currency);
    let share = |rate: Decimal| (&exact * &Exact::from(rate).percent()).to_minor_step(currency, step);
    let fixed = Exact::from(fee.fixed).to_minor(currency)?;
    let overflow = RatingError::Overflow;
    let platform = share(fee.rate_percent)?.checked_add(fixed).ok_or(overflow)?;
    let provider = share(commission.rate_percent)?;
    let taken = platform.checked_add(provider).ok_or(RatingError::Overflow)?;
    let net = gross.minor().checked_sub(taken).ok_or(RatingError::Overflow)?;
    if net < 1 {
        return Err(RatingError::AmountTooSmall);
    }
    Ok(FeeSplit {
        platform_fee: Money::new(platform, currency),
        provider_commission: Money::new(provider, currency),
        net_seller: Money::new(net, currency),
    })
}
