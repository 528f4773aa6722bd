//! Prices and how usage becomes money.

mod price;

pub use price::Price;
