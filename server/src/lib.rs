//! The one binary: configuration, wiring, roles, command line.

pub mod cli;
pub mod config;
mod demo;
pub mod http;
pub mod telemetry;
pub mod wiring;

pub use wiring::{Engine, EngineParts, StartError};
