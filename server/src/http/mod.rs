//! What all routes share: the listener, authentication, limits, problems, metrics, and the document of the API.

mod administration;
mod audit;
pub mod auth;
mod body;
mod call_limits;
mod docs;
mod entry;
mod error_pages;
mod finish;
mod framing;
mod health;
mod keys;
mod metric_table;
mod metrics_page;
mod operations;
mod peer;
mod repeat;
mod scopes;
pub mod serve;
mod tenants;
mod test_clock;
mod unreadable;

pub use administration::{Administration, AdvanceLocks, administration_router};
pub use health::{Check, Readiness, State};
pub use metrics_page::{PrometheusPage, recorder};
pub use peer::Peer;

mod mount;
pub use mount::{GateParts, Mounted, metrics_only, mount};
