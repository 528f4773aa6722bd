//! The load generator is the binary `turnpike-load`; micro-benchmarks are in `benches/`. Here is what both use.

pub mod callgrind;
