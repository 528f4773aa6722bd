//! The ports that read the directory.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use turnpike_domain::catalog::{
    ApiKey, Catalog, CatalogUse, Customer, Grant, Override, Subscription, Tenant,
};
use turnpike_domain::identity::{MeterId, TenantId};
use turnpike_domain::port::control::ControlState;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::time::Timestamp;

use super::MemoryDirectory;

impl Directory for MemoryDirectory {
    fn tenant(&self, tenant: TenantId) -> Option<Arc<Tenant>> {
        self.with(tenant, |room| Some(room.tenant.load_full()))
    }

    fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.tenants
            .load()
            .values()
            .map(|room| room.tenant.load_full())
            .collect()
    }

    fn catalog(&self, tenant: TenantId) -> Arc<Catalog> {
        self.with(tenant, |room| room.catalog.load_full())
    }

    fn customer(&self, tenant: TenantId, key: &str) -> Option<Arc<Customer>> {
        self.with(tenant, |room| {
            room.customers.get(key).map(|customer| customer.clone())
        })
    }

    fn customers_from(&self, tenant: TenantId, from: &str, number: usize) -> Vec<Arc<Customer>> {
        self.with(tenant, |room| {
            let keys = room.keys.read();
            let keys = keys
                .range::<str, _>((Bound::Included(from), Bound::Unbounded))
                .take(number);
            keys.filter_map(|key| room.customers.get(key).map(|customer| customer.clone()))
                .collect()
        })
    }

    fn customer_of_subject(&self, tenant: TenantId, subject: &str) -> Option<Arc<Customer>> {
        self.with(tenant, |room| {
            let key = room.subjects.get(subject).map(|key| key.clone())?;
            room.customers.get(&key).map(|customer| customer.clone())
        })
    }

    fn children(&self, tenant: TenantId, customer: &str) -> Vec<Arc<Customer>> {
        self.with(tenant, |room| {
            let keys = room
                .children
                .get(customer)
                .map(|keys| keys.clone())
                .unwrap_or_default();
            keys.iter()
                .filter_map(|key| room.customers.get(key).map(|child| child.clone()))
                .collect()
        })
    }

    fn is_parent(&self, tenant: TenantId, customer: &str) -> bool {
        self.with(tenant, |room| {
            room.children
                .get(customer)
                .is_some_and(|children| !children.is_empty())
        })
    }

    fn subscriptions(&self, tenant: TenantId, customer: &str) -> Vec<Arc<Subscription>> {
        self.with(tenant, |room| {
            room.subscriptions
                .get(customer)
                .map(|all| all.clone())
                .unwrap_or_default()
        })
    }

    fn subscription(&self, tenant: TenantId, id: &str) -> Option<Arc<Subscription>> {
        self.with(tenant, |room| {
            let customer = room.subscribers.get(id).map(|customer| customer.clone())?;
            let all = room.subscriptions.get(&customer)?;
            all.iter().find(|subscription| subscription.id == id).cloned()
        })
    }

    fn overrides(&self, tenant: TenantId, customer: &str) -> Vec<Arc<Override>> {
        self.with(tenant, |room| {
            room.overrides
                .get(customer)
                .map(|all| all.values().cloned().collect())
                .unwrap_or_default()
        })
    }

    fn grants(&self, tenant: TenantId, customer: &str) -> Vec<Arc<Grant>> {
        self.with(tenant, |room| {
            room.grants
                .get(customer)
                .map(|all| all.values().cloned().collect())
                .unwrap_or_default()
        })
    }

    fn grant_holders(&self, tenant: TenantId, feature: &str) -> Vec<Arc<Customer>> {
        self.with(tenant, |room| {
            let ours = |grant: &Grant| grant.feature == feature;
            let holders = room.grants.iter().filter_map(|all| {
                let customer = room.customers.get(all.key())?;
                let holds = all.value().values().any(|grant| ours(grant));
                let held = || customer.former_grants.iter().any(ours);
                (holds || held()).then(|| Arc::clone(&customer))
            });
            holders.collect()
        })
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }
}

impl ControlState for MemoryDirectory {
    fn next_meter_id(&self) -> MeterId {
        MeterId(self.last_meter.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn next_tenant_id(&self) -> TenantId {
        TenantId(self.last_tenant.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn catalog_use(&self, tenant: TenantId, now: Timestamp, late_days: u32) -> CatalogUse {
        self.with(tenant, |room| room.uses.at(now, late_days))
    }

    fn tenant_by_key(&self, key: &str) -> Option<Arc<Tenant>> {
        self.tenants().into_iter().find(|tenant| tenant.key == key)
    }

    fn api_key(&self, id: &str) -> Option<Arc<ApiKey>> {
        self.keys.get(id).map(|key| key.clone())
    }
}
