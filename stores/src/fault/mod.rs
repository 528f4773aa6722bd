//! Faults on purpose: fail points, and a disk that fails as told.

mod points;

pub use points::{FailPoints, POINTS};
