//! The log in, rollups out; usage queries.

mod options;

pub use options::{Options, Parts};
