//! The one binary: configuration, wiring, roles, command line.

pub mod cli;
mod config;
mod demo;
pub mod http;
mod telemetry;
mod wiring;
