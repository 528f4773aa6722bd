use proptest::prelude::*;
use turnpike_domain::catalog::{Customer, FormerParent, Grant, Override, Tenant};
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::control::{
    Answer, ApiKeys, ControlState as _, ControlStore as _, Effect, KeyRefusal,
};
use turnpike_domain::port::directory::Directory as _;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::Timestamp;

use super::*;
use crate::contract::control as contract;
use crate::machine::{ManualClock, SeededRandomness};

async fn open(place: &SqlPlace, fail: FailPoints) -> Result<SqlStore, StoreError> {
    let clock = Arc::new(ManualClock::new(Timestamp::from_minute(29_000_000)));
    let clocks = Arc::new(TenantClock::new(clock.clone()));
    SqlStore::open(
        place,
        clocks,
        Arc::new(SeededRandomness::new(7, clock)),
        Arc::new(fail),
    )
    .await
}

#[tokio::test]
async fn the_first_start_makes_a_tenant_and_a_key_and_later_ones_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let place = SqlPlace::File(directory.path().join("control.sqlite"));
    let store = open(&place, FailPoints::default()).await.unwrap();
    let FirstKey::Made(key) = store.first_start(None, &|_| Ok(())).await.unwrap() else {
        panic!("no key was made")
    };
    assert_eq!(store.authenticate(&key.text).unwrap().tenant, TenantId(1));
    assert_eq!(
        store.authenticate(&format!("{}x", key.text)),
        Err(KeyRefusal::Unknown)
    );
    assert_eq!(store.authenticate(""), Err(KeyRefusal::Unknown));
    let name_key = store.name_key().0;
    store.close().await.unwrap();
    drop(store);

    let again = open(&place, FailPoints::default()).await.unwrap();
    assert_eq!(
        again
            .first_start(Some("another-key-123456"), &|_| Ok(()))
            .await
            .unwrap(),
        FirstKey::Earlier
    );
    assert_eq!(again.authenticate("another-key-123456"), Err(KeyRefusal::Unknown));
    assert_eq!(again.authenticate(&key.text).unwrap().id, key.id);
    assert_eq!(again.name_key().0, name_key);
    assert_eq!(again.tenants().len(), 1);
    let bytes = std::fs::read(directory.path().join("control.sqlite")).unwrap();
    let secret = key.text.rsplit('_').next().unwrap().as_bytes();
    assert!(
        !bytes.windows(secret.len()).any(|window| window == secret),
        "the secret is on disk"
    );
}

#[tokio::test]
async fn an_operator_may_choose_the_first_key() {
    let store = open(&SqlPlace::Memory, FailPoints::default()).await.unwrap();
    for bad in [
        "short",
        "has a tab\tin it 123",
        " blanks at its ends ",
        &"x".repeat(129),
    ] {
        assert!(store.first_start(Some(bad), &|_| Ok(())).await.is_err(), "{bad}");
    }
    let spaced = open(&SqlPlace::Memory, FailPoints::default()).await.unwrap();
    spaced
        .first_start(Some("ключ с пробелами внутри"), &|_| Ok(()))
        .await
        .unwrap();
    assert!(spaced.authenticate("ключ с пробелами внутри").is_ok());
    assert_eq!(
        store
            .first_start(Some("tp_chosen_by_operator"), &|_| Ok(()))
            .await
            .unwrap(),
        FirstKey::Chosen
    );
    assert_eq!(
        store.authenticate("tp_chosen_by_operator").unwrap().id,
        "chosen-bootstrap"
    );
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let place = SqlPlace::File(directory.path().join("control.sqlite"));
    open(&place, FailPoints::default())
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
    let mut connection = connect::writer(&place).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (999, 'later', TRUE, x'00', 0)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let Err(error) = open(&place, FailPoints::default()).await else {
        panic!("it was opened")
    };
    assert!(error.to_string().contains("schema version 999"), "{error}");
}

/// A store with the tenants 1 and 2.
async fn two_tenants(place: &SqlPlace) -> SqlStore {
    let store = open(place, FailPoints::default()).await.unwrap();
    store.first_start(None, &|_| Ok(())).await.unwrap();
    let decide = Box::new(|state: &dyn turnpike_domain::port::control::ControlState| {
        let mut second = turnpike_domain::catalog::Tenant::clone(&state.tenant(TenantId(1)).unwrap());
        (second.id, second.key) = (state.next_tenant_id(), "second".to_owned());
        Ok(contract::decision(
            vec![Effect::Tenant(second)],
            serde_json::Value::Null,
        ))
    });
    store
        .change(contract::change(TenantId(1), None), decide)
        .await
        .unwrap();
    store
}

async fn keeps_the_contract(place: &SqlPlace) {
    let store = two_tenants(place).await;
    let other = TenantId(2);
    contract::a_change_is_in_force_when_it_is_answered(&store).await;
    contract::what_fails_leaves_nothing(&store).await;
    contract::repeats_answer_as_first(&store, other).await;
    contract::claims_hold_their_key(&store, other).await;
    contract::concurrent_repeats_take_effect_once(Arc::new(store.clone())).await;
    contract::pages_are_stable(&store, other).await;
    contract::tenants_never_meet(&store, other).await;
    contract::the_audit_log_is_filtered_and_counted(&store, other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_on_disk_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    keeps_the_contract(&SqlPlace::File(directory.path().join("control.sqlite"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_in_memory_keeps_the_contract() {
    keeps_the_contract(&SqlPlace::Memory).await;
}

/// All that a directory tells, of a small world of keys.
fn dump(store: &SqlStore) -> String {
    let mut lines = Vec::new();
    for tenant in store.tenants() {
        let id = tenant.id;
        lines.push(format!("{tenant:?} {:?} {:?}", store.catalog(id), store.keys(id)));
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

const WORLD: u8 = 4;

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
        _ => Effect::AddOn(turnpike_domain::catalog::AddOn {
            key: key.clone(),
            name: other,
            version: store.catalog(tenant).add_ons.get(&key).map_or(0, Vec::len) as u32 + 1,
            currency: turnpike_domain::money::Currency::USD,
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

fn feature(key: &str, n: u8) -> turnpike_domain::catalog::Feature {
    turnpike_domain::catalog::Feature {
        key: key.to_owned(),
        name: format!("{n}"),
        kind: turnpike_domain::catalog::FeatureKind::Boolean,
        meter: None,
    }
}

fn entitlement(feature: &str) -> turnpike_domain::catalog::Entitlement {
    turnpike_domain::catalog::Entitlement {
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
        amount: turnpike_domain::quantity::Quantity::ONE,
        priority: 1,
        effective_at: None,
        expires_at: None,
        recurrence: None,
        rollover_max: None,
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
                let decide = Box::new(move |_: &dyn turnpike_domain::port::control::ControlState| {
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

async fn put_customer(
    store: &SqlStore,
    key: &str,
    idempotency: Option<(&str, &str)>,
) -> Result<Answer, Problem> {
    let effects = vec![
        Effect::Customer(contract::customer(key, key)),
        Effect::Plan(contract::plan(key, 1)),
    ];
    let decide = Box::new(move |_: &dyn turnpike_domain::port::control::ControlState| {
        Ok(contract::decision(effects, serde_json::json!("made")))
    });
    store
        .change(contract::change(TenantId(1), idempotency), decide)
        .await
}

#[tokio::test]
async fn a_failure_before_the_commit_leaves_nothing_and_one_behind_it_all() {
    let directory = tempfile::tempdir().unwrap();
    let place = SqlPlace::File(directory.path().join("control.sqlite"));
    two_tenants(&place).await.close().await.unwrap();

    let store = open(&place, FailPoints::parse("sql.before_commit:1:error").unwrap())
        .await
        .unwrap();
    put_customer(&store, "a", Some(("once", "a"))).await.unwrap_err();
    assert!(store.customer(TenantId(1), "a").is_none());
    assert!(store.catalog(TenantId(1)).current_plan("a").is_none());
    assert!(
        !put_customer(&store, "a", Some(("once", "a")))
            .await
            .unwrap()
            .repeated,
        "it can be tried again"
    );
    store.close().await.unwrap();

    let store = open(&place, FailPoints::parse("sql.after_commit:1:error").unwrap())
        .await
        .unwrap();
    put_customer(&store, "b", Some(("twice", "b"))).await.unwrap_err();
    assert!(
        store.customer(TenantId(1), "b").is_some(),
        "what is durable is in force, answered or not"
    );
    let again = put_customer(&store, "b", Some(("twice", "b"))).await.unwrap();
    assert_eq!((again.repeated, again.body), (true, serde_json::json!("made")));
    store.close().await.unwrap();

    let again = open(&place, FailPoints::default()).await.unwrap();
    assert!(again.customer(TenantId(1), "a").is_some() && again.customer(TenantId(1), "b").is_some());
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_part_memory_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let place = SqlPlace::File(directory.path().join("control.sqlite"));
    let store = two_tenants(&place).await;
    for n in 0..40u64 {
        let key = format!("k{}", n % u64::from(WORLD));
        let call = put_customer(&store, &key, None);
        // Dropped at another point each time.
        let _ = tokio::time::timeout(std::time::Duration::from_micros(n * 50), call).await;
    }
    // The last change is behind all that were left alone.
    put_customer(&store, "last", None).await.unwrap();
    let before = dump(&store);
    store.close().await.unwrap();
    assert_eq!(dump(&open(&place, FailPoints::default()).await.unwrap()), before);
}

#[tokio::test]
async fn what_is_erased_is_not_on_disk_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let place = SqlPlace::File(directory.path().join("control.sqlite"));
    let store = two_tenants(&place).await;
    let private = "someone.private@example.org";
    let person = Customer {
        email: Some(private.to_owned()),
        ..contract::customer("person", "person")
    };
    let put = Box::new(move |_: &dyn turnpike_domain::port::control::ControlState| {
        let mut made = contract::decision(
            vec![Effect::Customer(person)],
            serde_json::json!({ "email": private }),
        );
        made.audit[0].object = "customer/person".to_owned();
        Ok(made)
    });
    store
        .change(contract::change(TenantId(1), Some(("put", "person"))), put)
        .await
        .unwrap();
    let on_disk = || {
        let bytes: Vec<u8> = ["control.sqlite", "control.sqlite-wal"]
            .iter()
            .flat_map(|name| std::fs::read(directory.path().join(name)).unwrap_or_default())
            .collect();
        bytes
            .windows(private.len())
            .any(|window| window == private.as_bytes())
    };
    assert!(on_disk(), "the test looks at the wrong place");
    let left = Customer {
        erased_at: Some(Timestamp::from_minute(1)),
        ..contract::customer("person", "person")
    };
    let erase = Box::new(move |_: &dyn turnpike_domain::port::control::ControlState| {
        Ok(contract::decision(
            vec![Effect::EraseCustomer(left)],
            serde_json::Value::Null,
        ))
    });
    store
        .change(contract::change(TenantId(1), None), erase)
        .await
        .unwrap();
    store.close().await.unwrap();
    assert!(!on_disk());
}

#[tokio::test]
async fn keys_end_are_revoked_and_numbers_are_never_given_twice() {
    let directory = tempfile::tempdir().unwrap();
    let place = SqlPlace::File(directory.path().join("control.sqlite"));
    let store = two_tenants(&place).await;
    let randomness = crate::machine::MachineRandomness;
    let (ending, revoked) = (NewKey::make(&randomness), NewKey::make(&randomness));
    let api_key = |made: &NewKey| turnpike_domain::catalog::ApiKey {
        id: made.id.clone(),
        tenant: TenantId(2),
        name: String::new(),
        hash: made.hash,
        scopes: [turnpike_domain::identity::Scope::Read].into(),
        created: Timestamp::from_minute(1),
        expires: None,
        revoked: None,
        replaced_by: None,
        calls_per_second: Some(7),
    };
    let mut ended = api_key(&ending);
    ended.expires = Some(Timestamp::from_minute(29_000_000));
    let mut gone = api_key(&revoked);
    gone.revoked = Some(Timestamp::from_minute(2));
    let decide = Box::new(move |state: &dyn turnpike_domain::port::control::ControlState| {
        let meter = turnpike_domain::meter::Meter {
            id: state.next_meter_id(),
            key: "m".to_owned(),
            event_type: "e".to_owned(),
            aggregation: turnpike_domain::meter::Aggregation::Count,
            value: None,
            percentile: None,
            group_by: std::collections::BTreeMap::new(),
            filter: std::collections::BTreeMap::new(),
        };
        let effects = vec![Effect::ApiKey(ended), Effect::ApiKey(gone), Effect::Meter(meter)];
        Ok(contract::decision(effects, serde_json::Value::Null))
    });
    store
        .change(contract::change(TenantId(2), None), decide)
        .await
        .unwrap();
    assert_eq!(store.authenticate(&ending.text), Err(KeyRefusal::Expired));
    assert_eq!(store.authenticate(&revoked.text), Err(KeyRefusal::Revoked));
    let first = store.catalog(TenantId(2)).meters["m"].id;
    let drop_it = Box::new(move |_: &dyn turnpike_domain::port::control::ControlState| {
        Ok(contract::decision(
            vec![Effect::RemoveMeter("m".to_owned())],
            serde_json::Value::Null,
        ))
    });
    store
        .change(contract::change(TenantId(2), None), drop_it)
        .await
        .unwrap();
    store.close().await.unwrap();
    let again = open(&place, FailPoints::default()).await.unwrap();
    assert!(again.inner.directory.next_meter_id() > first);
    assert_eq!(again.keys(TenantId(2)).len(), 2);
}
