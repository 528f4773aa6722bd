use super::*;
use crate::machine::{ManualClock, SeededRandomness};
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::control::{ApiKeys, ControlStore as _, KeyRefusal};
use turnpike_domain::port::directory::Directory as _;
use turnpike_domain::time::Timestamp;

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
    let FirstKey::Made(key) = store.first_start(None).await.unwrap() else {
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
        again.first_start(Some("another-key-123456")).await.unwrap(),
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
    for bad in ["short", "has a space in it 123", &"x".repeat(129)] {
        assert!(store.first_start(Some(bad)).await.is_err(), "{bad}");
    }
    assert_eq!(
        store.first_start(Some("tp_chosen_by_operator")).await.unwrap(),
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
