//! What all routes share: the listener, authentication, limits, problems, metrics, and the document of the API.

mod administration;
mod audit;
pub(crate) mod auth;
mod body;
mod call_limits;
mod docs;
mod docs_flat;
mod docs_page;
mod entry;
mod error_pages;
mod finish;
mod framing;
mod front;
mod health;
mod keys;
mod metric_table;
mod metrics_page;
mod mount;
mod operations;
mod pace;
mod peer;
mod repeat;
mod routes;
mod scopes;
pub(crate) mod serve;
mod tenants;
mod test_clock;
mod unreadable;

pub use administration::{Administration, AdvanceLocks, administration_router};
#[cfg(test)]
pub(crate) use front::Answers;
pub(crate) use front::Front;
pub(crate) use health::{Check, Readiness, State};
pub(crate) use metrics_page::{PrometheusPage, recorder};
pub(crate) use mount::{GateParts, metrics_only, mount};
