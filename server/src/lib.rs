//! The one binary: configuration, wiring, roles, command line.

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

pub mod cli;
mod config;
mod demo;
pub mod http;
mod telemetry;
mod wiring;

pub use config::configuration;
