//! The directory in memory, against what a restart reads, in a small world of keys.

use proptest::prelude::*;
use turnpike_domain::catalog::{
    AddOn, Customer, Entitlement, Feature, FeatureKind, FormerParent, Grant, Override, Tenant,
};
use turnpike_domain::identity::TenantId;
use turnpike_domain::money::Currency;
use turnpike_domain::port::control::{ApiKeys as _, ControlState, ControlStore as _, Effect};
use turnpike_domain::port::directory::Directory as _;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::Timestamp;

use super::*;

/// All that a directory tells of that world.
pub(super) fn dump(store: &SqlStore) -> String {
    let mut lines = Vec::new();
    for tenant in store.tenants() {
        let id = tenant.id;
        lines.push(format!("{tenant:?} {:?} {:?}", store.catalog(id), store.keys(id)));
        let holders = store.grant_holders(id, "f").into_iter();
        let mut holders: Vec<_> = holders.map(|holder| holder.key.clone()).collect();
        holders.sort_unstable();
        lines.push(format!("{holders:?}"));
        for n in 0..WORLD {
            let key = format!("k{n}");
            lines.push(format!(
                "{key} {:?} {:?} {:?} {:?} {:?} {:?}",
                store.customer(id, &key),
                store.customer_of_subject(id, &key).map(|owner| owner.key.clone()),
                store.children(id, &key),
                store.subscriptions(id, &key),
                store.overrides(id, &key),
                store.grants(id, &key),
            ));
            lines.push(format!("{:?}", store.subscription(id, &key)));
        }
    }
    lines.join("\n")
}

pub(super) const WORLD: u8 = 4;

/// An effect made of small numbers, whether or not it makes sense: what the store refuses must leave nothing.
fn any_effect(kind: u8, a: u8, b: u8, store: &SqlStore, tenant: TenantId) -> Effect {
    let (key, other) = (format!("k{}", a % WORLD), format!("k{}", b % WORLD));
    match kind % 15 {
        0 => {
            let parent = (b & 8 != 0).then(|| other.clone());
            let former = (b & 32 != 0).then(|| FormerParent {
                parent: format!("k{}", b / 64),
                since: None,
                until: Timestamp::from_minute(u32::from(a)),
            });
            Effect::Customer(Customer {
                parent,
                former_parents: former.into_iter().collect(),
                ..contract::customer(&key, &other)
            })
        }
        1 => Effect::Customer(Customer {
            former_grants: (b & 16 != 0).then(|| grant(&key, &other)).into_iter().collect(),
            subjects: vec![key.clone(), other],
            ..contract::customer(&key, &key)
        }),
        2 => Effect::RemoveCustomer(key),
        3 => Effect::EraseCustomer(Customer {
            erased_at: Some(Timestamp::from_minute(9)),
            ..contract::customer(&key, &other)
        }),
        4 => Effect::Subscription(contract::subscription(
            &key,
            &other,
            "p",
            Timestamp::from_minute(u32::from(b)),
        )),
        5 => Effect::Plan(contract::plan(&key, next_version(store, tenant, &key))),
        6 => Effect::RetirePlan(key),
        7 => Effect::Feature(feature(&key, b)),
        8 => Effect::RemoveFeature(key),
        9 => Effect::Override(Override {
            customer: key,
            entitlement: entitlement(&other),
            revoked: b & 16 != 0,
            since: (b & 32 != 0).then(|| Timestamp::from_minute(u32::from(a))),
        }),
        10 => Effect::RemoveOverride {
            customer: key,
            feature: other,
        },
        11 => Effect::Grant(grant(&key, &other)),
        12 => Effect::RemoveGrant {
            customer: key,
            id: other,
        },
        13 => Effect::Tenant(Tenant {
            suspended: b & 4 != 0,
            ..Tenant::clone(&store.tenant(tenant).unwrap())
        }),
        _ => Effect::AddOn(AddOn {
            key: key.clone(),
            name: other,
            version: store.catalog(tenant).add_ons.get(&key).map_or(0, Vec::len) as u32 + 1,
            currency: Currency::USD,
            prices: Vec::new(),
            entitlements: Vec::new(),
        }),
    }
}

fn next_version(store: &SqlStore, tenant: TenantId, key: &str) -> u32 {
    let catalog = store.catalog(tenant);
    let all = catalog.plans.get(key).or_else(|| catalog.retired_plans.get(key));
    all.map_or(0, Vec::len) as u32 + 1
}

fn feature(key: &str, n: u8) -> Feature {
    Feature {
        key: key.to_owned(),
        name: format!("{n}"),
        kind: FeatureKind::Boolean,
        meter: None,
    }
}

fn entitlement(feature: &str) -> Entitlement {
    Entitlement {
        feature: feature.to_owned(),
        limits: Vec::new(),
        value: None,
    }
}

fn grant(customer: &str, id: &str) -> Grant {
    Grant {
        id: id.to_owned(),
        customer: customer.to_owned(),
        feature: "f".to_owned(),
        amount: Quantity::ONE,
        priority: 1,
        effective_at: None,
        expires_at: None,
        recurrence: None,
        rollover_max: None,
        deleted_at: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_directory_is_what_a_restart_reads(
        changes in prop::collection::vec(
            (1u32..3, prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 1..4)), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let place = SqlPlace::File(directory.path().join("control.sqlite"));
            let store = two_tenants(&place).await;
            let mut kept = 0;
            for (tenant, effects) in changes {
                let tenant = TenantId(tenant);
                let effects = effects.iter().map(|(kind, a, b)| any_effect(*kind, *a, *b, &store, tenant)).collect();
                let before = dump(&store);
                let decide = Box::new(move |_: &dyn ControlState| {
                    Ok(contract::decision(effects, serde_json::Value::Null))
                });
                match store.change(contract::change(tenant, None), decide).await {
                    Ok(_) => kept += 1,
                    Err(_) => assert_eq!(dump(&store), before, "a change that failed left something"),
                }
            }
            let before = dump(&store);
            store.close().await.unwrap();
            drop(store);
            let again = open(&place, FailPoints::default()).await.unwrap();
            assert_eq!(dump(&again), before, "after {kept} changes");
        });
    }
}
