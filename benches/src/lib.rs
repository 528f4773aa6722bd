//! The load generator and the micro-benchmarks.
