//! The names of events that a partition has seen.

mod filter;
mod merge;
mod page;
mod probe;
mod run;
mod table;

pub(super) use merge::{Merged, merge};
pub(super) use probe::probe;
pub(super) use run::{IdRun, IdRunWriter, bits_per_name, file_name};
pub(super) use table::{Table, sorted};
