//! Faults on purpose: fail points, and a disk that fails as told.

mod disk;
mod file;
mod points;

pub use disk::{FaultCounts, FaultDisk, Operation};
pub use points::{FailPoints, POINTS, POINTS_APART};
