use std::sync::Arc;

use turnpike_domain::catalog::{ApiKey, Catalog, Customer, Grant, Override, Subscription, Tenant};
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::port::control::{ApiKeys, KeyRefusal};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::time::{Randomness, Timestamp};

use super::embedded::StartError;

pub(crate) struct MemoryControl {
    key: Arc<ApiKey>,
    tenant: Arc<Tenant>,
    pub(crate) made: Option<String>,
}

impl MemoryControl {
    pub(crate) fn new(bootstrap: Option<&str>, randomness: &dyn Randomness) -> Result<Self, StartError> {
        if bootstrap
            .is_some_and(|key| !(16..=128).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(StartError::BootstrapKey);
        }
        let made = bootstrap.is_none().then(|| {
            let mut bytes = [0; 24];
            randomness.fill(&mut bytes);
            format!(
                "tp_{}",
                base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes)
            )
        });
        let text = bootstrap.or(made.as_deref()).unwrap_or_default();
        Ok(Self {
            key: Arc::new(ApiKey {
                id: "bootstrap".to_owned(),
                tenant: TenantId(1),
                name: "bootstrap".to_owned(),
                hash: *blake3::hash(text.as_bytes()).as_bytes(),
                scopes: [Scope::Admin].into(),
                created: Timestamp::EPOCH,
                expires: None,
                revoked: None,
                calls_per_second: None,
            }),
            tenant: Arc::new(Tenant {
                id: TenantId(1),
                key: "default".to_owned(),
                name: "default".to_owned(),
                test: false,
                clock: None,
                suspended: false,
                timezone: "UTC".to_owned(),
                calls_per_second: None,
            }),
            made,
        })
    }
}

impl ApiKeys for MemoryControl {
    fn authenticate(&self, presented: &str) -> Result<Arc<ApiKey>, KeyRefusal> {
        let same = subtle::ConstantTimeEq::ct_eq(
            &self.key.hash[..],
            &blake3::hash(presented.as_bytes()).as_bytes()[..],
        );
        bool::from(same)
            .then(|| Arc::clone(&self.key))
            .ok_or(KeyRefusal::Unknown)
    }
    fn keys(&self, _: TenantId) -> Vec<Arc<ApiKey>> {
        vec![Arc::clone(&self.key)]
    }
    fn key(&self, _: TenantId, id: &str) -> Option<Arc<ApiKey>> {
        (id == self.key.id).then(|| Arc::clone(&self.key))
    }
}

impl Directory for MemoryControl {
    fn tenant(&self, tenant: TenantId) -> Option<Arc<Tenant>> {
        (tenant == self.tenant.id).then(|| Arc::clone(&self.tenant))
    }
    fn tenants(&self) -> Vec<Arc<Tenant>> {
        vec![Arc::clone(&self.tenant)]
    }
    fn catalog(&self, _: TenantId) -> Arc<Catalog> {
        Arc::default()
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
    fn overrides(&self, _: TenantId, _: &str) -> Vec<Arc<Override>> {
        Vec::new()
    }
    fn grants(&self, _: TenantId, _: &str) -> Vec<Arc<Grant>> {
        Vec::new()
    }
    fn subscription(&self, _: TenantId, _: &str) -> Option<Arc<Subscription>> {
        None
    }
    fn epoch(&self) -> u64 {
        0
    }
}
