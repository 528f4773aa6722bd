//! The log in, rollups out; usage queries.
//!
//! Each partition has one owner thread that decides, writes and adds up ([`partition`]); reading takes a cut through all
//! of them ([`query`]). What is added up is a sum of signed parts, so nothing depends on the order of arrival.

mod aggregator;
mod budget;
mod core;
mod history;
mod http;
mod intake;
mod options;
mod partition;
mod query;
pub mod rebuild;
mod registry;
mod retention;
pub mod rows;
mod windows;

pub use aggregator::Aggregator;
pub use budget::MemoryUse;
pub use http::router;
pub use options::{Options, Parts};
