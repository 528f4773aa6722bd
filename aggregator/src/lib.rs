//! The log in, rollups out; usage queries.
//!
//! Each partition has one owner thread that decides, writes and adds up ([`partition`]); reading takes a cut through all
//! of them ([`query`]). What is added up is a sum of signed parts, so nothing depends on the order of arrival.

// A cast that could change a number is written otherwise, or says why it cannot.
#![cfg_attr(
    not(test),
    warn(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )
)]

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
