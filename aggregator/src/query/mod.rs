//! Reading sums: a cut through all partitions, then rows and memory added up on another thread.

mod accumulate;
mod cut;
mod from_log;
mod plan;
mod points;
mod read;
mod recent;
mod totals;
mod usage;

pub(crate) use accumulate::{Projection, RowSum};
pub(crate) use cut::{CutPoint, CutTicket, Picked, Selection, Snapshot};
pub(crate) use from_log::ORIGIN_OFFSET_MAX;
pub(crate) use plan::Plan;
pub(crate) use read::add_up;
pub(crate) use recent::{Timeline, received_us};
pub(crate) use totals::{gone, on_another_thread};
pub(crate) use usage::{Split, UsageQuery, UsageRow, UsageScan};
