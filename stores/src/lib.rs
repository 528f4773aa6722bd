//! Adapters: one module per storage technology.

// A cast that could change a number is written otherwise, or says why it cannot.
#![cfg_attr(
    not(test),
    warn(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )
)]

pub mod contract;
pub mod disk;
pub mod embedded;
pub mod fault;
pub mod machine;
pub mod memory;
pub mod sql;
mod waiting;
mod width;
