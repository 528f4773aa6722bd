//! The log in, rollups out; usage queries.
