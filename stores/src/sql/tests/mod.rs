//! The control store on SQLite.

mod durable;
mod start;
mod world;

use turnpike_domain::catalog::Tenant;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::control::{ControlState, ControlStore as _, Effect};
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

/// A store with the tenants 1 and 2.
async fn two_tenants(place: &SqlPlace) -> SqlStore {
    let store = open(place, FailPoints::default()).await.unwrap();
    store.first_start(None, &|_| Ok(())).await.unwrap();
    let decide = Box::new(|state: &dyn ControlState| {
        let mut second = Tenant::clone(&state.tenant(TenantId(1)).unwrap());
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
