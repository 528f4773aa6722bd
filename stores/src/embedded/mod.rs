//! The embedded shape: the log and the views of one data directory.

pub mod views;

pub use views::{EmbeddedViews, ViewsOptions};
