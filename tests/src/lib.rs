//! The oracle, the fakes and the test app; end-to-end tests are in `tests/`.

pub mod app;
pub mod billing;
pub mod commerce;
pub mod compare;
pub mod door;
pub mod fuzz;
pub mod instant;
pub mod oracle;
pub mod run;
pub mod sim;
pub mod traces;
pub mod waits;
pub mod workload;
