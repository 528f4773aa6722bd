//! Quota and entitlement decisions.

// Counts are here: a cast that could change a number is written otherwise, or says why it cannot.
#![cfg_attr(
    not(test),
    warn(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )
)]

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
mod place;
mod places;
mod reservations;
mod reserve;
mod resolve;
mod row;
mod rows;
mod scope;
mod slot;
mod sync;
mod tally;
mod track;
mod upgrade;
mod waiting;
mod writer;

pub use consume::{Asked, Consume, QUOTA_SOURCE};
pub use decide::{Decided, Handle};
pub use enforcer::{Enforcer, EnforcerParts, Held};
pub use http::router;
pub use outcome::{GrantOutcome, LimitOutcome, Outcome, ReservationOutcome};
pub use upgrade::UpgradeOption;
