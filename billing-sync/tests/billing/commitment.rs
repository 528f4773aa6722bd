//! A plan's minimum commitment on invoices.

use serde_json::{Value, json};

use crate::app::{App, amounts};

/// 100.00 a month, of which 20.00 are in advance and 5.00 in arrears; 0.50 for each unit.
fn plan() -> Value {
    json!({"currency": "USD", "name": "Pro", "minimum_commitment": "100", "prices": [
        {"key": "base", "model": "flat", "amount": "20", "timing": "advance"},
        {"key": "support", "model": "flat", "amount": "5", "timing": "arrears"},
        {"key": "units", "meter": "tokens", "model": "per_unit", "unit_amount": "0.5"}]})
}

async fn subscribed(plan: Value, more: Value) -> App {
    let app = App::start().await;
    app.catalog(plan, "UTC").await;
    app.subscribe(more).await;
    app
}

/// Runs billing for the period that ends at `end`, a day later, and answers its newest invoice, which verifies.
async fn bill(app: &App, end: &str) -> Value {
    app.at(&end.replace("01T", "02T"));
    let run = app.run(end).await;
    assert_eq!(run["status"], "done", "{run}");
    let invoice = app.invoices().await.pop().unwrap();
    assert_eq!(
        app.verify(&invoice).await,
        json!({"verified": true, "differences": []})
    );
    invoice
}

#[tokio::test]
async fn what_is_missing_is_charged_once_and_counts_what_was_charged_in_advance() {
    let app = subscribed(plan(), json!({})).await;
    app.usage.add("acme", "2026-01-05T00:00:00Z", "30");
    app.usage.add("acme", "2026-02-05T00:00:00Z", "150");
    let january = bill(&app, "2026-02-01T00:00:00Z").await;
    assert_eq!(
        amounts(&january, "minimum"),
        ["60.00"],
        "100 less 20, 5 and 15: {january}"
    );
    assert_eq!(january["total"], "100.00", "80 for January, 20 in advance");
    let line = january["lines"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&line["price"], &line["source"], &line["terms"]),
        (&json!("minimum_commitment"), &json!("plan/pro@1"), &json!(null))
    );
    let february = bill(&app, "2026-03-01T00:00:00Z").await;
    assert_eq!(
        amounts(&february, "minimum"),
        Vec::<String>::new(),
        "exactly 100 are used"
    );
}

#[tokio::test]
async fn late_usage_first_uses_up_what_was_settled() {
    let app = subscribed(plan(), json!({})).await;
    app.usage.add("acme", "2026-01-05T00:00:00Z", "30");
    bill(&app, "2026-02-01T00:00:00Z").await;
    app.usage.add("acme", "2026-01-06T00:00:00Z", "100");
    let february = bill(&app, "2026-03-01T00:00:00Z").await;
    assert_eq!(
        amounts(&february, "adjustment"),
        ["50.00", "-50.00"],
        "{february}"
    );
    app.usage.add("acme", "2026-01-07T00:00:00Z", "40");
    app.usage.add("acme", "2026-02-07T00:00:00Z", "150");
    let march = bill(&app, "2026-04-01T00:00:00Z").await;
    assert_eq!(
        amounts(&march, "adjustment"),
        ["20.00", "75.00", "-10.00", "-75.00"],
        "10 are left of what was settled for January: {march}"
    );
}

#[tokio::test]
async fn usage_taken_back_is_held_to_the_commitment() {
    let app = subscribed(plan(), json!({})).await;
    app.usage.add("acme", "2026-01-05T00:00:00Z", "200");
    let january = bill(&app, "2026-02-01T00:00:00Z").await;
    assert_eq!(amounts(&january, "minimum"), Vec::<String>::new());
    app.usage.add("acme", "2026-01-05T00:00:00Z", "-200");
    let february = bill(&app, "2026-03-01T00:00:00Z").await;
    assert_eq!(
        amounts(&february, "adjustment"),
        ["-100.00", "75.00"],
        "{february}"
    );
}

#[tokio::test]
async fn a_partial_period_has_its_share_and_a_trial_nothing() {
    // 15 of 31 days of January run before the anchor.
    let app = subscribed(
        plan(),
        json!({"start": "2026-01-01T00:00:00Z", "anchor": "2026-01-16T00:00:00Z"}),
    )
    .await;
    app.at("2026-01-17T00:00:00Z");
    app.run("2026-01-16T00:00:00Z").await;
    let first = app.invoices().await.pop().unwrap();
    // 31 days from 16 December: 48.39 of 100, less 9.68 in advance and 2.42 in arrears.
    assert_eq!(amounts(&first, "minimum"), ["36.29"], "{first}");
    assert_eq!(app.verify(&first).await["verified"], true);

    let mut trial = plan();
    trial["trial_days"] = json!(31);
    let app = subscribed(trial, json!({})).await;
    app.at("2026-03-02T00:00:00Z");
    app.run("2026-03-01T00:00:00Z").await;
    let invoices = app.invoices().await;
    let minimums: Vec<_> = invoices
        .iter()
        .flat_map(|invoice| amounts(invoice, "minimum"))
        .collect();
    assert_eq!(minimums, ["75.00"], "February's alone: {invoices:?}");
}

#[tokio::test]
async fn a_commitment_that_was_meddled_with_does_not_verify() {
    for (sql, pointer) in [
        (
            "UPDATE invoice_lines SET amount = amount + 1 WHERE price = 'minimum_commitment'",
            "/lines/3/amount",
        ),
        (
            "UPDATE invoice_lines SET basis = replace(basis, '\"billed_amount\":2000', '\"billed_amount\":0') \
             WHERE price = 'minimum_commitment'",
            "/lines/3/billed_before",
        ),
        (
            "UPDATE invoice_lines SET amount = 1000 WHERE price = 'base' AND period_end_us = \
             (SELECT MIN(period_end_us) FROM invoices WHERE number = 2)",
            "/lines/3/billed_before",
        ),
    ] {
        let app = subscribed(plan(), json!({})).await;
        let january = bill(&app, "2026-02-01T00:00:00Z").await;
        app.tamper(sql).await;
        let found = app.verify(&january).await;
        let differences = found["differences"].as_array().unwrap();
        assert!(
            differences.iter().any(|found| found["pointer"] == pointer),
            "{sql}: {found}"
        );
    }
}

/// An amount is read as any decimal is; it is of the plan's own currency, and holds for nobody who pays in another.
#[tokio::test]
async fn a_commitment_is_an_amount_of_the_plans_own_currency() {
    for spelled in [json!("1e2"), json!(1e2), json!("100"), json!("100.00")] {
        let app = App::start().await;
        let unit = json!([{"key": "units", "meter": "tokens", "model": "per_unit", "unit_amount": "1e-2"}]);
        let plan = json!({"currency": "USD", "minimum_commitment": spelled, "prices": unit,
            "prices_by_currency": {"EUR": unit}});
        app.catalog(plan, "UTC").await;
        let plan = app.get("/v1/plans/pro").await;
        assert_eq!(plan["minimum_commitment"], "100.00", "{spelled}");
        app.put("/v1/customers/euro", json!({"currency": "EUR"})).await;
        for customer in ["acme", "euro"] {
            app.subscribe(json!({ "customer": customer })).await;
            app.usage.add(customer, "2026-01-05T00:00:00Z", "250");
        }
        app.at("2026-02-02T00:00:00Z");
        app.run("2026-02-01T00:00:00Z").await;
        for invoice in app.invoices().await {
            let (minimum, total) = match invoice["currency"].as_str() {
                Some("USD") => (vec!["97.50"], "100.00"),
                _ => (vec![], "2.50"),
            };
            assert_eq!(amounts(&invoice, "minimum"), minimum, "{invoice}");
            assert_eq!(invoice["total"], total);
            assert_eq!(app.verify(&invoice).await["verified"], true);
        }
    }
}
