//! The atomics of places. The test that runs these through shuffled schedules puts others in their stead.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};
pub(crate) use std::thread::yield_now;
