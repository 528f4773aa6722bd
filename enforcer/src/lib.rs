//! Quota and entitlement decisions.
