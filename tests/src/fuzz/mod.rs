//! The entries that are fuzzed: each takes any bytes and must not only survive them but keep what it promises, compared
//! with serde_json, with a model, or with itself. `fuzz/` runs them under libFuzzer; `tests/tests/fuzz.rs` feeds them the
//! kept corpora and mutations of those on each change.

pub mod config;
pub mod events;
pub mod log;
pub mod meters;
pub mod prices;

/// An entry and its name, which is that of its target and of its corpus.
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// Takes any bytes; panics where a promise is broken. Whether they meant something: were taken at least in part.
    pub enter: fn(&[u8]) -> bool,
}

/// All entries.
pub const TARGETS: [Target; 5] = [
    Target {
        name: "config",
        enter: config::enter,
    },
    Target {
        name: "events",
        enter: events::enter,
    },
    Target {
        name: "log",
        enter: log::enter,
    },
    Target {
        name: "meters",
        enter: meters::enter,
    },
    Target {
        name: "prices",
        enter: prices::enter,
    },
];

/// The text before the first `mark`, and what is behind it; all of it and nothing where there is no mark.
fn divided<'a>(text: &'a str, mark: &str) -> (&'a str, &'a str) {
    text.split_once(mark).unwrap_or((text, ""))
}
