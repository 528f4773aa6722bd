//! The rows of a partition's views: their keys, and how equal keys are added.

pub(crate) mod key;
mod merge;

pub use merge::merge;
pub(crate) use merge::{Counts, add_counts, cell, counts};
