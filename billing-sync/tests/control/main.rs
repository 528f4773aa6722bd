//! Catalog, customers and subscriptions over their routes, on the control store.

mod app;
mod catalog;
mod customers;
mod subscriptions;
