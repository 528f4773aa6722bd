//! Prices and how usage becomes money.
//!
//! A price is checked once ([`Price::check`]), then [`rate`] is a pure function of price and usage. All arithmetic is
//! exact ([`Exact`]); an amount is rounded to the currency's minor unit once, half away from zero.

mod check;
mod decimal;
mod exact;
mod fee;
mod flat;
mod graduated;
mod graduated_percentage;
mod matrix;
mod package;
mod per_unit;
mod percentage;
mod price;
mod rate;
mod split;
#[cfg(test)]
mod tests;
mod volume;
mod wire;

pub use check::PriceContext;
pub use decimal::{Decimal, DecimalError};
pub use exact::Exact;
pub use fee::{Commission, Fee, FeeSplit, check_fee, split_fee};
pub use price::{
    Flat, Matrix, MatrixRate, Model, Package, PackageRound, PerUnit, Percentage, Price, RateTier, Tier,
    Timing,
};
pub use rate::{Rated, RatedLine, Usage, prorate, rate, rate_step};
pub use split::split;
pub use wire::{ModelName, PriceShapeError};

use crate::problem::{Code, Problem};

/// Why usage has no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RatingError {
    /// Beyond 64 bits of minor units, or a quantity beyond 26 digits.
    #[error("the amount is too large")]
    Overflow,
    /// A percentage price was given a total.
    #[error("a percentage price needs the amount of each event")]
    NeedsEvents,
    /// A matrix price was given usage that is not split by its dimensions.
    #[error("a matrix price needs usage by each of its dimensions")]
    NeedsGroups,
    /// A package without units.
    #[error("a package must have units")]
    EmptyPackage,
    /// A period without length.
    #[error("a period must have a length")]
    EmptyPeriod,
    /// Nothing to split by.
    #[error("a split needs a weight above zero")]
    NoWeights,
    /// Fees leave the seller nothing.
    #[error("the fees leave less than one minor unit for the seller")]
    AmountTooSmall,
}

impl From<RatingError> for Problem {
    fn from(error: RatingError) -> Self {
        let code = match error {
            RatingError::Overflow => Code::Overflow,
            RatingError::AmountTooSmall => Code::AmountTooSmall,
            _ => Code::Invalid,
        };
        Self::new(code, error.to_string())
    }
}
