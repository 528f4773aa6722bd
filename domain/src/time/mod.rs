//! Instants, whole minutes, ranges and the clock that is injected.

mod clock;
mod timestamp;

pub use clock::{Clock, Randomness};
pub use timestamp::{TimeError, TimeRange, Timestamp};

/// Microseconds in a minute.
pub const MINUTE_US: i64 = 60_000_000;
