//! What the handlers of catalog, customers and subscriptions share.

use std::sync::Arc;

use serde::Serialize;
use turnpike_domain::catalog::{CatalogUse, Customer};
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::control::{ControlState, ControlStore, Decision};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::history::History;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::{Clock, Randomness, Timestamp};
use turnpike_http::{Answered, Changing, Page, PageQuery, Reply};

/// What catalog, customers and subscriptions are made of.
#[derive(Clone)]
pub struct Control {
    /// Where changes are decided and kept.
    pub store: Arc<dyn ControlStore>,
    /// What is in force.
    pub directory: Arc<dyn Directory>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Identifiers.
    pub randomness: Arc<dyn Randomness>,
    /// How far new meters are.
    pub history: Arc<dyn History>,
    /// See [`crate::BillingOptions::late_days`].
    pub late_days: u32,
}

impl Control {
    /// Decides the change that a call with `body` asks for.
    pub(crate) async fn change<B: Serialize>(
        &self,
        changing: &Changing,
        body: &B,
        decide: impl FnOnce(&dyn ControlState) -> Result<Decision, Problem> + Send + 'static,
    ) -> Reply<Answered> {
        let change = changing.change(self.clock.as_ref(), body);
        Ok(Answered(self.store.change(change, Box::new(decide)).await?))
    }

    /// Whose change it is, and the instant that it is decided for, by the tenant's own clock.
    pub(crate) fn at(&self, changing: &Changing) -> (TenantId, Timestamp) {
        (changing.tenant(), self.clock.now(changing.tenant()))
    }

    /// What a change of a tenant's catalog is asked for.
    pub(crate) fn catalog_at(&self, tenant: TenantId) -> CatalogAt {
        CatalogAt {
            tenant,
            now: self.clock.now(tenant),
            late_days: self.late_days,
        }
    }

    /// A customer that was not erased.
    pub(crate) fn customer(&self, tenant: TenantId, key: &str) -> Result<Arc<Customer>, Problem> {
        living_customer(self.directory.as_ref(), tenant, key)
    }
}

/// Whose catalog is changed, and the instant that it is decided for, by the tenant's own clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CatalogAt {
    pub(crate) tenant: TenantId,
    now: Timestamp,
    late_days: u32,
}

impl CatalogAt {
    /// What refers to the catalog then.
    pub(crate) fn used(self, state: &dyn ControlState) -> CatalogUse {
        state.catalog_use(self.tenant, self.now, self.late_days)
    }

    /// The same, for showing what a change would do.
    pub(crate) fn shown(self, store: &dyn ControlStore) -> CatalogUse {
        store.catalog_use(self.tenant, self.now, self.late_days)
    }
}

/// A customer that was not erased.
pub(crate) fn living_customer(
    directory: &dyn Directory,
    tenant: TenantId,
    key: &str,
) -> Result<Arc<Customer>, Problem> {
    directory
        .customer(tenant, key)
        .filter(|customer| customer.erased_at.is_none())
        .ok_or_else(|| Problem::not_found("customer", key))
}

/// What the path of a call says stands in its body too, at `pointer`: it may be left out there, or must agree.
pub(crate) fn agree(pointer: &str, path: &str, body: &mut String) -> Result<(), Problem> {
    if body.is_empty() {
        path.clone_into(body);
    }
    if body != path {
        return Err(Problem::invalid(
            pointer,
            format!("is \"{body}\", but the path says \"{path}\""),
        ));
    }
    Ok(())
}

/// A page of what is in memory in the order of its keys.
pub(crate) fn page_of<'a, T>(rows: impl Iterator<Item = (&'a String, T)>, page: &PageQuery) -> Page<T> {
    let after = page.after().unwrap_or_default();
    let rows = rows.filter(|(key, _)| key.as_str() > after);
    let cut = page.cut(rows.take(page.rows() + 1).collect(), |(key, _)| {
        String::clone(key)
    });
    Page {
        data: cut.data.into_iter().map(|(_, row)| row).collect(),
        next_cursor: cut.next_cursor,
    }
}
