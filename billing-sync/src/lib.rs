//! Catalog, subscriptions, rating and invoices.
