//! First starts, later ones, and the keys and numbers that they find.

use std::collections::BTreeMap;

use turnpike_domain::catalog::ApiKey;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::meter::{Aggregation, Meter};
use turnpike_domain::port::control::{ApiKeys as _, ControlState, ControlStore as _, Effect, KeyRefusal};
use turnpike_domain::port::directory::Directory as _;
use turnpike_domain::time::Timestamp;

use super::*;

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

#[tokio::test]
async fn keys_end_are_revoked_and_numbers_are_never_given_twice() {
    let directory = tempfile::tempdir().unwrap();
    let place = SqlPlace::File(directory.path().join("control.sqlite"));
    let store = two_tenants(&place).await;
    let randomness = crate::machine::MachineRandomness;
    let (ending, revoked) = (NewKey::make(&randomness), NewKey::make(&randomness));
    let api_key = |made: &NewKey| ApiKey {
        id: made.id.clone(),
        tenant: TenantId(2),
        name: String::new(),
        hash: made.hash,
        scopes: [Scope::Read].into(),
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
    let decide = Box::new(move |state: &dyn ControlState| {
        let meter = Meter {
            id: state.next_meter_id(),
            key: "m".to_owned(),
            event_type: "e".to_owned(),
            aggregation: Aggregation::Count,
            value: None,
            percentile: None,
            group_by: BTreeMap::new(),
            filter: BTreeMap::new(),
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
    let drop_it = Box::new(move |_: &dyn ControlState| {
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
