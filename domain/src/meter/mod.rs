//! Meters: what is measured, and how it is added up.

mod definition;

pub use definition::{Aggregation, Meter};
