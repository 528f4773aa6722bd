//! The command line, as people and scripts run it: on the real binary.
#![expect(clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod import;
mod misbehaving;
mod output;
mod rig;
mod serving;
