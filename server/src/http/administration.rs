//! What the handlers of tenants, keys and the audit log share.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use turnpike_domain::catalog::Tenant;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::port::control::{ApiKeys, ControlState, ControlStore, Decision, DueWork};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{Clock, Randomness};
use turnpike_http::{Answered, Caller, Changing, Reply};
use utoipa_axum::router::OpenApiRouter;

/// What tenants, keys and the audit log are made of.
pub struct Administration {
    /// Where changes are decided and kept.
    pub store: Arc<dyn ControlStore>,
    /// The keys.
    pub keys: Arc<dyn ApiKeys>,
    /// What is in force.
    pub directory: Arc<dyn Directory>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Identifiers and secrets.
    pub randomness: Arc<dyn Randomness>,
    /// What falls due as a test tenant's clock is moved.
    pub due: Vec<Arc<dyn DueWork>>,
    /// A test tenant's clock is moved by one call at a time.
    pub advancing: AdvanceLocks,
}

/// One lock per test tenant.
#[derive(Debug, Default)]
pub struct AdvanceLocks(Mutex<BTreeMap<TenantId, Arc<tokio::sync::Mutex<()>>>>);

impl AdvanceLocks {
    /// The lock of a tenant.
    pub(super) fn of(&self, tenant: TenantId) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.0.lock().entry(tenant).or_default())
    }
}

/// The routes of tenants, test clocks, keys and the audit log.
pub fn administration_router(administration: Arc<Administration>) -> OpenApiRouter {
    OpenApiRouter::new()
        .merge(super::tenants::router())
        .merge(super::test_clock::router())
        .merge(super::keys::router())
        .merge(super::audit::router())
        .with_state(administration)
}

impl Administration {
    /// Decides the change that a call with `body` asks for. Tenants and keys live in the machine's time.
    pub(super) async fn change<B: Serialize>(
        &self,
        changing: &Changing,
        body: &B,
        decide: impl FnOnce(&dyn ControlState) -> Result<Decision, Problem> + Send + 'static,
    ) -> Reply<Answered> {
        let mut change = changing.change(self.clock.as_ref(), body);
        change.at = self.clock.machine_now();
        Ok(Answered(self.store.change(change, Box::new(decide)).await?))
    }

    /// The tenant that a call of `caller` is about: its own, or the one it names, which only the tenant `default` may.
    pub(super) fn tenant_named(&self, caller: &Caller, key: Option<&str>) -> Result<Arc<Tenant>, Problem> {
        let own = self.directory.tenant(caller.tenant);
        let own = own.ok_or_else(|| Problem::new(Code::Unauthorized, "the key's tenant is gone"))?;
        let Some(key) = key.filter(|key| *key != own.key) else {
            return Ok(own);
        };
        require_administrator(caller)?;
        self.tenant(key)
    }

    /// A tenant by key.
    pub(super) fn tenant(&self, key: &str) -> Result<Arc<Tenant>, Problem> {
        let all = self.directory.tenants();
        all.into_iter()
            .find(|tenant| tenant.key == key)
            .ok_or_else(|| Problem::not_found("tenant", key))
    }
}

/// Only admin keys of the tenant `default` administer tenants.
pub(super) fn require_administrator(caller: &Caller) -> Result<(), Problem> {
    caller.require(Scope::Admin)?;
    if caller.tenant == TenantId::DEFAULT {
        return Ok(());
    }
    Err(Problem::new(
        Code::Forbidden,
        "only admin keys of the tenant \"default\" administer tenants",
    ))
}
