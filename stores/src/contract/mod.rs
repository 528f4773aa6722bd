//! What each port promises, as functions that any adapter can be put through. They panic or return an error where a
//! promise is broken, and are called from the tests of every backend.

pub mod billing;
pub mod control;
pub mod log;
pub mod views;
