//! The one binary: configuration, wiring, roles, command line.
