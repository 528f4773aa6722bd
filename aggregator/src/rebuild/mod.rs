//! Deriving all views from the log again, and comparing them with those that grew on the way.
//!
//! The canonical dump has one line for each row that is left when the partitions' rows are added up, in the order of
//! their keys. Rows of meters that are no longer declared are left out. Ids of events are not in the dump, but they are
//! compared: name, digest and position of each.

mod compare;
mod rows;

use std::io::Write;
use std::sync::Arc;

use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::views::Views;
use turnpike_domain::problem::{Code, Problem};

pub use compare::{Comparison, Difference, compare, count};
use rows::{Netted, describe, meters};

use crate::{Aggregator, Parts};

/// Derives the views of `parts`, which are empty, from the whole log, and writes them out. `parts` is given to nobody
/// else while this runs.
pub async fn derive(parts: Parts) -> Result<(), Problem> {
    if parts
        .views
        .iter()
        .any(|views| views.position() > turnpike_domain::record::Position::START)
    {
        return Err(Problem::new(
            Code::IllegalTransition,
            "views are derived into empty ones only",
        ));
    }
    let aggregator = tokio::task::spawn_blocking(move || Aggregator::start(parts))
        .await
        .map_err(|_| Problem::new(Code::Internal, "the derivation ended before its time"))??;
    aggregator.shutdown().await
}

/// Writes the canonical dump of `views` (all partitions of one log). Returns the number of lines.
pub fn dump(
    views: &[Arc<dyn Views>],
    directory: &dyn Directory,
    out: &mut dyn Write,
) -> Result<u64, Problem> {
    let mut lines = 0;
    let meters = meters(directory);
    for row in Netted::new(views, &meters) {
        let line = describe(&row?, &meters)?;
        writeln!(out, "{line}").map_err(|error| {
            Problem::new(Code::Unavailable, format!("the dump cannot be written: {error}"))
        })?;
        lines += 1;
    }
    Ok(lines)
}
