//! What all routes share: the listener, authentication, limits, problems, metrics, and the document of the API.

mod administration;
mod audit;
pub mod auth;
mod body;
mod docs;
mod entry;
mod error_pages;
mod finish;
mod health;
mod keys;
mod metrics_page;
mod operations;
mod rate;
mod repeat;
mod scopes;
pub mod serve;
mod tenants;
mod test_clock;
mod unreadable;

pub use administration::{Administration, AdvanceLocks, administration_router};
pub use entry::Peer;
pub use health::{Check, Readiness, State};
pub use metrics_page::{PrometheusPage, recorder};

mod mount;
pub use mount::{GateParts, Mounted, metrics_only, mount};
