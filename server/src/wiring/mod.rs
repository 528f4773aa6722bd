//! The composition roots: which adapter stands behind which port.

mod data_dir;
mod embedded;
mod state;
mod ticks;

pub use data_dir::{DataDir, DataDirError};
pub use embedded::{Engine, EngineParts, StartError};
