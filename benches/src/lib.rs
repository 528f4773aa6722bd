//! The load generator is the binary `turnpike-load`; micro-benchmarks are in `benches/`.
