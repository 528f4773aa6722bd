//! Reading sums: a cut through all partitions, then rows and memory added up on another thread.

mod accumulate;
mod calendar;
mod copies;
mod cut;
mod from_log;
mod order;
mod plan;
mod points;
mod reach;
mod read;
mod recent;
mod scan;
mod slots;
mod totals;
mod usage;

pub(crate) use accumulate::{Part, Projection, RowSum, Rows};
pub(crate) use calendar::Windows;
pub(crate) use copies::Copies;
pub(crate) use cut::{CopiesFull, CutPoint, CutTicket, Selection, Snapshot, Wanted, settle};
pub(crate) use from_log::ORIGIN_OFFSET_MAX;
pub(crate) use order::GroupPlace;
#[cfg(test)]
pub(crate) use order::TEXT_BYTES_MAX;
pub(crate) use plan::Plan;
pub(crate) use reach::Reach;
pub(crate) use read::add_up;
pub(crate) use recent::{Timeline, received_us};
pub(crate) use slots::{Slot, Slots, Stop, StopOnDrop};
pub(crate) use totals::{gone, on_another_thread};
pub(crate) use usage::{PART_ROWS, Split, UsageQuery, UsageReading, UsageRow};
