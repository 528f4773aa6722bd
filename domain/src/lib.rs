//! Pure types and rules of Turnpike, and the ports that its stores implement.
//!
//! Nothing here performs I/O, reads a clock, draws randomness, or uses floats.

pub mod catalog;
pub mod event;
pub mod hierarchy;
pub mod identity;
pub mod invariant;
pub mod invoice;
pub mod limits;
pub mod meter;
pub mod money;
pub mod port;
pub mod problem;
pub mod quantity;
pub mod quota;
pub mod rating;
pub mod record;
pub mod time;
