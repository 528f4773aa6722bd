//! Quota and entitlement decisions.

mod commit;
mod consume;
mod decide;
mod enforcer;
mod entry;
mod expire;
mod history;
mod hold;
mod http;
mod inflight;
mod known;
mod make;
mod outcome;
mod reservations;
mod reserve;
mod resolve;
mod scope;
mod slot;
mod track;
mod upgrade;
mod writer;

pub use consume::{Asked, Consume, QUOTA_SOURCE};
pub use decide::{Decided, Handle};
pub use enforcer::{Enforcer, EnforcerParts, Held};
pub use http::router;
pub use outcome::{GrantOutcome, LimitOutcome, Outcome, ReservationOutcome};
pub use upgrade::UpgradeOption;
