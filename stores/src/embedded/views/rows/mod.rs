//! The ordered rows of a partition.

mod block;
mod cache;
mod cursor;
mod merge;
mod run;
mod summands;

pub(super) use cache::BlockCache;
pub(super) use cursor::Direction;
pub(super) use merge::{Folded, Merged};
pub(super) use run::{RowRun, RowRunWriter, file_name};
pub(super) use summands::summands;
