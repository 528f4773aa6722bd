//! Catalog, customers and subscriptions over their routes, on the control store.
#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "helpers of tests, and tables of cases"
)]

mod app;
mod catalog;
mod customers;
mod subscriptions;
