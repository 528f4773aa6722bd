//! The gateway: events in over HTTP, validated and admitted to the log.
