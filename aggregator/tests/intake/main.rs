//! What the partition owners promise to those who write: admission, failures of the log, quota records, dead letters.

#![cfg(test)]
#![expect(clippy::too_many_lines, reason = "a story is told in one piece")]

#[path = "../common/mod.rs"]
mod common;
mod dead_letters;
mod decisions;
mod history;
mod moved;
mod quota;

use common::{Event, World, meter};
use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::history::EventQuery;
use turnpike_domain::time::TimeRange;

fn world() -> World {
    World::new(
        2,
        &[
            meter(1, "sum", Aggregation::Sum),
            meter(2, "count", Aggregation::Count),
        ],
    )
}

fn event(id: u32, value: i64) -> Event {
    Event::new(id, "c", 60, format!(r#"{{"v": {value}}}"#))
}

fn events(ids: std::ops::Range<u32>) -> Vec<Event> {
    ids.map(|id| event(id, 1)).collect()
}

fn all_events() -> EventQuery {
    EventQuery {
        subjects: None,
        kind: None,
        range: TimeRange::ALL,
        source: None,
        id: None,
        limit: 100,
        cursor: None,
    }
}
