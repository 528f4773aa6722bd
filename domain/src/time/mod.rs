//! Instants, whole minutes, ranges and the clock that is injected.

mod clock;
mod period;
mod timestamp;
mod zone;

pub use clock::{Clock, Randomness};
pub use period::Cycle;
pub use timestamp::{TimeError, TimeRange, Timestamp};
pub use zone::{CalendarUnit, Zone, ZoneError};

/// Microseconds in a minute.
pub const MINUTE_US: i64 = 60_000_000;
