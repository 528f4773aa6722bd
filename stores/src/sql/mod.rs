//! The control store: catalog, customers, subscriptions, invoices, keys, audit; SQLite through sqlx.
