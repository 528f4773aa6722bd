//! Configuration: a file and variables of the environment.
//!
//! Input: lines `NAME=value`, a line `---`, and the file.

use std::net::SocketAddr;

use toml::{Table, Value};
use turnpike_server::configuration;

use super::divided;

/// What the file is called.
const FILE: &str = "fuzzed.toml";

/// See [`super::Target`].
///
/// # Panics
/// Where a configuration that is shown is not read back as the same, lacks a value of the file, or is refused without
/// saying where.
pub fn enter(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    let (head, file) = divided(text, "\n---\n");
    let environment: Vec<_> = head
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let shown = match configuration(FILE, file, &environment) {
        Ok(shown) => shown,
        Err(why) => {
            // The file, a key of the defaults, a variable: something that can be found.
            let place = [FILE, "TURNPIKE_", "the environment", "the defaults"];
            assert!(place.iter().any(|place| why.contains(place)), "{why}");
            return false;
        }
    };
    let again = configuration(FILE, &shown, &[]);
    assert_eq!(again.as_ref(), Ok(&shown), "what is shown is not read back");
    if environment.iter().all(|(name, _)| !name.starts_with("TURNPIKE_")) {
        let (file, shown): (Table, Table) = (parsed(file), parsed(&shown));
        assert_set(&file, &shown, "");
    }
    true
}

fn parsed(text: &str) -> Table {
    text.parse().expect("TOML that was read before")
}

/// Every value of `file` stands in `shown`.
fn assert_set(file: &Table, shown: &Table, path: &str) {
    for (key, value) in file {
        let path = format!("{path}.{key}");
        let found = shown.get(key).unwrap_or_else(|| panic!("{path} is lost"));
        match (value, found) {
            (Value::Table(value), Value::Table(found)) => assert_set(value, found, &path),
            (Value::Array(value), Value::Array(found)) if key == "trusted_proxies" => {
                // A network is shown in one form of several.
                assert_eq!(found.len(), value.len(), "{path}");
            }
            (Value::String(value), Value::String(found)) => {
                let address = |text: &str| text.parse::<SocketAddr>().ok();
                assert!(
                    value == found || address(value).is_some() && address(value) == address(found),
                    "{path}"
                );
            }
            _ => assert_eq!(value, found, "{path}"),
        }
    }
}
