//! API keys, and what the audit log tells.

use serde_json::{Value, json};
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::control::{ApiKeys as _, ControlStore as _, SecurityEvent};

use crate::app::{App, OK};

#[tokio::test]
async fn keys_are_shown_once_rotated_and_revoked() {
    let app = App::start().await;
    let admin = app.admin.as_str();
    let body = json!({"name": "ci", "scopes": ["read"], "calls_per_second": 3});
    let (status, first) = app
        .bytes(admin, ("POST", "/v1/keys", body.clone()), Some("once"))
        .await;
    let made: Value = serde_json::from_slice(&first).unwrap();
    let (id, text) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert_eq!((status, text.starts_with(&format!("tp_{id}_"))), (201, true));
    let (status, again) = app.bytes(admin, ("POST", "/v1/keys", body), Some("once")).await;
    let again: Value = serde_json::from_slice(&again).unwrap();
    assert_eq!(
        (status, &again["id"], again.get("key")),
        (201, &made["id"], None),
        "the text is not kept"
    );
    let one = format!("/v1/keys/{id}");
    assert_eq!(app.call(admin, ("GET", &one, Value::Null), OK).await, again);
    app.call(text, ("GET", &one, Value::Null), (403, "forbidden"))
        .await;

    let rotate = format!("{one}/rotate");
    app.call(
        admin,
        ("POST", &rotate, json!({"grace_s": 99_999_999})),
        (422, "invalid"),
    )
    .await;
    let new = app
        .call(admin, ("POST", &rotate, json!({"grace_s": 60})), (201, ""))
        .await;
    assert_eq!(
        (&new["replaces"], &new["scopes"], &new["calls_per_second"]),
        (&json!(id), &json!(["read"]), &json!(3))
    );
    assert!(
        app.store.authenticate(text).is_ok(),
        "the old one goes on for its time of grace"
    );
    assert_eq!(
        app.call(admin, ("GET", &one, Value::Null), OK).await["replaced_by"],
        new["id"]
    );
    let again = app
        .call(
            admin,
            ("POST", &rotate, json!({"grace_s": 60})),
            (409, "illegal_transition"),
        )
        .await;
    let next = new["id"].as_str().unwrap();
    assert!(again["detail"].as_str().unwrap().contains(next), "{again}");
    assert_eq!(
        new["expires"],
        Value::Null,
        "the new one does not end with the old one"
    );
    app.clock.pass(60_000_000);
    assert!(app.store.authenticate(text).is_err());
    assert!(app.store.authenticate(new["key"].as_str().unwrap()).is_ok());
    app.call(admin, ("POST", &rotate, Value::Null), (409, "illegal_transition"))
        .await;

    let new_path = format!("/v1/keys/{}", new["id"].as_str().unwrap());
    app.call(admin, ("DELETE", &new_path, Value::Null), (204, ""))
        .await;
    assert!(app.store.authenticate(new["key"].as_str().unwrap()).is_err());
    app.call(
        admin,
        ("DELETE", &new_path, Value::Null),
        (409, "illegal_transition"),
    )
    .await;
    app.call(
        admin,
        ("DELETE", "/v1/keys/none", Value::Null),
        (404, "not_found"),
    )
    .await;
}

#[tokio::test]
async fn nobody_can_lock_a_tenant_out_or_reach_another_ones_keys() {
    let app = App::start().await;
    let other = app.tenant(json!({"key": "b"})).await;
    let other_id = app.store.authenticate(&other).unwrap().id.clone();
    let own = format!("/v1/keys/{other_id}");
    app.call(&other, ("DELETE", &own, Value::Null), (409, "in_use"))
        .await;
    app.call(&app.admin, ("GET", &own, Value::Null), (404, "not_found"))
        .await;
    app.call(&app.admin, ("DELETE", &own, Value::Null), (404, "not_found"))
        .await;
    let ending = json!({"scopes": ["admin"], "expires": "2027-01-01T00:00:00Z"});
    app.call(&other, ("POST", "/v1/keys", ending), (201, "")).await;
    app.call(&other, ("DELETE", &own, Value::Null), (409, "in_use"))
        .await;
    let second = json!({"scopes": ["admin"], "tenant": "b"});
    app.call(&app.admin, ("POST", "/v1/keys", second), (201, ""))
        .await;
    app.call(&other, ("DELETE", &own, Value::Null), (204, "")).await;
    let list = app
        .call(&app.admin, ("GET", "/v1/keys?tenant=b&limit=2", Value::Null), OK)
        .await;
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    let next = format!(
        "/v1/keys?tenant=b&cursor={}",
        list["next_cursor"].as_str().unwrap()
    );
    let rest = app.call(&app.admin, ("GET", &next, Value::Null), OK).await;
    assert_eq!(
        (rest["data"].as_array().unwrap().len(), &rest["next_cursor"]),
        (1, &Value::Null)
    );
    for wrong in [
        json!({"scopes": []}),
        json!({"scopes": ["all"]}),
        json!({"scopes": ["read"], "expires": "2020-01-01T00:00:00Z"}),
    ] {
        app.call(&app.admin, ("POST", "/v1/keys", wrong), (422, "invalid"))
            .await;
    }
    app.call(
        &app.admin,
        ("GET", "/v1/keys?cursor=none", Value::Null),
        (422, "invalid"),
    )
    .await;
}

#[tokio::test]
async fn the_audit_log_tells_changes_and_misuse_and_is_exported_whole() {
    let app = App::start().await;
    let admin = app.admin.as_str();
    let other = app.tenant(json!({"key": "b"})).await;
    let made = app
        .call(
            admin,
            ("POST", "/v1/keys", json!({"scopes": ["read"]})),
            (201, ""),
        )
        .await;
    app.store.note_security(SecurityEvent {
        tenant: TenantId::DEFAULT,
        action: "security.wrong_key",
        actor: "-".to_owned(),
        object: "GET /v1/plans".to_owned(),
        client: Some([192, 0, 2, 1].into()),
    });
    app.store.flush_security().await.unwrap();
    let all = app.call(admin, ("GET", "/v1/audit", Value::Null), OK).await;
    let actions: Vec<_> = all["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        [
            "security.wrong_key",
            "key.create",
            "tenant.create",
            "tenant.create"
        ]
    );
    let text = all.to_string();
    assert!(
        !text.contains(made["key"].as_str().unwrap()) && !text.contains(&other),
        "a secret is in the log"
    );
    let page = app
        .call(admin, ("GET", "/v1/audit?action=tenant&limit=1", Value::Null), OK)
        .await;
    assert_eq!(page["data"][0]["object"], "tenant/b");
    let next = format!(
        "/v1/audit?action=tenant&limit=1&cursor={}",
        page["next_cursor"].as_str().unwrap()
    );
    let page = app.call(admin, ("GET", &next, Value::Null), OK).await;
    assert_eq!(
        (&page["data"][0]["object"], &page["next_cursor"]),
        (&json!("tenant/default"), &Value::Null)
    );
    assert_eq!(
        app.call(&other, ("GET", "/v1/audit", Value::Null), OK).await["data"],
        json!([])
    );
    for wrong in [
        "/v1/audit?cursor=x",
        "/v1/audit?from=soon",
        "/v1/export/audit?format=xml",
    ] {
        app.call(admin, ("GET", wrong, Value::Null), (422, "invalid"))
            .await;
    }
    let (status, csv) = app
        .bytes(admin, ("GET", "/v1/export/audit", Value::Null), None)
        .await;
    let csv = String::from_utf8(csv).unwrap();
    assert_eq!((status, csv.lines().count()), (200, 5));
    assert!(
        csv.starts_with("id,at,actor,request_id,action,object,detail\n"),
        "{csv}"
    );
    let (_, lines) = app
        .bytes(
            admin,
            ("GET", "/v1/export/audit?format=ndjson&action=key", Value::Null),
            None,
        )
        .await;
    let line: Value = serde_json::from_slice(&lines).unwrap();
    assert_eq!(line["object"], format!("key/{}", made["id"].as_str().unwrap()));
}
