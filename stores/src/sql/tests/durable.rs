//! Failures around a commit, callers that go away, and what is erased.

use turnpike_domain::catalog::Customer;
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::control::{Answer, ControlState, ControlStore as _, Effect};
use turnpike_domain::port::directory::Directory as _;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::Timestamp;

use super::world::{WORLD, dump};
use super::*;

async fn put_customer(
    store: &SqlStore,
    key: &str,
    idempotency: Option<(&str, &str)>,
) -> Result<Answer, Problem> {
    let effects = vec![
        Effect::Customer(contract::customer(key, key)),
        Effect::Plan(contract::plan(key, 1)),
    ];
    let decide =
        Box::new(move |_: &dyn ControlState| Ok(contract::decision(effects, serde_json::json!("made"))));
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
    let put = Box::new(move |_: &dyn ControlState| {
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
    let erase = Box::new(move |_: &dyn ControlState| {
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
