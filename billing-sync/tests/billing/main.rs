//! Billing over its routes, its database and its clock.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may end early")]

mod app;
mod commitment;
mod exactly_once;
mod exports;
mod hierarchy;
mod life;
mod oracle;
mod over;
mod page;
mod periods;
mod steps;
mod unreadable;
mod usage;
mod verification;
