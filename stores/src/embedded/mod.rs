//! The embedded shape: the log and the views of one data directory.

pub mod log;
pub mod views;

pub use log::{LogOptions, SegmentedLog};
pub use views::{EmbeddedViews, ViewsOptions};
