//! Tenants, test clocks, keys and the audit log over their routes, on the control store.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "helpers of tests, and stories told in one piece"
)]

mod app;
mod keys;
mod tenants;
