//! What collections promise: nothing after DELETE, versions that count up, pages that miss nothing.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use turnpike_tests::app::{App, Caller};

use crate::BINARY;

/// The keys (or ids) of a page.
fn keys(page: &Value, name: &str) -> Vec<String> {
    let rows = page["data"].as_array().expect("rows").iter();
    rows.map(|row| row[name].as_str().expect("a key").to_owned())
        .collect()
}

async fn furnish(admin: &Caller) {
    let meter = json!({"event_type": "t", "aggregation": "count"});
    admin.put("/v1/meters/kept", &meter).await;
    let feature = json!({"kind": "metered", "meter": "kept"});
    admin.put("/v1/features/kept", &feature).await;
    admin.put("/v1/customers/kept", &json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_is_gone_and_can_be_made_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start(BINARY, directory.path()).await;
    furnish(&app.admin()).await;
    let entitled = json!({"feature": "kept", "limits": [{"limit": "5", "period": "day"}]});
    let things = [
        ("/v1/meters/m", json!({"event_type": "t", "aggregation": "count"})),
        ("/v1/features/f", json!({"kind": "boolean"})),
        ("/v1/plans/p", json!({"currency": "USD"})),
        ("/v1/add-ons/o", json!({"currency": "USD"})),
        ("/v1/customers/c", json!({"subjects": ["s"]})),
        (
            "/v1/customers/kept/grants/g",
            json!({"feature": "kept", "amount": "5"}),
        ),
        ("/v1/customers/kept/overrides/kept", entitled),
    ];
    for (path, body) in &things {
        let (list, key) = path.rsplit_once('/').expect("a key");
        let name = match list {
            list if list.ends_with("/grants") => "id",
            list if list.ends_with("/overrides") => "feature",
            _ => "key",
        };
        for _ in 0..2 {
            assert_eq!(app.admin().get(path).await.0, 404, "{path}");
            app.admin().put(path, body).await;
            let (status, made) = app.admin().get(path).await;
            assert_eq!((status, &made[name]), (200, &json!(key)), "{path}");
            assert!(
                keys(&app.admin().get(list).await.1, name).contains(&key.to_owned()),
                "{path}"
            );
            let deleted = app
                .admin()
                .send(Method::DELETE, path, None)
                .await
                .expect("an answer");
            assert!((200..300).contains(&deleted.0), "{path}: {deleted:?}");
            let (status, gone) = app.admin().get(path).await;
            assert_eq!((status, &gone["code"]), (404, &json!("not_found")), "{path}");
            assert!(
                !keys(&app.admin().get(list).await.1, name).contains(&key.to_owned()),
                "{path}"
            );
            let again = app
                .admin()
                .send(Method::DELETE, path, None)
                .await
                .expect("an answer");
            assert_eq!(again.0, 404, "DELETE {path} again");
        }
    }
    app.restart().await;
    for (path, _) in &things {
        assert_eq!(app.admin().get(path).await.0, 404, "{path} after a restart");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_makes_a_version_and_a_repeat_makes_none() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let admin = app.admin();
    furnish(&admin).await;
    for kind in ["plans", "add-ons"] {
        let path = format!("/v1/{kind}/v");
        let body = |name: &str| json!({"name": name, "currency": "USD"});
        for (name, version) in [("a", 1), ("a", 1), ("b", 2), ("b", 2), ("a", 3)] {
            let made = admin.put(&path, &body(name)).await;
            assert_eq!(
                (&made["name"], &made["version"]),
                (&json!(name), &json!(version)),
                "{path}"
            );
            assert_eq!(admin.get(&path).await.1["version"], version, "{path}");
        }
    }
    let made = json!({"customer": "kept", "plan": "v", "start": "2026-01-01T00:00:00Z"});
    let made = admin.created("/v1/subscriptions", &made).await;
    assert_eq!(made["plan_version"], 3);
    admin
        .put("/v1/plans/v", &json!({"name": "c", "currency": "USD"}))
        .await;
    let path = format!("/v1/subscriptions/{}", made["id"].as_str().expect("an id"));
    assert_eq!(
        admin.get(&path).await.1["plan_version"],
        3,
        "a subscription keeps its version"
    );
    let catalog = admin.get("/v1/catalog").await.1["version"]
        .as_u64()
        .expect("a version");
    admin.put("/v1/features/new", &json!({"kind": "boolean"})).await;
    assert_eq!(admin.get("/v1/catalog").await.1["version"], catalog + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_miss_nothing_while_rows_come_and_go() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let admin = app.admin();
    for kind in ["customers", "features"] {
        let path = |key: &str| format!("/v1/{kind}/{key}");
        let body = if kind == "features" {
            json!({"kind": "boolean"})
        } else {
            json!({})
        };
        let there: BTreeSet<String> = (0..23).map(|n| format!("k{n:02}")).collect();
        for key in &there {
            admin.put(&path(key), &body).await;
        }
        let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let (status, page) = admin.get(&format!("/v1/{kind}?limit=5{cursor}")).await;
            assert_eq!(status, 200, "{page}");
            seen.extend(keys(&page, "key"));
            // One row before what was seen, one behind, and the last one seen goes.
            admin.put(&path(&format!("a{pages}")), &body).await;
            admin.put(&path(&format!("z{pages}")), &body).await;
            let last = path(seen.last().expect("a row"));
            admin.send(Method::DELETE, &last, None).await.expect("an answer");
            pages += 1;
            assert!(pages < 20, "the pages do not end");
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let once: BTreeSet<String> = seen.iter().cloned().collect();
        assert_eq!(once.len(), seen.len(), "{kind}: a row came twice: {seen:?}");
        assert!(once.is_superset(&there), "{kind}: a row is missing: {seen:?}");
        assert!(pages > 4, "{pages}");
    }
}

/// What a customer is entitled to is a list as any other; the features that it does not have fill no page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entitlements_page_by_feature() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let admin = app.admin();
    for n in 0..12 {
        let feature = json!({"kind": "boolean"});
        admin.put(&format!("/v1/features/f{n:02}"), &feature).await;
    }
    let entitled: Vec<_> = (0..12)
        .filter(|n| n % 4 != 1)
        .map(|n| format!("f{n:02}"))
        .collect();
    let entitlements: Vec<_> = entitled.iter().map(|key| json!({ "feature": key })).collect();
    let plan = json!({"currency": "USD", "entitlements": entitlements});
    admin.put("/v1/plans/pro", &plan).await;
    admin.put("/v1/customers/c", &json!({})).await;
    admin
        .created("/v1/subscriptions", &json!({"customer": "c", "plan": "pro"}))
        .await;
    for limit in [1, 4, 9, 100] {
        let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let path = format!("/v1/customers/c/entitlements?limit={limit}{cursor}");
            let (status, page) = admin.get(&path).await;
            assert_eq!(status, 200, "{page}");
            seen.extend(keys(&page, "feature"));
            pages += 1;
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(
            (&seen, pages),
            (&entitled, entitled.len().div_ceil(limit)),
            "{limit}"
        );
    }
}
