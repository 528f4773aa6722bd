use serde_json::{Value, json};

use crate::app::{App, pro};

const HOUR_US: u64 = 3_600_000_000;
const DAY_US: u64 = 24 * HOUR_US;

async fn subscribe(app: &App, body: Value) -> (String, Value) {
    let made = app.post("/v1/subscriptions", body).await.is(201, "");
    (
        format!("/v1/subscriptions/{}", made["id"].as_str().unwrap()),
        made,
    )
}

#[tokio::test]
async fn a_subscription_begins_on_its_minute_in_the_customers_zone() {
    let app = App::with_catalog().await;
    let (path, made) = subscribe(
        &app,
        json!({"customer": "acme", "plan": "pro", "add_ons": ["more"]}),
    )
    .await;
    assert_eq!(
        (&made["start"], &made["anchor"], &made["timezone"]),
        (
            &json!("2026-01-15T10:00:00Z"),
            &json!("2026-01-15T10:00:00Z"),
            &json!("Europe/Istanbul")
        )
    );
    assert_eq!(
        (&made["status"], &made["plan_version"], &made["add_ons"]),
        (&json!("active"), &json!(1), &json!(["more"]))
    );
    assert_eq!(
        made["current_period"],
        json!({"start": "2026-01-15T10:00:00Z", "end": "2026-02-15T10:00:00Z"})
    );
    app.clock.pass(40 * DAY_US);
    let later = app.get(&path).await.is(200, "");
    assert_eq!(
        later["current_period"],
        json!({"start": "2026-02-15T10:00:00Z", "end": "2026-03-15T10:00:00Z"})
    );
    let list = app.get("/v1/subscriptions?customer=acme").await.is(200, "");
    assert_eq!(list["data"], json!([later]));
    assert_eq!(
        app.get("/v1/subscriptions?customer=other").await.body["data"],
        json!([])
    );
}

#[tokio::test]
async fn a_subscription_stays_on_its_version() {
    let app = App::with_catalog().await;
    let (path, _) = subscribe(&app, json!({"customer": "acme", "plan": "pro"})).await;
    let mut changed = pro();
    changed["name"] = json!("Pro 2");
    app.put("/v1/plans/pro", changed).await.is(200, "");
    assert_eq!(app.get(&path).await.body["plan_version"], 1);
    let next = app
        .post(&format!("{path}/change"), json!({"plan": "pro"}))
        .await
        .is(200, "");
    assert_eq!(
        (&next["plan_version"], &next["scheduled_change"]["plan_version"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(next["scheduled_change"]["at"], "2026-02-15T10:00:00Z");
    app.clock.pass(31 * DAY_US);
    assert_eq!(app.get(&path).await.body["plan_version"], 2);
}

#[tokio::test]
async fn one_at_a_time() {
    let app = App::with_catalog().await;
    let body = json!({"customer": "acme", "plan": "pro"});
    let (path, _) = subscribe(&app, body.clone()).await;
    app.post("/v1/subscriptions", body)
        .await
        .is(409, "already_exists");
    let past = json!({"customer": "acme", "plan": "pro", "start": "2020-01-01T00:00:00Z"});
    app.post("/v1/subscriptions", past)
        .await
        .is(409, "already_exists");
    app.post(&format!("{path}/cancel"), Value::Null).await.is(200, "");
    let next = json!({"customer": "acme", "plan": "pro", "start": "2026-02-15T10:00:00Z"});
    let (_, next) = subscribe(&app, next).await;
    assert_eq!(next["status"], "scheduled");
    // Taking the cancellation back would make two.
    app.post(&format!("{path}/reactivate"), Value::Null)
        .await
        .is(409, "already_exists");
}

#[tokio::test]
async fn a_change_waits_for_the_period_and_the_last_one_counts() {
    let app = App::with_catalog().await;
    app.put("/v1/plans/year", json!({"currency": "USD", "interval": "year"}))
        .await
        .is(201, "");
    let (path, _) = subscribe(&app, json!({"customer": "acme", "plan": "pro"})).await;
    let change = format!("{path}/change");
    let now = app
        .post(&change, json!({"plan": "year", "effective": "now"}))
        .await
        .is(422, "invalid");
    assert_eq!(now["errors"][0]["pointer"], "/effective");
    app.post(&change, json!({"add_ons": ["more"]})).await.is(200, "");
    let next = app.post(&change, json!({"plan": "year"})).await.is(200, "");
    assert_eq!(
        (
            &next["scheduled_change"]["plan"],
            &next["scheduled_change"]["add_ons"]
        ),
        (&json!("year"), &json!([]))
    );
    let undone = app.post(&change, json!({"plan": "pro"})).await.is(200, "");
    assert_eq!(undone["scheduled_change"], Value::Null);
    app.post(&change, json!({"plan": "year"})).await.is(200, "");
    app.clock.pass(31 * DAY_US);
    let changed = app.get(&path).await.is(200, "");
    assert_eq!(
        changed["current_period"],
        json!({"start": "2026-02-15T10:00:00Z", "end": "2027-02-15T10:00:00Z"})
    );
    for (body, pointer) in [
        (json!({}), ""),
        (json!({"plan": "none"}), "/plan"),
        (json!({"plan_version": 9}), "/plan_version"),
        (json!({"add_ons": ["none"]}), "/add_ons/0"),
        (json!({"add_ons": ["more", "more"]}), "/add_ons/1"),
    ] {
        let problem = app.post(&change, body.clone()).await.is(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
}

#[tokio::test]
async fn a_cancellation_taken_back_brings_the_scheduled_change_back() {
    let app = App::with_catalog().await;
    app.put("/v1/plans/year", json!({"currency": "USD", "interval": "year"}))
        .await
        .is(201, "");
    let (path, _) = subscribe(&app, json!({"customer": "acme", "plan": "pro"})).await;
    let step = async |name: &str, body: Value| app.post(&format!("{path}/{name}"), body).await;
    let changed = step("change", json!({"plan": "year"})).await.is(200, "");
    assert_eq!(changed["scheduled_change"]["plan"], "year");
    let cancelled = step("cancel", Value::Null).await.is(200, "");
    assert_eq!(cancelled["scheduled_change"], Value::Null);
    app.delete("/v1/plans/year").await.is(409, "in_use");
    let back = step("reactivate", Value::Null).await.is(200, "");
    assert_eq!(back, changed);
    step("cancel", Value::Null).await.is(200, "");
    app.clock.pass(31 * DAY_US);
    let ended = app.get(&path).await.is(200, "");
    assert_eq!(
        (&ended["status"], &ended["plan"], &ended["scheduled_change"]),
        (&json!("cancelled"), &json!("pro"), &Value::Null)
    );
}

#[tokio::test]
async fn a_trial_is_free_to_change_now() {
    let app = App::with_catalog().await;
    let (path, made) = subscribe(&app, json!({"customer": "acme", "plan": "pro", "trial_days": 14})).await;
    assert_eq!(
        (&made["status"], &made["trial_end"]),
        (&json!("trial"), &json!("2026-01-29T10:00:00Z"))
    );
    assert_eq!(made["anchor"], made["trial_end"]);
    assert_eq!(
        made["current_period"],
        json!({"start": "2026-01-15T10:00:00Z", "end": "2026-01-29T10:00:00Z"})
    );
    app.clock.pass(DAY_US);
    let changed = app
        .post(
            &format!("{path}/change"),
            json!({"add_ons": ["more"], "effective": "now"}),
        )
        .await;
    let changed = changed.is(200, "");
    assert_eq!(
        (&changed["add_ons"], &changed["status"]),
        (&json!(["more"]), &json!("trial"))
    );
    app.clock.pass(14 * DAY_US);
    let after = app.get(&path).await.is(200, "");
    assert_eq!(
        (&after["add_ons"], &after["status"]),
        (&json!(["more"]), &json!("active"))
    );
    assert_eq!(
        after["current_period"],
        json!({"start": "2026-01-29T10:00:00Z", "end": "2026-02-28T10:00:00Z"})
    );
}

#[tokio::test]
async fn every_step_is_allowed_where_it_makes_sense_and_nowhere_else() {
    let app = App::with_catalog().await;
    let (path, _) = subscribe(&app, json!({"customer": "acme", "plan": "pro"})).await;
    let step = async |name: &str| app.post(&format!("{path}/{name}"), Value::Null).await;
    step("resume").await.is(409, "illegal_transition");
    step("reactivate").await.is(409, "illegal_transition");
    assert_eq!(step("pause").await.is(200, "")["status"], "paused");
    step("pause").await.is(409, "illegal_transition");
    app.clock.pass(HOUR_US);
    assert_eq!(step("resume").await.is(200, "")["status"], "active");
    let ending = step("cancel").await.is(200, "");
    assert_eq!(
        (&ending["status"], &ending["ends_at"]),
        (&json!("active"), &json!("2026-02-15T10:00:00Z"))
    );
    app.post(&format!("{path}/change"), json!({"add_ons": ["more"]}))
        .await
        .is(409, "illegal_transition");
    assert_eq!(step("reactivate").await.is(200, "")["ends_at"], Value::Null);
    let ended = app
        .post(&format!("{path}/cancel"), json!({"at": "now"}))
        .await
        .is(200, "");
    assert_eq!(
        (&ended["status"], &ended["ends_at"]),
        (&json!("cancelled"), &json!("2026-01-15T11:00:00Z"))
    );
    assert_eq!(
        ended["current_period"],
        json!({"start": "2026-01-15T10:00:00Z", "end": "2026-01-15T11:00:00Z"})
    );
    for name in ["pause", "resume", "cancel", "reactivate"] {
        step(name).await.is(409, "illegal_transition");
    }
    app.post("/v1/subscriptions/none/pause", Value::Null)
        .await
        .is(404, "not_found");
    // Its place is free from then on.
    subscribe(&app, json!({"customer": "acme", "plan": "pro"})).await;
}

#[tokio::test]
async fn what_cannot_be_billed_is_refused() {
    let app = App::with_catalog().await;
    let euros = json!({"currency": "EUR", "prices": [{"key": "f", "model": "flat", "amount": "1"}]});
    app.put("/v1/add-ons/euros", euros).await.is(201, "");
    for (body, pointer) in [
        (json!({"customer": "none", "plan": "pro"}), "/customer"),
        (json!({"customer": "acme", "plan": "none"}), "/plan"),
        (
            json!({"customer": "acme", "plan": "pro", "plan_version": 2}),
            "/plan_version",
        ),
        (
            json!({"customer": "acme", "plan": "pro", "currency": "EUR"}),
            "/currency",
        ),
        (
            json!({"customer": "acme", "plan": "pro", "add_ons": ["euros"]}),
            "/add_ons/0",
        ),
        (
            json!({"customer": "acme", "plan": "pro", "trial_days": 10_000}),
            "/trial_days",
        ),
        (
            json!({"customer": "acme", "plan": "pro", "start": "soon"}),
            "/start",
        ),
    ] {
        let problem = app
            .post("/v1/subscriptions", body.clone())
            .await
            .is(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
}
