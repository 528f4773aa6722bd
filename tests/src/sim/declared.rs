use std::collections::BTreeMap;
use std::sync::Arc;

use turnpike_domain::catalog::{Catalog, Customer, Grant, Override, Subscription, Tenant};
use turnpike_domain::identity::{MeterId, TenantId};
use turnpike_domain::meter::{Aggregation, Meter};
use turnpike_domain::port::directory::Directory;

/// A directory that never changes: the same meters for every tenant, and no customers.
pub(super) struct Declared {
    tenants: BTreeMap<TenantId, Arc<Tenant>>,
    catalogs: BTreeMap<TenantId, Arc<Catalog>>,
}

impl Declared {
    pub(super) fn new(tenants: u32, aggregations: &[(&str, Aggregation)]) -> Self {
        let ids = (1..=tenants).map(TenantId);
        let catalog = |tenant: TenantId| {
            let meter = |(at, (key, aggregation)): (usize, &(&str, Aggregation))| {
                let id = MeterId(tenant.0 * 100 + at as u32);
                ((*key).to_owned(), Arc::new(meter(id, key, *aggregation)))
            };
            let meters = aggregations.iter().enumerate().map(meter).collect();
            Arc::new(Catalog {
                version: 1,
                meters,
                ..Catalog::default()
            })
        };
        Self {
            tenants: ids.clone().map(|id| (id, Arc::new(tenant(id)))).collect(),
            catalogs: ids.map(|id| (id, catalog(id))).collect(),
        }
    }
}

fn meter(id: MeterId, key: &str, aggregation: Aggregation) -> Meter {
    Meter {
        id,
        key: key.to_owned(),
        event_type: "t".to_owned(),
        aggregation,
        value: (aggregation != Aggregation::Count).then(|| "$.v".to_owned()),
        percentile: None,
        group_by: BTreeMap::new(),
        filter: BTreeMap::new(),
    }
}

fn tenant(id: TenantId) -> Tenant {
    Tenant {
        id,
        key: format!("t{}", id.0),
        name: String::new(),
        test: false,
        clock: None,
        suspended: false,
        timezone: "UTC".to_owned(),
        calls_per_second: None,
    }
}

impl Directory for Declared {
    fn tenant(&self, tenant: TenantId) -> Option<Arc<Tenant>> {
        self.tenants.get(&tenant).cloned()
    }

    fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.tenants.values().cloned().collect()
    }

    fn catalog(&self, tenant: TenantId) -> Arc<Catalog> {
        self.catalogs.get(&tenant).cloned().unwrap_or_default()
    }

    fn customer(&self, _: TenantId, _: &str) -> Option<Arc<Customer>> {
        None
    }

    fn customer_of_subject(&self, _: TenantId, _: &str) -> Option<Arc<Customer>> {
        None
    }

    fn children(&self, _: TenantId, _: &str) -> Vec<Arc<Customer>> {
        Vec::new()
    }

    fn subscriptions(&self, _: TenantId, _: &str) -> Vec<Arc<Subscription>> {
        Vec::new()
    }

    fn subscription(&self, _: TenantId, _: &str) -> Option<Arc<Subscription>> {
        None
    }

    fn overrides(&self, _: TenantId, _: &str) -> Vec<Arc<Override>> {
        Vec::new()
    }

    fn grants(&self, _: TenantId, _: &str) -> Vec<Arc<Grant>> {
        Vec::new()
    }

    fn epoch(&self) -> u64 {
        1
    }
}
