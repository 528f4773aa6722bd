//! Every kind of decision through the routes: fields, reasons, windows, levels, grants.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod above;
mod answers;
mod entitled;
mod grace;
mod grants;
mod refusals;
mod waits;
mod windows;

use serde_json::Value;

fn texts<'a>(answer: &'a Value, names: &[&str]) -> Vec<&'a str> {
    names
        .iter()
        .map(|name| answer[*name].as_str().unwrap_or("null"))
        .collect()
}
