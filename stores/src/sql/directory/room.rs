//! What belongs to one tenant, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use parking_lot::RwLock;
use turnpike_domain::catalog::{Catalog, Customer, Grant, Override, Subscription, Tenant};

use crate::sql::uses::Uses;

/// What belongs to one tenant.
pub(super) struct Room {
    pub(super) tenant: ArcSwap<Tenant>,
    pub(super) catalog: ArcSwap<Catalog>,
    pub(super) customers: DashMap<String, Arc<Customer>>,
    /// The keys of the customers in their order.
    pub(super) keys: RwLock<BTreeSet<String>>,
    /// Subject → customer.
    pub(super) subjects: DashMap<String, String>,
    /// Customer → those whose parent it is or was.
    pub(super) children: DashMap<String, BTreeSet<String>>,
    /// Customer → subscriptions, newest first.
    pub(super) subscriptions: DashMap<String, Vec<Arc<Subscription>>>,
    /// Id of a subscription → customer.
    pub(super) subscribers: DashMap<String, String>,
    pub(super) overrides: DashMap<String, BTreeMap<String, Arc<Override>>>,
    /// Of those who have some, or had.
    pub(super) grants: DashMap<String, BTreeMap<String, Arc<Grant>>>,
    pub(super) uses: Uses,
}

impl Room {
    pub(super) fn new(tenant: Tenant) -> Self {
        Self {
            tenant: ArcSwap::from_pointee(tenant),
            catalog: ArcSwap::default(),
            customers: DashMap::new(),
            keys: RwLock::default(),
            subjects: DashMap::new(),
            children: DashMap::new(),
            subscriptions: DashMap::new(),
            subscribers: DashMap::new(),
            overrides: DashMap::new(),
            grants: DashMap::new(),
            uses: Uses::default(),
        }
    }

    /// Makes or replaces a customer. What led to it before and still does is there all the time: an event that is
    /// counted meanwhile finds its customer.
    pub(super) fn put_customer(&self, customer: Customer) {
        let customer = Arc::new(customer);
        let before = self.customers.insert(customer.key.clone(), Arc::clone(&customer));
        for subject in &customer.subjects {
            self.subjects.insert(subject.clone(), customer.key.clone());
        }
        for (parent, _) in customer.parents() {
            self.children
                .entry(parent.to_owned())
                .or_default()
                .insert(customer.key.clone());
        }
        if !customer.former_grants.is_empty() {
            self.grants.entry(customer.key.clone()).or_default();
        }
        match before {
            Some(before) => self.unlink(&before, Some(&customer)),
            None => drop(self.keys.write().insert(customer.key.clone())),
        }
    }

    pub(super) fn remove_customer(&self, key: &str) {
        if let Some((_, before)) = self.customers.remove(key) {
            self.keys.write().remove(key);
            self.unlink(&before, None);
        }
        self.remove_entitlements(key);
    }

    /// Removes what leads to a customer from the subjects and parents that it had `before` and has no longer.
    fn unlink(&self, before: &Customer, now: Option<&Customer>) {
        let kept = |subject: &String| now.is_some_and(|now| now.subjects.contains(subject));
        for subject in before.subjects.iter().filter(|subject| !kept(subject)) {
            self.subjects.remove_if(subject, |_, owner| *owner == before.key);
        }
        for (parent, _) in before.parents() {
            if now.is_some_and(|now| now.parents().any(|(one, _)| one == parent)) {
                continue;
            }
            if let Some(mut children) = self.children.get_mut(parent) {
                children.remove(&before.key);
            }
            self.children.remove_if(parent, |_, children| children.is_empty());
        }
    }

    pub(super) fn put_override(&self, entry: Override) {
        let feature = entry.entitlement.feature.clone();
        let mut all = self.overrides.entry(entry.customer.clone()).or_default();
        if all.insert(feature.clone(), Arc::new(entry)).is_none() {
            self.uses.feature(&feature, true);
        }
    }

    pub(super) fn remove_override(&self, customer: &str, feature: &str) {
        let all = self.overrides.get_mut(customer);
        if all.and_then(|mut all| all.remove(feature)).is_some() {
            self.uses.feature(feature, false);
        }
    }

    pub(super) fn put_grant(&self, grant: Grant) {
        self.uses.feature(&grant.feature, true);
        let mut all = self.grants.entry(grant.customer.clone()).or_default();
        if let Some(before) = all.insert(grant.id.clone(), Arc::new(grant)) {
            self.uses.feature(&before.feature, false);
        }
    }

    pub(super) fn remove_grant(&self, customer: &str, id: &str) {
        let all = self.grants.get_mut(customer);
        if let Some(before) = all.and_then(|mut all| all.remove(id)) {
            self.uses.feature(&before.feature, false);
        }
    }

    /// Removes a customer's overrides and grants.
    pub(super) fn remove_entitlements(&self, customer: &str) {
        let overrides = self.overrides.remove(customer).map(|(_, all)| all);
        for feature in overrides.unwrap_or_default().keys() {
            self.uses.feature(feature, false);
        }
        let grants = self.grants.remove(customer).map(|(_, all)| all);
        for grant in grants.unwrap_or_default().values() {
            self.uses.feature(&grant.feature, false);
        }
    }

    pub(super) fn put_subscription(&self, subscription: Subscription) {
        self.subscribers
            .insert(subscription.id.clone(), subscription.customer.clone());
        let mut all = self
            .subscriptions
            .entry(subscription.customer.clone())
            .or_default();
        let subscription = Arc::new(subscription);
        let known = all.iter().position(|other| other.id == subscription.id);
        let before = known.map(|at| all.remove(at));
        self.uses.subscription(before.as_deref(), &subscription);
        let newness = |s: &Subscription| (s.start, s.id.clone());
        let at = all.partition_point(|other| newness(other) > newness(&subscription));
        all.insert(at, subscription);
    }
}
