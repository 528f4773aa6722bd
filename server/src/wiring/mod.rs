//! The composition roots: which adapter stands behind which port.

mod data_dir;
mod embedded;
mod gauges;
mod offline;
mod retention;
mod services;
mod state;
mod stores;
mod ticks;

pub use data_dir::{DataDir, DataDirError};
pub use embedded::{Engine, EngineParts, ShowKey, StartError};
pub use offline::{Offline, Rebuilt};
pub(crate) use stores::Stores;
