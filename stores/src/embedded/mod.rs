//! The embedded shape: the log and the views of one data directory.
