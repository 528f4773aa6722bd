//! Quotas: entitlements, limits, slots and decisions.
