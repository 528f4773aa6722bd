//! Who and what there is, from memory: read on hot paths, kept current by the control store.

use std::sync::Arc;

use crate::catalog::{Catalog, Customer, Grant, Override, Subscription, Tenant};
use crate::identity::TenantId;

/// What is declared, without I/O.
pub trait Directory: Send + Sync {
    /// A tenant.
    fn tenant(&self, tenant: TenantId) -> Option<Arc<Tenant>>;

    /// All tenants.
    fn tenants(&self) -> Vec<Arc<Tenant>>;

    /// A tenant's meters, features, plans and add-ons.
    fn catalog(&self, tenant: TenantId) -> Arc<Catalog>;

    /// A customer by key. One that was erased is still there, without its personal data.
    fn customer(&self, tenant: TenantId, key: &str) -> Option<Arc<Customer>>;

    /// The customers whose keys are at or behind `from`, at most `number` of them, in the order of their keys as bytes.
    fn customers_from(&self, tenant: TenantId, from: &str, number: usize) -> Vec<Arc<Customer>>;

    /// The customer that a subject belongs to.
    fn customer_of_subject(&self, tenant: TenantId, subject: &str) -> Option<Arc<Customer>>;

    /// The subjects whose usage and events a reader who names customer `key` gets: the customer's, its key where it has none.
    /// A subject that is no customer's is its own customer; one that is another's is none.
    fn subjects_read_as(&self, tenant: TenantId, key: &str) -> Vec<String> {
        match self.customer(tenant, key) {
            Some(customer) if !customer.subjects.is_empty() => customer.subjects.clone(),
            None if self.customer_of_subject(tenant, key).is_some() => Vec::new(),
            _ => vec![key.to_owned()],
        }
    }

    /// The customers whose parent this one is, or once was; `Customer::parent_at` tells when.
    fn children(&self, tenant: TenantId, customer: &str) -> Vec<Arc<Customer>>;

    /// Whether any customer is, or once was, below this one.
    fn is_parent(&self, tenant: TenantId, customer: &str) -> bool {
        !self.children(tenant, customer).is_empty()
    }

    /// A customer's subscriptions, newest first.
    fn subscriptions(&self, tenant: TenantId, customer: &str) -> Vec<Arc<Subscription>>;

    /// A subscription by id.
    fn subscription(&self, tenant: TenantId, id: &str) -> Option<Arc<Subscription>>;

    /// A customer's overrides.
    fn overrides(&self, tenant: TenantId, customer: &str) -> Vec<Arc<Override>>;

    /// A customer's grants.
    fn grants(&self, tenant: TenantId, customer: &str) -> Vec<Arc<Grant>>;

    /// The customers that have grants of a feature, or had some that are kept.
    fn grant_holders(&self, tenant: TenantId, feature: &str) -> Vec<Arc<Customer>>;

    /// Counts up with every change of anything here, so that what was compiled from it can be told stale.
    fn epoch(&self) -> u64;
}

/// What changed, for those who keep something compiled from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryChange {
    /// A tenant was made or changed.
    Tenant(TenantId),
    /// Meters, features, plans or add-ons changed.
    Catalog(TenantId),
    /// A customer, or its subscriptions, overrides or grants, changed.
    Customer(TenantId, String),
}

/// Told of changes after they are durable.
pub trait DirectoryListener: Send + Sync {
    /// Something changed.
    fn changed(&self, change: &DirectoryChange);
}
