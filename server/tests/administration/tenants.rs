//! Tenants and their test clocks.

use serde_json::{Value, json};

use crate::app::{App, OK, at};

#[tokio::test]
async fn tenants_are_administered_by_the_default_one_only() {
    let app = App::start().await;
    let other = app
        .tenant(json!({"key": "b", "timezone": "Europe/Berlin", "calls_per_second": 5}))
        .await;
    let forbidden = (403, "forbidden");
    for request in [
        ("GET", "/v1/tenants", Value::Null),
        ("GET", "/v1/tenants/b", Value::Null),
        ("POST", "/v1/tenants", json!({"key": "c"})),
        ("PUT", "/v1/tenants/b", json!({})),
        ("POST", "/v1/tenants/default/suspend", Value::Null),
        (
            "POST",
            "/v1/keys",
            json!({"scopes": ["read"], "tenant": "default"}),
        ),
        ("GET", "/v1/keys?tenant=default", Value::Null),
    ] {
        app.call(&other, request, forbidden).await;
    }
    let admin = app.admin.as_str();
    app.call(
        admin,
        ("POST", "/v1/tenants", json!({"key": "b"})),
        (409, "already_exists"),
    )
    .await;
    for wrong in [
        json!({"key": "a b"}),
        json!({"key": "c", "timezone": "Mars"}),
        json!({"key": "c", "clock": "2026-01-01T00:00:00Z"}),
        json!({"key": "c", "calls_per_second": 0}),
        json!({"key": "c", "odd": 1}),
    ] {
        app.call(admin, ("POST", "/v1/tenants", wrong), (422, "invalid"))
            .await;
    }
    let list = app
        .call(admin, ("GET", "/v1/tenants?limit=1", Value::Null), OK)
        .await;
    assert_eq!(
        (&list["data"][0]["key"], list["next_cursor"].is_string()),
        (&json!("b"), true)
    );
    assert_eq!(list["data"][0].get("api_key"), None);
    let behind = format!("/v1/tenants?cursor={}", list["next_cursor"].as_str().unwrap());
    let rest = app.call(admin, ("GET", &behind, Value::Null), OK).await;
    assert_eq!(
        (&rest["data"][0]["key"], &rest["next_cursor"]),
        (&json!("default"), &Value::Null)
    );
    app.call(
        admin,
        ("GET", "/v1/tenants/none", Value::Null),
        (404, "not_found"),
    )
    .await;
}

#[tokio::test]
async fn a_tenant_is_limited_and_suspended_but_never_the_default_one() {
    let app = App::start().await;
    app.tenant(json!({"key": "b"})).await;
    let admin = app.admin.as_str();
    let limited = app
        .call(
            admin,
            ("PUT", "/v1/tenants/b", json!({"calls_per_second": 7})),
            OK,
        )
        .await;
    assert_eq!(
        (&limited["calls_per_second"], &limited["name"]),
        (&json!(7), &json!("b"))
    );
    let sent_back = app
        .call(admin, ("PUT", "/v1/tenants/b", limited.clone()), OK)
        .await;
    assert_eq!(sent_back, limited, "an answer can be sent as it is");
    for (field, value) in [
        ("test", json!(true)),
        ("suspended", json!(true)),
        ("clock", json!("2026-01-01T00:00:00Z")),
    ] {
        let mut other = limited.clone();
        other[field] = value;
        let refused = app
            .call(admin, ("PUT", "/v1/tenants/b", other), (422, "invalid"))
            .await;
        assert_eq!(refused["errors"][0]["pointer"], format!("/{field}"));
    }
    let suspended = app
        .call(admin, ("POST", "/v1/tenants/b/suspend", Value::Null), OK)
        .await;
    assert_eq!(
        (&suspended["suspended"], &suspended["calls_per_second"]),
        (&json!(true), &json!(7))
    );
    let resumed = app
        .call(admin, ("POST", "/v1/tenants/b/resume", Value::Null), OK)
        .await;
    assert_eq!(resumed["suspended"], false);
    let refused = (409, "illegal_transition");
    app.call(
        admin,
        ("POST", "/v1/tenants/default/suspend", Value::Null),
        refused,
    )
    .await;
    app.call(
        admin,
        ("POST", "/v1/tenants/none/suspend", Value::Null),
        (404, "not_found"),
    )
    .await;
    app.call(
        admin,
        ("PUT", "/v1/tenants/b", json!({"key": "c"})),
        (422, "invalid"),
    )
    .await;
}

#[tokio::test]
async fn a_test_clock_moves_forward_and_does_what_is_due_at_its_instant() {
    let app = App::start().await;
    let lab = app
        .tenant(json!({"key": "lab", "test": true, "clock": "2026-01-30T12:00:00Z"}))
        .await;
    let now = async || app.call(&lab, ("GET", "/v1/test-clock", Value::Null), OK).await["now"].clone();
    assert_eq!(now().await, "2026-01-30T12:00:00Z");
    app.clock.pass(3_600_000_000);
    assert_eq!(now().await, "2026-01-30T12:00:00Z", "it stands still");
    let to = |to: &str| ("POST", "/v1/test-clock/advance", json!({ "to": to }));
    app.call(&lab, to("2026-01-30T11:59:59Z"), (422, "invalid")).await;
    app.call(&lab, to("2056-01-30T11:59:59Z"), (422, "invalid")).await;
    app.call(&lab, to("2026-02-02T06:00:00Z"), OK).await;
    let expected = [
        "2026-01-30T12:00:00Z",
        "2026-01-31T00:00:00Z",
        "2026-02-01T00:00:00Z",
        "2026-02-02T00:00:00Z",
        "2026-02-02T06:00:00Z",
    ];
    let ran: Vec<_> = app.due.ran.lock().drain(..).collect();
    assert_eq!(
        ran,
        expected.map(|text| (at(text), at(text))),
        "the clock shows the instant of what is done"
    );
    assert_eq!(now().await, "2026-02-02T06:00:00Z");

    *app.due.fails_at.lock() = Some(at("2026-02-04T00:00:00Z"));
    app.call(&lab, to("2026-02-06T00:00:00Z"), (503, "unavailable"))
        .await;
    assert_eq!(
        now().await,
        "2026-02-04T00:00:00Z",
        "it stands where the work failed"
    );
    app.call(&lab, to("2026-02-06T00:00:00Z"), OK).await;
    let ran = app
        .due
        .ran
        .lock()
        .iter()
        .map(|(at, _)| at.to_string())
        .collect::<Vec<_>>();
    assert!(
        ran.contains(&"2026-02-04T00:00:00Z".to_owned()),
        "what failed is done after all: {ran:?}"
    );

    *app.due.stuck_until.lock() = Some(at("2026-02-08T00:00:00Z"));
    let stuck = app.call(&lab, to("2026-02-07T12:00:00Z"), OK).await;
    let failure = json!({"subscription": "sub_1", "code": "not_found", "detail": "no such meter"});
    let expected = json!({"now": "2026-02-07T12:00:00Z", "failed": 1, "failures": [failure]});
    assert_eq!(stuck, expected, "the answer says what could not be done");
    let done = app.call(&lab, to("2026-02-08T12:00:00Z"), OK).await;
    assert_eq!((&done["failed"], &done["failures"]), (&json!(0), &json!([])));

    let missing = (404, "not_found");
    app.call(&app.admin, ("GET", "/v1/test-clock", Value::Null), missing)
        .await;
    app.call(&app.admin, to("2027-01-01T00:00:00Z"), missing).await;
}
