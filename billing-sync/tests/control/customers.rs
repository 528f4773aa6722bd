use serde_json::{Value, json};
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::directory::Directory as _;

use crate::app::App;

#[tokio::test]
async fn defaults_are_filled_in_and_what_was_got_can_be_put() {
    let app = App::start().await;
    let made = app.put("/v1/customers/acme", json!({})).await.is(201, "");
    assert_eq!(
        (&made["name"], &made["subjects"]),
        (&json!("acme"), &json!(["acme"]))
    );
    app.put("/v1/customers/acme", made.clone()).await.is(200, "");
    let odd =
        json!({"email": "a@b.c", "timezone": "Europe/Istanbul", "metadata": {"crm": "7"}, "currency": "EUR"});
    app.put("/v1/customers/acme", odd).await.is(200, "");
    let got = app.get("/v1/customers/acme").await.is(200, "");
    assert_eq!(
        (&got["timezone"], &got["currency"]),
        (&json!("Europe/Istanbul"), &json!("EUR"))
    );
    assert_eq!(app.get("/v1/customers").await.is(200, "")["data"], json!([got]));
    app.get("/v1/customers/none").await.is(404, "not_found");
}

#[tokio::test]
async fn a_subject_belongs_to_one_customer_and_can_move() {
    let app = App::start().await;
    app.put("/v1/customers/a", json!({"subjects": ["a", "shared"]}))
        .await
        .is(201, "");
    let taken = app
        .put("/v1/customers/b", json!({"subjects": ["b", "shared"]}))
        .await
        .is(409, "already_exists");
    assert_eq!(taken["errors"][0]["pointer"], "/subjects/1");
    app.get("/v1/customers/b").await.is(404, "not_found");
    app.put("/v1/customers/a", json!({"subjects": ["a"]}))
        .await
        .is(200, "");
    app.put("/v1/customers/b", json!({"subjects": ["b", "shared"]}))
        .await
        .is(201, "");
    // A key that another has as its subject is no default subject.
    app.put("/v1/customers/shared", json!({}))
        .await
        .is(409, "already_exists");
    app.delete("/v1/customers/b").await.is(204, "");
    app.put("/v1/customers/shared", json!({})).await.is(201, "");
}

#[tokio::test]
async fn parents_make_no_circle_and_a_move_is_dated() {
    let app = App::start().await;
    app.put("/v1/customers/org", json!({})).await.is(201, "");
    let made = app
        .put("/v1/customers/team", json!({"parent": "org"}))
        .await
        .is(201, "");
    assert_eq!(made.get("parent_since"), None, "it never was without this parent");
    app.put("/v1/customers/user", json!({"parent": "team"}))
        .await
        .is(201, "");
    for parent in ["org", "team", "user"] {
        let circle = app
            .put("/v1/customers/org", json!({ "parent": parent }))
            .await
            .is(422, "invalid");
        assert_eq!(circle["errors"][0]["pointer"], "/parent");
    }
    app.put("/v1/customers/org", json!({"parent": "none"}))
        .await
        .is(422, "invalid");
    app.put("/v1/customers/new", json!({})).await.is(201, "");
    let moved = app
        .put("/v1/customers/user", json!({"parent": "new"}))
        .await
        .is(200, "");
    assert_eq!(moved["parent_since"], "2026-01-15T10:00:00Z", "cut to its minute");
    app.clock.pass(3_600_000_000);
    let kept = app
        .put("/v1/customers/user", json!({"parent": "new", "name": "U"}))
        .await
        .is(200, "");
    assert_eq!(kept["parent_since"], "2026-01-15T10:00:00Z");
    app.delete("/v1/customers/new").await.is(409, "in_use");
}

#[tokio::test]
async fn parents_are_kept_and_cannot_be_told_by_callers() {
    let app = App::start().await;
    for key in ["a", "b"] {
        app.put(&format!("/v1/customers/{key}"), json!({}))
            .await
            .is(201, "");
    }
    let forged = json!([{"parent": "b", "until": "2030-01-01T00:00:00Z"}]);
    let made = app
        .put(
            "/v1/customers/c",
            json!({"parent": "a", "former_parents": forged}),
        )
        .await
        .is(201, "");
    assert_eq!(made.get("former_parents"), None);
    let moved = app
        .put("/v1/customers/c", json!({"parent": "b"}))
        .await
        .is(200, "");
    let first = json!({"parent": "a", "until": "2026-01-15T10:00:00Z"});
    assert_eq!(moved["former_parents"], json!([first]));
    app.clock.pass(3_600_000_000);
    let forged = json!({"former_parents": [], "parent_since": "2020-01-01T00:00:00Z"});
    let alone = app.put("/v1/customers/c", forged).await.is(200, "");
    let second = json!({"parent": "b", "since": "2026-01-15T10:00:00Z", "until": "2026-01-15T11:00:00Z"});
    assert_eq!(
        (
            &alone["former_parents"],
            &alone["parent"],
            alone.get("parent_since")
        ),
        (&json!([first, second]), &Value::Null, None)
    );
    // What GET shows can be sent back.
    let back = app.put("/v1/customers/c", alone.clone()).await.is(200, "");
    assert_eq!(back, alone);
    // One that usage was counted for, or whose usage was counted above it, keeps its key.
    app.delete("/v1/customers/a").await.is(204, "");
    app.put("/v1/customers/a", json!({}))
        .await
        .is(409, "already_exists");
    app.delete("/v1/customers/c").await.is(204, "");
    app.get("/v1/customers/c").await.is(404, "not_found");
    let left = app.store.customer(TenantId::DEFAULT, "c").unwrap();
    assert_eq!((left.name.as_str(), left.parents().count()), ("erased", 2));
}

#[tokio::test]
async fn levels_are_bounded_also_from_below() {
    let app = App::start().await;
    app.put("/v1/customers/c1", json!({})).await.is(201, "");
    for n in 2..=8 {
        let parent = format!("c{}", n - 1);
        app.put(&format!("/v1/customers/c{n}"), json!({ "parent": parent }))
            .await
            .is(201, "");
    }
    app.put("/v1/customers/c9", json!({"parent": "c8"}))
        .await
        .is(422, "invalid");
    app.put("/v1/customers/top", json!({})).await.is(201, "");
    app.put("/v1/customers/c1", json!({"parent": "top"}))
        .await
        .is(422, "invalid");
}

#[tokio::test]
async fn nonsense_is_refused_with_a_pointer() {
    let app = App::start().await;
    for (body, pointer) in [
        (json!({"timezone": "Mars/Olympus"}), "/timezone"),
        (json!({"email": "nobody"}), "/email"),
        (json!({"currency": "usd"}), "/currency"),
        (json!({"subjects": [""]}), "/subjects/0"),
        (json!({"subjects": ["x", "x"]}), "/subjects/1"),
        (json!({"metadata": {"": "x"}}), "/metadata"),
        (json!({"metadata": {"k": "x".repeat(1001)}}), "/metadata/k"),
        (json!({"name": "x".repeat(513)}), "/name"),
        (json!({"key": "other"}), "/key"),
    ] {
        let problem = app
            .put("/v1/customers/acme", body.clone())
            .await
            .is(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    app.put("/v1/customers/acme", json!({"odd": 1}))
        .await
        .is(422, "invalid");
}

#[tokio::test]
async fn erasing_keeps_what_was_billed_and_nothing_of_the_person() {
    let app = App::with_catalog().await;
    let person = json!({"name": "Jane", "email": "jane@example.org", "metadata": {"phone": "1"}});
    app.call_once("PUT", "/v1/customers/jane", person.clone(), Some("jane"))
        .await
        .is(201, "");
    let made = app
        .post("/v1/subscriptions", json!({"customer": "jane", "plan": "pro"}))
        .await
        .is(201, "");
    app.delete("/v1/customers/jane").await.is(409, "in_use");
    app.clock.pass(3_600_000_000);
    let id = made["id"].as_str().unwrap();
    app.post(&format!("/v1/subscriptions/{id}/cancel"), json!({"at": "now"}))
        .await
        .is(200, "");
    app.delete("/v1/customers/jane").await.is(204, "");
    app.get("/v1/customers/jane").await.is(404, "not_found");
    app.delete("/v1/customers/jane").await.is(404, "not_found");
    assert!(!app.get("/v1/customers").await.body.to_string().contains("jane"));
    app.get(&format!("/v1/subscriptions/{id}")).await.is(200, "");
    // Neither a repeat of the call nor a new one brings her back.
    app.call_once("PUT", "/v1/customers/jane", person.clone(), Some("jane"))
        .await
        .is(409, "already_exists");
    // One without subscriptions is gone altogether.
    app.put("/v1/customers/joe", person.clone()).await.is(201, "");
    app.delete("/v1/customers/joe").await.is(204, "");
    app.put("/v1/customers/joe", person).await.is(201, "");
}

#[tokio::test]
async fn overrides_are_kept_and_cannot_be_told_by_callers() {
    let app = App::with_catalog().await;
    let path = "/v1/customers/acme/overrides/tokens";
    let limits = |limit: &str| json!([{"limit": limit, "period": "day", "mode": "hard"}]);
    let forged = json!({"limits": limits("5"), "since": "2020-01-01T00:00:00Z"});
    let made = app.put(path, forged.clone()).await.is(201, "");
    assert_eq!(made["since"], "2026-01-15T10:00:00Z", "cut to its minute");
    app.clock.pass(3_600_000_000);
    assert_eq!(app.put(path, forged).await.is(200, ""), made, "nothing changed");
    app.put(path, json!({"limits": limits("6")})).await.is(200, "");
    // One that does not stand for a minute leaves no trace.
    app.put(path, json!({"revoked": true})).await.is(200, "");
    app.clock.pass(3_600_000_000);
    app.delete(path).await.is(204, "");
    let customer = app.get("/v1/customers/acme").await.is(200, "");
    let mut first = made.clone();
    first["until"] = "2026-01-15T11:00:00Z".into();
    let former = customer["former_overrides"].as_array().unwrap();
    assert_eq!((former.len(), &former[0]), (2, &first));
    assert_eq!(
        (&former[1]["revoked"], &former[1]["since"], &former[1]["until"]),
        (
            &json!(true),
            &json!("2026-01-15T11:00:00Z"),
            &json!("2026-01-15T12:00:00Z")
        )
    );
    // What GET shows can be sent back, and what is sent instead changes nothing of it.
    let back = app.put("/v1/customers/acme", customer.clone()).await.is(200, "");
    assert_eq!(back, customer);
    let mut without = customer.clone();
    without.as_object_mut().unwrap().remove("former_overrides");
    assert_eq!(app.put("/v1/customers/acme", without).await.is(200, ""), customer);
    let new = json!({ "former_overrides": former });
    let made = app.put("/v1/customers/fresh", new).await.is(201, "");
    assert_eq!(made.get("former_overrides"), None);
}

#[tokio::test]
async fn grants_that_were_taken_back_are_kept_and_cannot_be_told_by_callers() {
    let app = App::with_catalog().await;
    let path = "/v1/customers/acme/grants/g";
    let end = "2026-02-01T00:00:00Z";
    let body = json!({"feature": "tokens", "amount": "5", "expires_at": end, "deleted_at": end});
    let made = app.put(path, body.clone()).await.is(201, "");
    assert_eq!(made.get("deleted_at"), None);
    app.clock.pass(3_600_000_000);
    app.delete(path).await.is(204, "");
    app.get(path).await.is(404, "not_found");
    let list = app.get("/v1/customers/acme/grants").await.is(200, "");
    assert_eq!(list["data"], json!([]));
    let customer = app.get("/v1/customers/acme").await.is(200, "");
    let mut ended = made.clone();
    ended["deleted_at"] = "2026-01-15T11:00:00Z".into();
    assert_eq!(customer["former_grants"], json!([ended]));
    // One that did not count for a minute leaves no trace, and the id is free again.
    app.put(path, body).await.is(201, "");
    app.delete(path).await.is(204, "");
    assert_eq!(app.get("/v1/customers/acme").await.is(200, ""), customer);
    let mut without = customer.clone();
    without.as_object_mut().unwrap().remove("former_grants");
    assert_eq!(app.put("/v1/customers/acme", without).await.is(200, ""), customer);
    let new = json!({ "former_grants": customer["former_grants"] });
    let made = app.put("/v1/customers/fresh", new).await.is(201, "");
    assert_eq!(made.get("former_grants"), None);
}

#[tokio::test]
async fn overrides_and_grants_are_put_and_taken_back() {
    let app = App::with_catalog().await;
    let more = json!({"feature": "tokens", "limits": [{"limit": "500", "period": "day"}]});
    app.post("/v1/customers/acme/overrides", more.clone())
        .await
        .is(201, "");
    app.post("/v1/customers/acme/overrides", more.clone())
        .await
        .is(409, "already_exists");
    app.put("/v1/customers/acme/overrides/tokens", more)
        .await
        .is(200, "");
    app.put("/v1/customers/acme/overrides/sso", json!({"revoked": true}))
        .await
        .is(201, "");
    let list = app.get("/v1/customers/acme/overrides").await.is(200, "");
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    for (body, pointer) in [
        (json!({"feature": "none"}), "/feature"),
        (json!({"feature": "sso", "value": "1"}), "/value"),
        (
            json!({"feature": "tokens", "revoked": true, "limits": [{"limit": 1}]}),
            "/revoked",
        ),
        (json!({"feature": "tokens", "customer": "other"}), "/customer"),
    ] {
        let feature = body["feature"].as_str().unwrap().to_owned();
        let path = format!("/v1/customers/acme/overrides/{feature}");
        let problem = app.put(&path, body.clone()).await.is(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    for (body, pointer) in [
        (json!({"odd": 1}), "/odd"),
        (json!({"limits": [{"limit": "x"}]}), "/limits/0/limit"),
        (json!({"limits": [{"limit": "1", "odd": 1}]}), "/limits/0/odd"),
    ] {
        let path = "/v1/customers/acme/overrides/tokens";
        let problem = app.put(path, body.clone()).await.is(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    app.delete("/v1/customers/acme/overrides/sso").await.is(204, "");
    app.get("/v1/customers/acme/overrides/sso")
        .await
        .is(404, "not_found");

    let grant = app
        .post(
            "/v1/customers/acme/grants",
            json!({"feature": "tokens", "amount": 5}),
        )
        .await
        .is(201, "");
    assert_eq!(
        (&grant["amount"], &grant["priority"], &grant["effective_at"]),
        (&json!("5"), &json!(50), &json!("2026-01-15T10:00:00Z"))
    );
    let path = format!("/v1/customers/acme/grants/{}", grant["id"].as_str().unwrap());
    assert_eq!(app.get(&path).await.is(200, ""), grant);
    let changed = app
        .put(
            &path,
            json!({"feature": "tokens", "amount": "7", "recurrence": "month"}),
        )
        .await
        .is(200, "");
    assert_eq!(changed["effective_at"], grant["effective_at"]);
    for (body, pointer) in [
        (json!({"feature": "sso", "amount": 1}), "/feature"),
        (json!({"feature": "tokens", "amount": 0}), "/amount"),
        (
            json!({"feature": "tokens", "amount": 1, "priority": 101}),
            "/priority",
        ),
        (
            json!({"feature": "tokens", "amount": 1, "recurrence": "ever"}),
            "/recurrence",
        ),
        (
            json!({"feature": "tokens", "amount": 1, "effective_at": "1999-12-31T23:59:00Z"}),
            "/effective_at",
        ),
        (
            json!({"feature": "tokens", "amount": 1, "recurrence": "hour"}),
            "/expires_at",
        ),
        (
            json!({"feature": "tokens", "amount": 1, "recurrence": "hour",
                "effective_at": "2026-01-01T00:00:00Z", "expires_at": "2027-01-02T00:01:00Z"}),
            "/expires_at",
        ),
        (
            json!({"feature": "tokens", "amount": 1, "rollover_max": 1}),
            "/rollover_max",
        ),
        (
            json!({"feature": "tokens", "amount": 1, "expires_at": "2026-01-15T10:00:59Z"}),
            "/expires_at",
        ),
    ] {
        let problem = app
            .post("/v1/customers/acme/grants", body.clone())
            .await
            .is(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    app.delete(&path).await.is(204, "");
    app.delete(&path).await.is(404, "not_found");
    app.get("/v1/customers/none/grants").await.is(404, "not_found");
}
