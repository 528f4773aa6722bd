//! Stores in memory, for tests and as the models that contract suites compare with.

mod log;
mod views;

pub use log::MemoryLog;
pub use views::MemoryViews;
