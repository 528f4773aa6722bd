//! The ports of the control store.

use std::sync::Arc;

use serde_json::Value;
use turnpike_domain::catalog::{
    ApiKey, Catalog, CatalogUse, Customer, Grant, Override, Subscription, Tenant,
};
use turnpike_domain::identity::{NameKey, TenantId};
use turnpike_domain::port::control::{
    Answer, ApiKeys, AuditEntry, AuditFilter, Change, Claim, ControlState as _, ControlStore, Decide,
    Idempotent, KeyRefusal, PageAfter, SecurityEvent, SubscriptionFilter,
};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::{BoxFuture, StoreError};
use turnpike_domain::problem::Problem;
use turnpike_domain::time::{Clock as _, Timestamp};

use super::connect::lost;
use super::{Inner, SqlStore, audit, customer, idempotency, subscription};

impl ControlStore for SqlStore {
    fn change(&self, change: Change, decide: Decide) -> BoxFuture<'_, Result<Answer, Problem>> {
        let work: super::Work = Box::new(move |_, state| Box::pin(async move { decide(state) }));
        Box::pin(self.write(change, work))
    }

    fn catalog_use(&self, tenant: TenantId, now: Timestamp, late_days: u32) -> CatalogUse {
        self.inner.directory.catalog_use(tenant, now, late_days)
    }

    fn claim(
        &self,
        tenant: TenantId,
        call: Idempotent,
        at: Timestamp,
    ) -> BoxFuture<'_, Result<Claim, Problem>> {
        Box::pin(async move {
            let mut connection = self.inner.writer().await?;
            self.inner.check_health()?;
            idempotency::claim(&mut connection, tenant, &call, at).await
        })
    }

    fn kept_answer(
        &self,
        tenant: TenantId,
        call: Idempotent,
    ) -> BoxFuture<'_, Result<Option<Answer>, Problem>> {
        Box::pin(async move {
            self.read(move |c| Box::pin(async move { Ok(idempotency::ended(c, tenant, &call).await) }))
                .await?
        })
    }

    fn settle(
        &self,
        tenant: TenantId,
        key: String,
        answer: Option<(u16, Value)>,
    ) -> BoxFuture<'_, Result<(), Problem>> {
        Box::pin(async move {
            let mut connection = self.inner.writer().await?;
            self.inner.check_health()?;
            let settled = match &answer {
                Some(answer) => idempotency::answered(&mut connection, tenant, &key, answer).await,
                None => idempotency::given_back(&mut connection, tenant, &key).await,
            };
            Ok(settled.map_err(lost)?)
        })
    }

    fn prune_claims(&self, horizon: Timestamp) -> BoxFuture<'_, Result<u64, Problem>> {
        Box::pin(async move {
            let mut connection = self.inner.writer().await?;
            Ok(idempotency::prune(&mut connection, horizon).await.map_err(lost)?)
        })
    }

    fn list_customers(
        &self,
        tenant: TenantId,
        page: PageAfter,
    ) -> BoxFuture<'_, Result<Vec<Arc<Customer>>, Problem>> {
        Box::pin(async move {
            let rows = self
                .read(move |c| Box::pin(async move { customer::list(c, tenant, &page).await }))
                .await?;
            let read = rows.iter().map(|(key, body)| customer::read(key, body));
            Ok(read.collect::<Result<_, StoreError>>()?)
        })
    }

    fn list_subscriptions(
        &self,
        tenant: TenantId,
        filter: SubscriptionFilter,
        page: PageAfter,
    ) -> BoxFuture<'_, Result<Vec<Arc<Subscription>>, Problem>> {
        Box::pin(async move {
            let rows = self
                .read(move |c| Box::pin(async move { subscription::list(c, tenant, &filter, &page).await }))
                .await?;
            let read = rows.iter().map(|(id, body)| subscription::read(id, body));
            Ok(read.collect::<Result<_, StoreError>>()?)
        })
    }

    fn audit(
        &self,
        tenant: TenantId,
        filter: AuditFilter,
        page: PageAfter,
    ) -> BoxFuture<'_, Result<Vec<AuditEntry>, Problem>> {
        Box::pin(async move {
            let before = audit::before(&page);
            let rows = self
                .read(move |c| {
                    Box::pin(async move { audit::list(c, tenant, &filter, before, page.rows).await })
                })
                .await?;
            Ok(rows.iter().map(audit::read).collect::<Result<_, StoreError>>()?)
        })
    }

    fn note_security(&self, event: SecurityEvent) {
        self.inner.security.lock().note(event);
    }

    fn flush_security(&self) -> BoxFuture<'_, Result<(), Problem>> {
        Box::pin(async move {
            let notes = std::mem::take(&mut *self.inner.security.lock());
            if notes.is_empty() {
                return Ok(());
            }
            let written = self.inner.write_security(&notes).await;
            if written.is_err() {
                self.inner.security.lock().give_back(notes);
            }
            Ok(written?)
        })
    }

    fn prune_audit(&self, horizon: Timestamp) -> BoxFuture<'_, Result<u64, Problem>> {
        Box::pin(async move {
            let mut connection = self.inner.writer().await?;
            Ok(audit::prune(&mut connection, horizon).await.map_err(lost)?)
        })
    }

    fn name_key(&self) -> NameKey {
        self.inner.name_key
    }
}

impl Inner {
    async fn write_security(&self, notes: &audit::SecurityNotes) -> Result<(), StoreError> {
        let mut writer = self.writer().await?;
        writer.begin().await?;
        for (tenant, mut entry) in notes.rows(self.clocks.machine_now(), TenantId::DEFAULT) {
            entry.id = self.directory.next_audit();
            audit::append(&mut writer, tenant, &entry).await.map_err(lost)?;
        }
        writer.commit().await
    }
}

impl ApiKeys for SqlStore {
    fn authenticate(&self, presented: &str) -> Result<Arc<ApiKey>, KeyRefusal> {
        self.inner
            .directory
            .authenticate(presented, self.inner.clocks.machine_now())
    }

    fn keys(&self, tenant: TenantId) -> Vec<Arc<ApiKey>> {
        self.inner.directory.keys(tenant)
    }

    fn key(&self, tenant: TenantId, id: &str) -> Option<Arc<ApiKey>> {
        self.inner.directory.key(tenant, id)
    }
}

impl Directory for SqlStore {
    fn tenant(&self, tenant: TenantId) -> Option<Arc<Tenant>> {
        self.inner.directory.tenant(tenant)
    }

    fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.inner.directory.tenants()
    }

    fn catalog(&self, tenant: TenantId) -> Arc<Catalog> {
        self.inner.directory.catalog(tenant)
    }

    fn customer(&self, tenant: TenantId, key: &str) -> Option<Arc<Customer>> {
        self.inner.directory.customer(tenant, key)
    }

    fn customers_from(&self, tenant: TenantId, from: &str, number: usize) -> Vec<Arc<Customer>> {
        self.inner.directory.customers_from(tenant, from, number)
    }

    fn customer_of_subject(&self, tenant: TenantId, subject: &str) -> Option<Arc<Customer>> {
        self.inner.directory.customer_of_subject(tenant, subject)
    }

    fn children(&self, tenant: TenantId, customer: &str) -> Vec<Arc<Customer>> {
        self.inner.directory.children(tenant, customer)
    }

    fn subscriptions(&self, tenant: TenantId, customer: &str) -> Vec<Arc<Subscription>> {
        self.inner.directory.subscriptions(tenant, customer)
    }

    fn subscription(&self, tenant: TenantId, id: &str) -> Option<Arc<Subscription>> {
        self.inner.directory.subscription(tenant, id)
    }

    fn overrides(&self, tenant: TenantId, customer: &str) -> Vec<Arc<Override>> {
        self.inner.directory.overrides(tenant, customer)
    }

    fn grants(&self, tenant: TenantId, customer: &str) -> Vec<Arc<Grant>> {
        self.inner.directory.grants(tenant, customer)
    }

    fn is_parent(&self, tenant: TenantId, customer: &str) -> bool {
        self.inner.directory.is_parent(tenant, customer)
    }

    fn grant_holders(&self, tenant: TenantId, feature: &str) -> Vec<Arc<Customer>> {
        self.inner.directory.grant_holders(tenant, feature)
    }

    fn epoch(&self) -> u64 {
        self.inner.directory.epoch()
    }
}
