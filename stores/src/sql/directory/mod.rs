//! What is in the control store, in memory: read on hot paths, changed after each commit by the one writer.

mod read;
mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use parking_lot::RwLock;
use subtle::ConstantTimeEq as _;
use turnpike_domain::catalog::{ApiKey, Catalog, Customer, Grant, Override, Subscription, Tenant};
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::control::{Effect, KeyRefusal};
use turnpike_domain::port::directory::{Directory, DirectoryChange, DirectoryListener};
use turnpike_domain::time::Timestamp;

use super::key::{hash_key, id_of};
use crate::machine::TenantClock;
use room::Room;

#[derive(Default)]
pub(super) struct MemoryDirectory {
    tenants: ArcSwap<BTreeMap<TenantId, Arc<Room>>>,
    /// Keys by id.
    keys: DashMap<String, Arc<ApiKey>>,
    /// Keys whose text the operator chose: it has no id in it.
    chosen_keys: ArcSwap<Vec<Arc<ApiKey>>>,
    epoch: AtomicU64,
    last_meter: AtomicU32,
    last_tenant: AtomicU32,
    last_audit: AtomicU64,
    listeners: RwLock<Vec<Arc<dyn DirectoryListener>>>,
}

impl MemoryDirectory {
    fn room(&self, tenant: TenantId) -> Option<Arc<Room>> {
        self.tenants.load().get(&tenant).cloned()
    }

    fn with<T: Default>(&self, tenant: TenantId, read: impl FnOnce(&Room) -> T) -> T {
        self.tenants
            .load()
            .get(&tenant)
            .map_or_else(T::default, |room| read(room))
    }

    pub(super) fn put_tenant(&self, tenant: Tenant) {
        if let Some(room) = self.room(tenant.id) {
            room.tenant.store(Arc::new(tenant));
            return;
        }
        let mut tenants = BTreeMap::clone(&self.tenants.load());
        tenants.insert(tenant.id, Arc::new(Room::new(tenant)));
        self.tenants.store(Arc::new(tenants));
    }

    pub(super) fn put_key(&self, key: ApiKey) {
        let key = Arc::new(key);
        if key.id.starts_with("chosen") {
            let mut chosen = Vec::clone(&self.chosen_keys.load());
            chosen.retain(|other| other.id != key.id);
            chosen.push(key.clone());
            self.chosen_keys.store(Arc::new(chosen));
        }
        self.keys.insert(key.id.clone(), key);
    }

    pub(super) fn put_catalog(&self, tenant: TenantId, catalog: Catalog) {
        self.with(tenant, |room| room.catalog.store(Arc::new(catalog)));
    }

    pub(super) fn put_customer(&self, tenant: TenantId, customer: Customer) {
        self.with(tenant, |room| room.put_customer(customer));
    }

    pub(super) fn put_subscription(&self, tenant: TenantId, subscription: Subscription) {
        self.with(tenant, |room| room.put_subscription(subscription));
    }

    pub(super) fn put_override(&self, tenant: TenantId, entry: Override) {
        self.with(tenant, |room| room.put_override(entry));
    }

    pub(super) fn put_grant(&self, tenant: TenantId, grant: Grant) {
        self.with(tenant, |room| room.put_grant(grant));
    }

    pub(super) fn set_counter(&self, name: &str, value: u32) {
        match name {
            "meter" => self.last_meter.store(value, Ordering::SeqCst),
            "tenant" => self.last_tenant.store(value, Ordering::SeqCst),
            _ => {}
        }
    }

    /// The counters as they must be kept with a change that has `effects`.
    pub(super) fn counters(&self, effects: &[Effect]) -> Vec<(&'static str, u32)> {
        let has = |wanted: fn(&Effect) -> bool| effects.iter().any(wanted);
        let meter = has(|effect| matches!(effect, Effect::Meter(_)))
            .then(|| ("meter", self.last_meter.load(Ordering::SeqCst)));
        let tenant = has(|effect| matches!(effect, Effect::Tenant(_)))
            .then(|| ("tenant", self.last_tenant.load(Ordering::SeqCst)));
        meter.into_iter().chain(tenant).collect()
    }

    pub(super) fn set_last_audit(&self, id: u64) {
        self.last_audit.store(id, Ordering::SeqCst);
    }

    pub(super) fn next_audit(&self) -> u64 {
        self.last_audit.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(super) fn set_clocks(&self, clocks: &TenantClock) {
        for tenant in self.tenants() {
            if let Some(at) = tenant.clock.filter(|_| tenant.test) {
                clocks.set(tenant.id, at);
            }
        }
    }

    pub(super) fn listen(&self, listener: Arc<dyn DirectoryListener>) {
        self.listeners.write().push(listener);
    }

    /// Takes over what has been committed. The epoch moves last: who reads it first and the rest after can only think
    /// something new stale, never something stale new.
    pub(super) fn apply(
        &self,
        tenant: TenantId,
        effects: Vec<Effect>,
        catalog: Option<Catalog>,
        clocks: &TenantClock,
    ) {
        let mut changes = BTreeSet::new();
        if let Some(catalog) = catalog {
            self.put_catalog(tenant, catalog);
            changes.insert(Told::Catalog(tenant));
        }
        for effect in effects {
            if let Some(told) = self.apply_one(tenant, effect, clocks) {
                changes.insert(told);
            }
        }
        if changes.is_empty() {
            return;
        }
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let listeners = self.listeners.read();
        for change in changes {
            let change = DirectoryChange::from(change);
            for listener in listeners.iter() {
                listener.changed(&change);
            }
        }
    }

    fn apply_one(&self, tenant: TenantId, effect: Effect, clocks: &TenantClock) -> Option<Told> {
        let customer = |key: &str| Some(Told::Customer(tenant, key.to_owned()));
        match effect {
            Effect::Tenant(made) => {
                if let Some(at) = made.clock.filter(|_| made.test) {
                    clocks.set(made.id, at);
                }
                let told = Told::Tenant(made.id);
                self.put_tenant(made);
                Some(told)
            }
            Effect::ApiKey(key) => {
                self.put_key(key);
                None
            }
            Effect::Customer(made) | Effect::EraseCustomer(made) => {
                let told = customer(&made.key);
                if made.erased_at.is_some() {
                    self.with(tenant, |room| room.remove_entitlements(&made.key));
                }
                self.put_customer(tenant, made);
                told
            }
            Effect::RemoveCustomer(key) => {
                self.with(tenant, |room| room.remove_customer(&key));
                customer(&key)
            }
            Effect::Subscription(made) => {
                let told = customer(&made.customer);
                self.put_subscription(tenant, made);
                told
            }
            Effect::Override(made) => {
                let told = customer(&made.customer);
                self.put_override(tenant, made);
                told
            }
            Effect::RemoveOverride {
                customer: key,
                feature,
            } => {
                self.with(tenant, |room| room.remove_override(&key, &feature));
                customer(&key)
            }
            Effect::Grant(made) => {
                let told = customer(&made.customer);
                self.put_grant(tenant, made);
                told
            }
            Effect::RemoveGrant { customer: key, id } => {
                self.with(tenant, |room| room.remove_grant(&key, &id));
                customer(&key)
            }
            Effect::Meter(_)
            | Effect::RemoveMeter(_)
            | Effect::Feature(_)
            | Effect::RemoveFeature(_)
            | Effect::Plan(_)
            | Effect::RetirePlan(_)
            | Effect::AddOn(_)
            | Effect::RetireAddOn(_) => None,
        }
    }

    /// The catalog after `effects`, if they change it.
    pub(super) fn catalog_after(&self, tenant: TenantId, effects: &[Effect]) -> Option<Catalog> {
        let before = self.catalog(tenant);
        let mut after = None;
        for effect in effects {
            let catalog = || Catalog {
                version: before.version + 1,
                ..Catalog::clone(&before)
            };
            match effect {
                Effect::Meter(meter) => {
                    let meters = &mut after.get_or_insert_with(catalog).meters;
                    meters.insert(meter.key.clone(), Arc::new(meter.clone()));
                }
                Effect::RemoveMeter(key) => drop(after.get_or_insert_with(catalog).meters.remove(key)),
                Effect::Feature(feature) => {
                    let features = &mut after.get_or_insert_with(catalog).features;
                    features.insert(feature.key.clone(), Arc::new(feature.clone()));
                }
                Effect::RemoveFeature(key) => drop(after.get_or_insert_with(catalog).features.remove(key)),
                Effect::Plan(plan) => after.get_or_insert_with(catalog).add_plan(plan.clone()),
                Effect::RetirePlan(key) => after.get_or_insert_with(catalog).retire_plan(key),
                Effect::AddOn(add_on) => after.get_or_insert_with(catalog).add_add_on(add_on.clone()),
                Effect::RetireAddOn(key) => after.get_or_insert_with(catalog).retire_add_on(key),
                _ => {}
            }
        }
        after
    }

    pub(super) fn authenticate(&self, presented: &str, now: Timestamp) -> Result<Arc<ApiKey>, KeyRefusal> {
        let hash = hash_key(presented);
        let matches = |key: &ApiKey| bool::from(key.hash.ct_eq(&hash));
        let by_id = id_of(presented).and_then(|id| self.keys.get(id).map(|key| key.clone()));
        let key = match by_id.filter(|key| matches(key)) {
            Some(key) => key,
            None => self
                .chosen_keys
                .load()
                .iter()
                .find(|key| matches(key))
                .cloned()
                .ok_or(KeyRefusal::Unknown)?,
        };
        if key.revoked.is_some() {
            return Err(KeyRefusal::Revoked);
        }
        if key.expires.is_some_and(|expires| expires <= now) {
            return Err(KeyRefusal::Expired);
        }
        Ok(key)
    }

    pub(super) fn keys(&self, tenant: TenantId) -> Vec<Arc<ApiKey>> {
        let mut keys: Vec<_> = self
            .keys
            .iter()
            .filter(|key| key.tenant == tenant)
            .map(|key| key.value().clone())
            .collect();
        keys.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        keys
    }

    pub(super) fn key(&self, tenant: TenantId, id: &str) -> Option<Arc<ApiKey>> {
        self.keys
            .get(id)
            .filter(|key| key.tenant == tenant)
            .map(|key| key.clone())
    }
}

/// [`DirectoryChange`], in an order, so that each is told once.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Tenant(TenantId),
    Catalog(TenantId),
    Customer(TenantId, String),
}

impl From<Told> for DirectoryChange {
    fn from(told: Told) -> Self {
        match told {
            Told::Tenant(tenant) => Self::Tenant(tenant),
            Told::Catalog(tenant) => Self::Catalog(tenant),
            Told::Customer(tenant, key) => Self::Customer(tenant, key),
        }
    }
}
