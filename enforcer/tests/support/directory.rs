use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;
use serde_json::{Value, json};
use turnpike_domain::catalog::{
    AddOn, AddOnUse, Catalog, Customer, Feature, Grant, Interval, Override, Phase, Plan, Subscription, Tenant,
};
use turnpike_domain::identity::{MeterId, TenantId};
use turnpike_domain::meter::{Meter, MeterDefinition};
use turnpike_domain::money::Currency;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::time::Timestamp;

use super::{TENANT, at};

/// Who and what there is, changed by tests.
#[derive(Default)]
pub struct FakeDirectory(RwLock<State>, AtomicUsize);

#[derive(Default)]
struct State {
    catalog: Arc<Catalog>,
    customers: BTreeMap<String, Arc<Customer>>,
    subscriptions: BTreeMap<String, Vec<Arc<Subscription>>>,
    overrides: BTreeMap<String, Vec<Arc<Override>>>,
    grants: BTreeMap<String, Vec<Arc<Grant>>>,
    epoch: u64,
}

fn read<T: serde::de::DeserializeOwned>(body: Value) -> T {
    serde_json::from_value(body).unwrap()
}

impl FakeDirectory {
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.write();
        change(&mut state);
        state.epoch += 1;
    }

    fn change_catalog(&self, change: impl FnOnce(&mut Catalog)) {
        self.change(|state| {
            let mut catalog = Catalog::clone(&state.catalog);
            change(&mut catalog);
            catalog.version += 1;
            state.catalog = Arc::new(catalog);
        });
    }

    pub fn put_meter(&self, key: &str, aggregation: &str, value: Option<&str>) {
        let mut body = json!({"key": key, "event_type": format!("{key}.used"), "aggregation": aggregation});
        if let Some(value) = value {
            body["value"] = value.into();
        }
        let definition: MeterDefinition = read(body);
        self.change_catalog(|catalog| {
            let id = MeterId(catalog.meters.len() as u32 + 1);
            catalog
                .meters
                .insert(key.to_owned(), Arc::new(definition.into_meter(id).unwrap()));
        });
    }

    pub fn put_feature(&self, key: &str, mut body: Value) {
        body["key"] = key.into();
        let feature: Feature = read(body);
        self.change_catalog(|catalog| drop(catalog.features.insert(key.to_owned(), Arc::new(feature))));
    }

    pub fn put_plan(&self, key: &str, entitlements: Value) {
        let mut plan: Plan = read(json!({"key": key, "currency": "USD", "entitlements": entitlements}));
        self.change_catalog(|catalog| {
            let versions = catalog.plans.entry(key.to_owned()).or_default();
            plan.version = versions.len() as u32 + 1;
            versions.push(Arc::new(plan));
        });
    }

    pub fn put_add_on(&self, key: &str, entitlements: Value) {
        let mut add_on: AddOn = read(json!({"key": key, "currency": "USD", "entitlements": entitlements}));
        self.change_catalog(|catalog| {
            let versions = catalog.add_ons.entry(key.to_owned()).or_default();
            add_on.version = versions.len() as u32 + 1;
            versions.push(Arc::new(add_on));
        });
    }

    pub fn put_customer(&self, key: &str, mut body: Value) {
        body["key"] = key.into();
        let mut customer: Customer = read(body);
        if customer.subjects.is_empty() {
            customer.subjects = vec![key.to_owned()];
        }
        self.set_customer(customer);
    }

    pub fn set_customer(&self, customer: Customer) {
        self.change(|state| drop(state.customers.insert(customer.key.clone(), Arc::new(customer))));
    }

    pub fn subscribe(&self, customer: &str, plan: &str, add_ons: &[&str]) {
        let start = at("2026-01-01T00:00:00Z");
        let use_of = |key: &&str| AddOnUse {
            key: (*key).to_owned(),
            version: 1,
        };
        self.put_subscription(Subscription {
            id: format!("{customer}-{plan}"),
            customer: customer.to_owned(),
            currency: Currency::USD,
            start,
            trial_end: None,
            timezone: "UTC".to_owned(),
            first: Phase {
                from: start,
                plan: plan.to_owned(),
                plan_version: 1,
                interval: Interval::Month,
                interval_count: 1,
                anchor: start,
                add_ons: add_ons.iter().map(use_of).collect(),
            },
            later: Vec::new(),
            pauses: Vec::new(),
            past_due: false,
            ends_at: None,
            expires: false,
            billed_until: start,
        });
    }

    /// Replaces the subscriptions of its customer.
    pub fn put_subscription(&self, subscription: Subscription) {
        self.change(|state| {
            state
                .subscriptions
                .insert(subscription.customer.clone(), vec![Arc::new(subscription)]);
        });
    }

    pub fn edit_subscription(&self, customer: &str, edit: impl FnOnce(&mut Subscription)) {
        let mut subscription = Subscription::clone(&self.subscriptions(TENANT, customer)[0]);
        edit(&mut subscription);
        self.put_subscription(subscription);
    }

    /// Replaces the override of a feature.
    pub fn set_override(&self, customer: &str, feature: &str, over: Option<Override>) {
        self.change(|state| {
            let all = state.overrides.entry(customer.to_owned()).or_default();
            all.retain(|one| one.entitlement.feature != feature);
            all.extend(over.map(Arc::new));
        });
    }

    pub fn put_grant(&self, customer: &str, mut body: Value) {
        body["customer"] = customer.into();
        let grant = Arc::new(read(body));
        self.change(|state| state.grants.entry(customer.to_owned()).or_default().push(grant));
    }

    /// Takes a grant back, as the control store does.
    pub fn remove_grant(&self, customer: &str, id: &str, now: Timestamp) {
        self.change(|state| {
            let all = state.grants.entry(customer.to_owned()).or_default();
            let at = all.iter().position(|one| one.id == id).unwrap();
            let grant = all.remove(at);
            let mut whose = Customer::clone(&state.customers[customer]);
            whose.keep_grant(&grant, now);
            state.customers.insert(customer.to_owned(), Arc::new(whose));
        });
    }

    /// How often a customer was looked up.
    pub fn lookups(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }

    pub fn meters(&self) -> Vec<Arc<Meter>> {
        self.0.read().catalog.meters.values().cloned().collect()
    }
}

impl Directory for FakeDirectory {
    fn tenant(&self, tenant: TenantId) -> Option<Arc<Tenant>> {
        (tenant == TENANT).then(|| {
            Arc::new(Tenant {
                id: TENANT,
                key: "t".to_owned(),
                name: "t".to_owned(),
                test: false,
                clock: None::<Timestamp>,
                suspended: false,
                timezone: "UTC".to_owned(),
                calls_per_second: None,
            })
        })
    }

    fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.tenant(TENANT).into_iter().collect()
    }

    fn catalog(&self, _: TenantId) -> Arc<Catalog> {
        self.0.read().catalog.clone()
    }

    fn customer(&self, _: TenantId, key: &str) -> Option<Arc<Customer>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.read().customers.get(key).cloned()
    }

    fn customers_from(&self, _: TenantId, from: &str, number: usize) -> Vec<Arc<Customer>> {
        let state = self.0.read();
        let behind = state.customers.values().filter(|one| one.key.as_str() >= from);
        let mut behind: Vec<_> = behind.cloned().collect();
        behind.sort_by(|one, other| one.key.cmp(&other.key));
        behind.truncate(number);
        behind
    }

    fn customer_of_subject(&self, _: TenantId, subject: &str) -> Option<Arc<Customer>> {
        let state = self.0.read();
        let own = |customer: &&Arc<Customer>| customer.subjects.iter().any(|one| one == subject);
        state.customers.values().find(own).cloned()
    }

    fn children(&self, _: TenantId, customer: &str) -> Vec<Arc<Customer>> {
        let state = self.0.read();
        let below = |one: &&Arc<Customer>| one.parents().any(|(parent, _)| parent == customer);
        state.customers.values().filter(below).cloned().collect()
    }

    fn subscriptions(&self, _: TenantId, customer: &str) -> Vec<Arc<Subscription>> {
        self.0
            .read()
            .subscriptions
            .get(customer)
            .cloned()
            .unwrap_or_default()
    }

    fn subscription(&self, _: TenantId, id: &str) -> Option<Arc<Subscription>> {
        let state = self.0.read();
        state
            .subscriptions
            .values()
            .flatten()
            .find(|one| one.id == id)
            .cloned()
    }

    fn overrides(&self, _: TenantId, customer: &str) -> Vec<Arc<Override>> {
        self.0.read().overrides.get(customer).cloned().unwrap_or_default()
    }

    fn grants(&self, _: TenantId, customer: &str) -> Vec<Arc<Grant>> {
        self.0.read().grants.get(customer).cloned().unwrap_or_default()
    }

    fn grant_holders(&self, _: TenantId, feature: &str) -> Vec<Arc<Customer>> {
        let state = self.0.read();
        let holds = |one: &&Arc<Customer>| {
            let given = state.grants.get(&one.key).into_iter().flatten();
            let given = given.map(AsRef::as_ref).chain(&one.former_grants);
            given.into_iter().any(|grant| grant.feature == feature)
        };
        state.customers.values().filter(holds).cloned().collect()
    }

    fn epoch(&self) -> u64 {
        self.0.read().epoch
    }
}
