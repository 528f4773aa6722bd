//! The oracle, the fakes and the test app; end-to-end tests are in `tests/`.

pub mod app;
pub mod commerce;
pub mod oracle;
pub mod sim;
pub mod traces;
pub mod workload;
