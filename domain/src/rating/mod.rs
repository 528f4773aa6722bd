//! Prices and how usage becomes money.

mod check;
mod decimal;
mod price;
mod wire;

pub use check::PriceContext;
pub use decimal::{DECIMAL_PLACES, Decimal, DecimalError};
pub use price::{
    Flat, Matrix, MatrixRate, Model, Package, PackageRound, PerUnit, Percentage, Price, RateTier, Tier,
    Timing,
};
pub use wire::{ModelName, PriceShapeError};
