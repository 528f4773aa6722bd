//! Adapters: one module per storage technology.

pub mod contract;
pub mod disk;
pub mod embedded;
pub mod fault;
pub mod machine;
pub mod memory;
pub mod sql;
