//! Stores in memory, for tests and as the models that contract suites compare with.

mod views;

pub use views::MemoryViews;
