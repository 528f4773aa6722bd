//! Pure types and rules of Turnpike, and the ports that its stores implement.
//!
//! Nothing here performs I/O, reads a clock, draws randomness, or uses floats.

// Counts and money are here: a cast that could change a number is written otherwise, or says why it cannot.
#![cfg_attr(
    not(test),
    warn(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )
)]

pub mod catalog;
pub mod event;
pub mod hierarchy;
pub mod identity;
pub mod invariant;
pub mod invoice;
pub mod json;
pub mod limits;
pub mod meter;
pub mod money;
mod numeral;
pub mod port;
pub mod problem;
pub mod quantity;
pub mod quota;
pub mod rating;
pub mod record;
pub mod time;
