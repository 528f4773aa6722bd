//! The composition roots: which adapter stands behind which port.

pub(crate) mod backup;
mod data_dir;
mod embedded;
mod gauges;
mod offline;
mod pages;
mod retention;
#[cfg(test)]
mod retention_tests;
mod services;
mod state;
mod stores;
mod ticks;

pub(crate) use data_dir::{DataDir, DataDirError};
pub(crate) use embedded::{Engine, EngineParts, StartError};
pub(crate) use offline::{Offline, Rebuilt};
pub(crate) use stores::Stores;
