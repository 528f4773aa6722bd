use std::sync::Arc;

use turnpike_domain::time::Timestamp;

use super::{SqlPlace, SqlStore};
use crate::contract::billing as contract;
use crate::fault::FailPoints;
use crate::machine::{ManualClock, SeededRandomness, TenantClock};

async fn empty(place: &SqlPlace) -> SqlStore {
    let clock = Arc::new(ManualClock::new(Timestamp::from_minute(29_000_000)));
    let clocks = Arc::new(TenantClock::new(clock.clone()));
    let randomness = Arc::new(SeededRandomness::new(7, clock));
    let store = SqlStore::open(place, clocks, randomness, Arc::new(FailPoints::default()))
        .await
        .unwrap();
    store.first_start(None, &|_| Ok(())).await.unwrap();
    store
}

#[tokio::test]
async fn sqlite_keeps_the_contract_of_billing() {
    for on_disk in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| {
            if on_disk {
                SqlPlace::File(directory.path().join(name))
            } else {
                SqlPlace::Memory
            }
        };
        contract::a_period_has_one_invoice(&empty(&place("a")).await)
            .await
            .unwrap();
        contract::numbers_have_no_gaps(&empty(&place("b")).await)
            .await
            .unwrap();
        contract::steps_are_legal_and_answered_once(&empty(&place("c")).await)
            .await
            .unwrap();
        contract::runs_wait_one_behind_the_other(&empty(&place("d")).await)
            .await
            .unwrap();
        contract::many_are_closed_together(&empty(&place("e")).await)
            .await
            .unwrap();
    }
}
