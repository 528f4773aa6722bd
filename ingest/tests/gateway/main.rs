//! The gateway through its real router, over a log in memory.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod bad_input;
mod bounds;
mod compression;
mod looking;
mod memory;
mod openmeter;
mod rig;
mod sending;
mod streams;
