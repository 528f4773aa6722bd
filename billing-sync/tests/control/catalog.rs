use serde_json::{Value, json};
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::port::directory::Directory as _;
use turnpike_stores::fault::FailPoints;
use turnpike_stores::sql::SqlPlace;

use crate::app::{App, more, pro, tokens};

#[tokio::test]
async fn a_catalog_is_put_listed_and_taken_away() {
    let app = App::with_catalog().await;
    let plan = app.get("/v1/plans/pro").await.is(200, "");
    assert_eq!(
        (&plan["version"], &plan["name"], &plan["interval"]),
        (&json!(1), &json!("pro"), &json!("month"))
    );
    assert_eq!(
        app.get("/v1/meters").await.is(200, "")["data"][0]["event_type"],
        "llm.request"
    );
    app.delete("/v1/add-ons/more").await.is(204, "");
    app.get("/v1/add-ons/more").await.is(404, "not_found");
    app.delete("/v1/add-ons/more").await.is(404, "not_found");
    let again = app.put("/v1/add-ons/more", more()).await.is(201, "");
    assert_eq!(again["version"], 2, "versions are never given twice");
}

#[tokio::test]
async fn a_definition_never_changes_and_a_plan_gets_versions() {
    let app = App::with_catalog().await;
    app.put("/v1/meters/tokens", tokens()).await.is(200, "");
    let shown = app.get("/v1/meters/tokens").await.is(200, "");
    assert_eq!(shown["event_type"], tokens()["event_type"]);
    let backfill = json!({"complete": false, "total_bytes": 40, "done_bytes": 30});
    assert_eq!(shown["backfill"], backfill);
    let mut other = tokens();
    other["value"] = json!("$.other");
    app.put("/v1/meters/tokens", other).await.is(409, "immutable");

    assert_eq!(app.put("/v1/plans/pro", pro()).await.is(200, "")["version"], 1);
    let mut changed = pro();
    changed["prices"][0]["amount"] = json!("30");
    assert_eq!(
        app.put("/v1/plans/pro", changed.clone()).await.is(200, "")["version"],
        2
    );
    changed["minimum_commitment"] = json!(100);
    assert_eq!(
        app.put("/v1/plans/pro", changed.clone()).await.is(200, "")["version"],
        3
    );
    changed["minimum_commitment"] = json!("100.00");
    assert_eq!(
        app.put("/v1/plans/pro", changed).await.is(200, "")["version"],
        3,
        "the same amount is no change"
    );
    for (version, amount) in [(1, "29"), (2, "30")] {
        let path = format!("/v1/plans/pro?version={version}");
        let plan = app.get(&path).await.is(200, "");
        let shown = plan["prices"][0]["amount"]
            .as_str()
            .unwrap()
            .trim_end_matches(".00");
        assert_eq!((&plan["version"], shown), (&json!(version), amount), "{plan}");
    }
    app.get("/v1/plans/pro?version=4").await.is(404, "not_found");
    let plan = app.get("/v1/plans/pro").await.is(200, "");
    assert_eq!(
        app.put("/v1/plans/pro", plan).await.is(200, "")["version"],
        3,
        "what was got can be put"
    );
}

#[tokio::test]
async fn what_is_used_stays() {
    let app = App::with_catalog().await;
    app.delete("/v1/meters/tokens").await.is(409, "in_use");
    app.delete("/v1/features/sso").await.is(409, "in_use");
    app.put("/v1/features/sso", json!({"kind": "static"}))
        .await
        .is(409, "in_use");
    let subscription = json!({"customer": "acme", "plan": "pro", "add_ons": ["more"]});
    app.post("/v1/subscriptions", subscription).await.is(201, "");
    app.delete("/v1/plans/pro").await.is(409, "in_use");
    app.delete("/v1/add-ons/more").await.is(409, "in_use");
    // A version that a subscription runs on keeps its features, when the current one no longer names them.
    app.put("/v1/plans/pro", json!({"currency": "USD"}))
        .await
        .is(200, "");
    app.delete("/v1/features/sso").await.is(409, "in_use");
    app.put("/v1/features/alone", json!({"kind": "boolean"}))
        .await
        .is(201, "");
    app.put("/v1/customers/acme/overrides/alone", json!({}))
        .await
        .is(201, "");
    app.delete("/v1/features/alone").await.is(409, "in_use");
    app.delete("/v1/customers/acme/overrides/alone").await.is(204, "");
    app.delete("/v1/features/alone").await.is(204, "");
}

#[tokio::test]
async fn nonsense_is_refused_with_a_pointer() {
    let app = App::with_catalog().await;
    let plan = |change: fn(&mut Value)| {
        let mut plan = pro();
        change(&mut plan);
        plan
    };
    for (path, body, pointer) in [
        ("/v1/features/f", json!({"kind": "metered"}), "/meter"),
        (
            "/v1/features/f",
            json!({"kind": "metered", "meter": "none"}),
            "/meter",
        ),
        (
            "/v1/features/f",
            json!({"kind": "boolean", "meter": "tokens"}),
            "/meter",
        ),
        ("/v1/features/f", json!({"kind": "odd"}), "/kind"),
        ("/v1/features/f", json!({"kind": 5}), "/kind"),
        ("/v1/features/f", json!({"kind": null}), "/kind"),
        (
            "/v1/meters/m",
            json!({"event_type": "e", "aggregation": []}),
            "/aggregation",
        ),
        ("/v1/plans/p", plan(|p| p["interval"] = json!({})), "/interval"),
        (
            "/v1/plans/p",
            plan(|p| p["prices"][1]["model"] = json!(5)),
            "/prices/1/model",
        ),
        (
            "/v1/plans/p",
            plan(|p| p["prices"][0]["timing"] = json!(5)),
            "/prices/0/timing",
        ),
        (
            "/v1/plans/p",
            plan(|p| p["entitlements"][0]["limits"][0]["period"] = json!(5)),
            "/entitlements/0/limits/0/period",
        ),
        (
            "/v1/plans/p",
            plan(|p| p["entitlements"][0]["limits"][0]["mode"] = json!([])),
            "/entitlements/0/limits/0/mode",
        ),
        ("/v1/features/f", json!({"kind": "boolean", "key": "g"}), "/key"),
        ("/v1/features/a%20b", json!({"kind": "boolean"}), "/key"),
        ("/v1/features/f", json!({"kind": "boolean", "odd": 1}), ""),
        (
            "/v1/meters/m",
            json!({"event_type": "e", "aggregation": "sum"}),
            "/value",
        ),
        (
            "/v1/plans/p",
            plan(|p| p["entitlements"][0]["feature"] = json!("none")),
            "/entitlements/0/feature",
        ),
        (
            "/v1/plans/p",
            plan(|p| p["entitlements"][1]["value"] = json!("5")),
            "/entitlements/1/value",
        ),
        (
            "/v1/plans/p",
            plan(|p| p["entitlements"][1]["feature"] = json!("tokens")),
            "/entitlements/1/feature",
        ),
        (
            "/v1/plans/p",
            plan(|p| p["entitlements"][0]["limits"][0]["limit"] = json!("-1")),
            "/entitlements/0/limits/0/limit",
        ),
        (
            "/v1/plans/p",
            plan(|p| p["prices"][1]["meter"] = json!("none")),
            "/prices/1/meter",
        ),
        (
            "/v1/plans/p",
            plan(|p| p["prices"][0]["amount"] = json!("29.001")),
            "/prices/0/amount",
        ),
        (
            "/v1/plans/p",
            plan(|p| p["prices"][0]["key"] = json!("tokens")),
            "/prices/1/key",
        ),
        (
            "/v1/plans/p",
            plan(|p| p["prices_by_currency"] = json!({"USD": []})),
            "/prices_by_currency/USD",
        ),
        (
            "/v1/plans/p",
            plan(|p| p["prices_by_currency"] = json!({"usd": []})),
            "/prices_by_currency/usd",
        ),
        (
            "/v1/plans/p",
            plan(|p| p["interval_count"] = json!(0)),
            "/interval_count",
        ),
        (
            "/v1/plans/p",
            plan(|p| p["minimum_commitment"] = json!("0.001")),
            "/minimum_commitment",
        ),
        (
            "/v1/plans/p",
            plan(|p| p["credits"] = json!({"amount": "10.00", "expires_after_days": 30})),
            "/credits",
        ),
        (
            "/v1/plans/p",
            plan(|p| p["minimum_commitment"] = json!("-1e2")),
            "/minimum_commitment",
        ),
        (
            "/v1/plans/p",
            plan(|p| {
                p["prices"][1] =
                    json!({"key": "share", "meter": "tokens", "model": "percentage", "rate_percent": "1"});
            }),
            "/prices/1/model",
        ),
        (
            "/v1/add-ons/a",
            json!({"currency": "USD", "prices": [
                {"key": "share", "meter": "tokens", "model": "percentage", "rate_percent": "1"}]}),
            "/prices/0/model",
        ),
        ("/v1/plans/p", plan(|p| p["currency"] = json!("usd")), "/currency"),
    ] {
        let problem = app.put(path, body.clone()).await.is(422, "invalid");
        let pointers: Vec<_> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| &e["pointer"])
            .collect();
        assert!(
            pointers.iter().any(|p| p.as_str().unwrap().starts_with(pointer)),
            "{path} {body}: {problem}"
        );
    }
    app.get("/v1/meters?limit=0").await.is(422, "invalid");
    app.get("/v1/meters?limit=1001").await.is(422, "invalid");
}

fn document() -> Value {
    json!({
        "meters": [{"key": "calls", "event_type": "api", "aggregation": "count"}],
        "features": [{"key": "calls", "kind": "metered", "meter": "calls"}],
        "plans": [{"key": "free", "currency": "USD", "entitlements": [{"feature": "calls", "limits": [{"limit": 10}]}]}],
        "add_ons": [],
    })
}

#[tokio::test]
async fn a_whole_catalog_is_compared_and_applied_at_once() {
    let app = App::start().await;
    let mut far = document();
    for (version, status, code) in [
        (json!(u64::MAX / 2), 200, ""),
        (json!(u64::MAX / 2 + 1), 422, "invalid"),
        (json!(-1), 422, "invalid"),
    ] {
        far["version"] = version;
        let answer = app.post("/v1/catalog/diff", far.clone()).await.is(status, code);
        if status == 422 {
            assert_eq!(answer["errors"][0]["pointer"], "/version", "{far}");
        }
    }
    let diff = app.post("/v1/catalog/diff", document()).await.is(200, "");
    assert_eq!(
        (&diff["version"], diff["created"].as_array().unwrap().len()),
        (&json!(0), 3)
    );
    app.get("/v1/meters/calls").await.is(404, "not_found");
    let applied = app.post("/v1/catalog/apply", document()).await.is(200, "");
    assert_eq!(applied["version"], 1);
    let same = app.post("/v1/catalog/apply", document()).await.is(200, "");
    assert_eq!(
        (&same["version"], same["unchanged"].as_array().unwrap().len()),
        (&json!(1), 3)
    );

    let mut changed = document();
    changed["plans"][0]["name"] = json!("Free");
    changed["plans"][0]["entitlements"] = json!([]);
    changed["features"] = json!([]);
    let diff = app.post("/v1/catalog/diff", changed.clone()).await.is(200, "");
    assert_eq!(diff["removed"], json!([{"kind": "feature", "key": "calls"}]));
    assert_eq!(diff["changed"][0]["version"], 2);
    let pointers: Vec<_> = diff["changed"][0]["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["pointer"])
        .collect();
    assert_eq!(pointers, ["/name", "/entitlements"]);
    changed["expected_version"] = json!(7);
    app.post("/v1/catalog/apply", changed.clone())
        .await
        .is(409, "catalog_changed");
    changed["expected_version"] = json!(1);
    app.post("/v1/catalog/apply", changed).await.is(200, "");
    let whole = app.get("/v1/catalog").await.is(200, "");
    let back = app.post("/v1/catalog/diff", whole.clone()).await.is(200, "");
    assert_eq!(
        back["changed"],
        json!([]),
        "what is shown can be sent back: {back}"
    );
    assert_eq!(
        (&whole["version"], &whole["plans"][0]["version"]),
        (&json!(2), &json!(2))
    );
}

#[tokio::test]
async fn a_catalog_that_is_wrong_anywhere_is_not_applied_at_all() {
    let app = App::start().await;
    let mut wrong = document();
    wrong["plans"][0]["entitlements"][0]["feature"] = json!("none");
    let problem = app.post("/v1/catalog/apply", wrong).await.is(422, "invalid");
    assert_eq!(problem["errors"][0]["pointer"], "/plans/0/entitlements/0/feature");
    let mut twice = document();
    twice["features"] = json!([document()["features"][0], document()["features"][0]]);
    app.post("/v1/catalog/apply", twice).await.is(422, "invalid");
    app.get("/v1/meters/calls").await.is(404, "not_found");

    app.post("/v1/catalog/apply", document()).await.is(200, "");
    let mut other = document();
    other["meters"][0]["event_type"] = json!("other");
    app.post("/v1/catalog/apply", other).await.is(409, "immutable");
    app.put("/v1/customers/acme", json!({})).await.is(201, "");
    app.post("/v1/subscriptions", json!({"customer": "acme", "plan": "free"}))
        .await
        .is(201, "");
    app.post("/v1/catalog/apply", json!({})).await.is(409, "in_use");
    app.get("/v1/meters/calls").await.is(200, "");
}

#[tokio::test]
async fn a_difference_is_shown_while_a_change_is_being_written() {
    let app = App::start().await;
    let app = &app;
    app.post("/v1/catalog/apply", document()).await.is(200, "");
    let (entered, is_in) = tokio::sync::oneshot::channel();
    let (leave, may_leave) = std::sync::mpsc::channel::<()>();
    let store = app.store.clone();
    let change = turnpike_stores::contract::control::change(TenantId::DEFAULT, None);
    let writing = std::thread::spawn(move || {
        let decide = Box::new(move |_: &dyn turnpike_domain::port::control::ControlState| {
            entered.send(()).unwrap();
            may_leave.recv().unwrap();
            Ok(turnpike_domain::port::control::Decision::unchanged(Value::Null))
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime
            .block_on(turnpike_domain::port::control::ControlStore::change(
                &store, change, decide,
            ))
            .unwrap();
    });
    is_in.await.unwrap();
    let diff = app.post("/v1/catalog/diff", document()).await.is(200, "");
    assert_eq!(diff["created"], json!([]));
    leave.send(()).unwrap();
    writing.join().unwrap();
}

#[tokio::test]
async fn a_crash_inside_an_application_leaves_the_old_catalog() {
    let directory = tempfile::tempdir().unwrap();
    let place = SqlPlace::File(directory.path().join("control.sqlite"));
    // The first commit is that of the first start.
    let app = App::on(&place, FailPoints::parse("sql.before_commit:2:error").unwrap()).await;
    app.post("/v1/catalog/apply", document())
        .await
        .is(503, "unavailable");
    app.get("/v1/meters/calls").await.is(404, "not_found");
    assert_eq!(app.store.catalog(TenantId::DEFAULT).version, 0);
    app.post("/v1/catalog/apply", document()).await.is(200, "");
    app.store.close().await.unwrap();
    drop(app);
    let again = App::on(&place, FailPoints::default()).await;
    let plan = again.get("/v1/plans/free").await.is(200, "");
    assert_eq!(plan["entitlements"][0]["limits"][0]["limit"], "10");
}

#[tokio::test]
async fn a_repeat_answers_as_first() {
    let app = App::start().await;
    let feature = json!({"kind": "boolean"});
    let call = |body| app.call_once("PUT", "/v1/features/f", body, Some("once"));
    let first = call(feature.clone()).await;
    assert_eq!((first.status, first.replayed), (201, false));
    app.put("/v1/features/f", json!({"kind": "boolean", "name": "Later"}))
        .await
        .is(200, "");
    let again = call(feature).await;
    assert_eq!(
        (again.status, again.replayed, &again.body),
        (201, true, &first.body)
    );
    assert_eq!(app.get("/v1/features/f").await.body["name"], "Later");
    call(json!({"kind": "static"}))
        .await
        .is(409, "idempotency_conflict");
}

#[tokio::test]
async fn scopes_are_asked_for() {
    let app = App::with_catalog().await;
    for (scope, method, path, status) in [
        (Scope::Ingest, "GET", "/v1/plans", 403),
        (Scope::Read, "GET", "/v1/plans", 200),
        (Scope::Billing, "DELETE", "/v1/plans/pro", 403),
        (Scope::Read, "DELETE", "/v1/customers/acme", 403),
        (Scope::Read, "POST", "/v1/subscriptions/x/pause", 403),
        (Scope::Billing, "POST", "/v1/subscriptions/x/pause", 404),
        (Scope::Billing, "DELETE", "/v1/customers/acme", 204),
    ] {
        let request = axum::extract::Request::builder().method(method).uri(path);
        let reply = app
            .send(scope, request.body(axum::body::Body::empty()).unwrap())
            .await;
        assert_eq!(reply.status, status, "{method} {path}");
    }
}

#[tokio::test]
async fn lists_go_on_where_the_page_before_ended() {
    let app = App::start().await;
    for n in 0..5 {
        app.put(&format!("/v1/features/f{n}"), json!({"kind": "boolean"}))
            .await
            .is(201, "");
    }
    let mut keys = Vec::new();
    let mut path = "/v1/features?limit=2".to_owned();
    loop {
        let page = app.get(&path).await.is(200, "");
        keys.extend(
            page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["key"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/v1/features?limit=2&cursor={cursor}");
        app.delete("/v1/features/f0").await;
    }
    assert_eq!(keys, ["f0", "f1", "f2", "f3", "f4"]);
}
