//! From usage to invoices: what a period costs, billing runs, adjustments, verification.

mod adjust;
mod bill;
mod build;
mod charges;
mod close;
mod commitment;
mod counted;
mod due;
mod engine;
mod http;
mod metered;
mod options;
mod run;
mod upcoming;
mod verify;

pub use engine::BillingSync;
pub(crate) use http::router;
pub use options::{BillingOptions, BillingParts};
pub use verify::{Verification, Verifier};
