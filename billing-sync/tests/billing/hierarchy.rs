//! Customers without a subscription of their own: their usage is on the invoice of the subscription that they use.

use serde_json::{Value, json};

use crate::app::{App, amounts};

fn per_unit() -> Value {
    json!({"currency": "USD", "prices": [
        {"key": "units", "meter": "tokens", "model": "per_unit", "unit_amount": "1"}]})
}

/// `acme` and `other` have a subscription each from the start of the year on; `team` is below `acme`.
async fn world() -> App {
    let app = App::start().await;
    app.catalog(per_unit(), "UTC").await;
    app.put("/v1/customers/other", json!({})).await;
    app.subscribe(json!({})).await;
    app.subscribe(json!({"customer": "other"})).await;
    app.put("/v1/customers/team", json!({"parent": "acme"})).await;
    app
}

/// The amounts of usage of a customer's newest invoice.
async fn newest(app: &App, customer: &str) -> (Value, Vec<String>) {
    let invoices = app.invoices().await;
    let newest = invoices
        .into_iter()
        .rfind(|invoice| invoice["customer"] == customer);
    let newest = newest.unwrap();
    let usage = amounts(&newest, "usage");
    (newest, usage)
}

#[tokio::test]
async fn usage_below_is_billed_where_it_was_used_and_verifies_after_later_moves() {
    let app = world().await;
    app.put("/v1/customers/user", json!({"parent": "team"})).await;
    for (subject, time, amount) in [
        ("acme", "2026-01-02T00:00:00Z", "1"),
        ("team", "2026-01-09T23:59:59Z", "10"),
        ("user", "2026-01-09T00:00:00Z", "100"),
        // After the move.
        ("team", "2026-01-10T00:00:00Z", "1000"),
        ("user", "2026-01-20T00:00:00Z", "10000"),
    ] {
        app.usage.add(subject, time, amount);
    }
    app.at("2026-01-10T00:00:30Z");
    app.put("/v1/customers/team", json!({"parent": "other"})).await;
    let upcoming = app.get("/v1/customers/acme/invoices/upcoming").await;
    assert_eq!(upcoming["total"], "111.00");
    app.at("2026-02-02T00:00:00Z");
    app.run("2026-02-01T00:00:00Z").await;
    let (acme, usage) = newest(&app, "acme").await;
    assert_eq!(usage, ["111.00"]);
    let (other, usage) = newest(&app, "other").await;
    assert_eq!(usage, ["11000.00"]);
    // Later moves change no final invoice, and no adjustment comes of them.
    app.put("/v1/customers/team", json!({})).await;
    app.put("/v1/customers/user", json!({"parent": "acme"})).await;
    for invoice in [&acme, &other] {
        assert_eq!(app.verify(invoice).await["verified"], true);
    }
    app.at("2026-03-02T00:00:00Z");
    app.run("2026-03-01T00:00:00Z").await;
    for customer in ["acme", "other"] {
        let (invoice, usage) = newest(&app, customer).await;
        assert_eq!(
            (usage, amounts(&invoice, "adjustment")),
            (vec!["0.00".to_owned()], vec![])
        );
        assert_eq!(app.verify(&invoice).await["verified"], true);
    }
}

#[tokio::test]
async fn a_subscription_of_its_own_takes_the_usage_of_its_time_and_of_those_below() {
    let app = world().await;
    app.put("/v1/customers/user", json!({"parent": "team"})).await;
    app.at("2026-01-11T00:00:00Z");
    let own = app
        .subscribe(json!({"customer": "team", "start": "2026-01-11T00:00:00Z"}))
        .await;
    for (subject, day, amount) in [
        ("team", 10, "1"),
        ("user", 10, "2"),
        ("team", 11, "10"),
        ("user", 12, "20"),
        // Its own subscription has ended: it uses the one above again.
        ("team", 21, "100"),
        ("user", 22, "200"),
    ] {
        app.usage
            .add(subject, &format!("2026-01-{day}T12:00:00Z"), amount);
    }
    app.at("2026-01-21T00:00:00Z");
    let id = own["id"].as_str().unwrap();
    app.post(&format!("/v1/subscriptions/{id}/cancel"), json!({"at": "now"}))
        .await;
    app.at("2026-02-12T00:00:00Z");
    app.run("2026-02-12T00:00:00Z").await;
    assert_eq!(newest(&app, "acme").await.1, ["303.00"]);
    assert_eq!(newest(&app, "team").await.1, ["30.00"]);
    for invoice in app.invoices().await {
        assert_eq!(app.verify(&invoice).await["verified"], true);
    }
}

#[tokio::test]
async fn a_paused_subscription_is_still_the_one_that_is_used() {
    let app = world().await;
    let own = app.subscribe(json!({"customer": "team"})).await;
    let id = own["id"].as_str().unwrap();
    app.post(&format!("/v1/subscriptions/{id}/pause"), Value::Null)
        .await;
    app.usage.add("team", "2026-01-10T00:00:00Z", "7");
    app.at("2026-02-02T00:00:00Z");
    app.run("2026-02-01T00:00:00Z").await;
    assert_eq!(newest(&app, "acme").await.1, ["0.00"]);
    assert_eq!(newest(&app, "team").await.1, ["7.00"]);
}

#[tokio::test]
async fn a_subscription_that_begins_in_a_closed_period_is_not_billed_twice() {
    let app = world().await;
    app.usage.add("team", "2026-01-10T00:00:00Z", "7");
    app.usage.add("team", "2026-01-20T00:00:00Z", "50");
    app.at("2026-02-02T00:00:00Z");
    app.run("2026-02-01T00:00:00Z").await;
    let (first, usage) = newest(&app, "acme").await;
    assert_eq!(usage, ["57.00"]);
    app.subscribe(json!({"customer": "team", "start": "2026-01-15T00:00:00Z"}))
        .await;
    app.at("2026-03-02T00:00:00Z");
    app.run("2026-03-01T00:00:00Z").await;
    assert_eq!(newest(&app, "team").await.1, ["50.00"]);
    let (second, _) = newest(&app, "acme").await;
    assert_eq!(amounts(&second, "adjustment"), ["-50.00"]);
    for invoice in [&first, &second] {
        assert_eq!(app.verify(invoice).await["verified"], true);
    }
}

#[tokio::test]
async fn a_customer_that_goes_leaves_its_usage_where_it_was_used() {
    let app = world().await;
    app.usage.add("team", "2026-01-10T00:00:00Z", "7");
    app.at("2026-01-15T00:00:00Z");
    let (status, _) = app.call("DELETE", "/v1/customers/team", Value::Null).await;
    assert_eq!(status, 204);
    app.at("2026-02-02T00:00:00Z");
    app.run("2026-02-01T00:00:00Z").await;
    assert_eq!(newest(&app, "acme").await.1, ["7.00"]);
}

#[tokio::test]
async fn a_subject_found_late_is_billed_and_one_that_nobody_has_stays_billed() {
    let app = world().await;
    app.put("/v1/customers/acme", json!({"subjects": ["acme", "old"]}))
        .await;
    app.usage.add("old", "2026-01-10T00:00:00Z", "7");
    app.usage.add("new", "2026-01-11T00:00:00Z", "30");
    app.at("2026-02-02T00:00:00Z");
    app.run("2026-02-01T00:00:00Z").await;
    assert_eq!(newest(&app, "acme").await.1, ["7.00"]);
    app.put("/v1/customers/acme", json!({"subjects": ["acme", "new"]}))
        .await;
    app.at("2026-03-02T00:00:00Z");
    app.run("2026-03-01T00:00:00Z").await;
    let (invoice, _) = newest(&app, "acme").await;
    assert_eq!(amounts(&invoice, "adjustment"), ["30.00"]);
    assert_eq!(app.verify(&invoice).await["verified"], true);
}

#[tokio::test]
async fn one_without_a_subscription_is_told_whose_invoice_it_is_on() {
    let app = world().await;
    let (status, answer) = app
        .call("GET", "/v1/customers/team/invoices/upcoming", Value::Null)
        .await;
    assert_eq!(status, 404);
    let detail = answer["detail"].as_str().unwrap();
    assert!(detail.contains("\"acme\""), "{detail}");
}
