use serde_json::{Value, json};

use crate::app::App;

async fn two_invoices() -> (App, Vec<Value>) {
    let app = App::start().await;
    let plan = json!({"currency": "USD", "prices": [
        {"key": "base", "model": "flat", "amount": "10", "timing": "arrears"},
        {"key": "units", "meter": "tokens", "model": "graduated", "tiers": [
            {"up_to": "100", "unit_amount": "0.5", "flat_amount": "1"}, {"unit_amount": "0.25"}]},
        {"key": "regions", "meter": "tokens", "model": "matrix", "dimensions": ["region"],
            "rates": [{"region": "eu", "unit_amount": "0.10"}], "default_unit_amount": "0.12", "minimum_amount": "50"}]});
    app.catalog(plan, "UTC").await;
    app.subscribe(json!({})).await;
    app.usage.add_in("acme", "2026-01-05T00:00:00Z", "150", "eu");
    app.usage.add("acme", "2026-01-06T00:00:00Z", "20");
    app.at("2026-02-02T00:00:00Z");
    app.run("2026-02-01T00:00:00Z").await;
    app.usage.add_in("acme", "2026-01-07T00:00:00Z", "900.5", "eu");
    app.at("2026-03-02T00:00:00Z");
    app.run("2026-03-01T00:00:00Z").await;
    let invoices = app.invoices().await;
    assert_eq!(invoices.len(), 2);
    for invoice in &invoices {
        assert_eq!(
            app.verify(invoice).await,
            json!({"verified": true, "differences": []})
        );
    }
    (app, invoices)
}

#[tokio::test]
async fn every_change_behind_the_engines_back_is_found() {
    for sql in [
        "UPDATE invoices SET total = total + 1 WHERE number = 2",
        "UPDATE invoices SET subtotal = subtotal - 1 WHERE number = 2",
        "UPDATE invoices SET customer = 'other' WHERE number = 2",
        "UPDATE invoices SET watermark = '65536' WHERE number = 2",
        "UPDATE invoices SET catalog_version = 99 WHERE number = 2",
        "UPDATE invoices SET previous_hash = '' WHERE number = 2",
        "UPDATE invoices SET hash = 'x' WHERE number = 2",
        "UPDATE invoices SET finalized_us = finalized_us + 1 WHERE number = 2",
        "UPDATE invoices SET customer = 'other' WHERE number = 1",
        "UPDATE invoice_lines SET amount = amount + 1 WHERE line = 0 AND invoice = (SELECT id FROM invoices WHERE number = 2)",
        "UPDATE invoice_lines SET quantity = '1000' WHERE kind = 'usage' AND invoice = (SELECT id FROM invoices WHERE number = 2)",
        "UPDATE invoice_lines SET description = 'x' WHERE kind = 'adjustment'",
        "UPDATE invoice_lines SET hash = 'x' WHERE kind = 'adjustment'",
        "UPDATE invoice_lines SET basis = replace(basis, '0.25', '0.26') WHERE invoice = (SELECT id FROM invoices WHERE number = 2)",
        "UPDATE invoice_lines SET amount = amount - 100 WHERE kind = 'usage' AND invoice = (SELECT id FROM invoices WHERE number = 1)",
        "DELETE FROM invoice_lines WHERE kind = 'adjustment'",
    ] {
        let (app, invoices) = two_invoices().await;
        app.tamper(sql).await;
        let found = app.verify(&invoices[1]).await;
        assert_eq!(found["verified"], false, "{sql}");
        assert!(
            found["differences"][0]["pointer"]
                .as_str()
                .unwrap()
                .starts_with('/'),
            "{sql} {found}"
        );
    }
}

#[tokio::test]
async fn a_difference_says_what_it_should_be() {
    let (app, invoices) = two_invoices().await;
    app.tamper("UPDATE invoice_lines SET amount = 9999 WHERE kind = 'recurring' AND invoice = (SELECT id FROM invoices WHERE number = 1)").await;
    let found = app.verify(&invoices[0]).await;
    let differences = found["differences"].as_array().unwrap();
    let amount = json!({"pointer": "/lines/0/amount", "expected": "10.00", "found": "99.99"});
    assert!(differences.contains(&amount), "{found}");
    assert!(
        differences.iter().any(|d| d["pointer"] == "/lines/0/hash"),
        "{found}"
    );
}

#[tokio::test]
async fn the_database_itself_refuses_to_change_what_is_final() {
    use sqlx::ConnectOptions as _;
    let (app, _) = two_invoices().await;
    let file = app.directory.path().join("control.db");
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(file)
        .connect()
        .await
        .unwrap();
    for sql in [
        "UPDATE invoices SET total = 0",
        "UPDATE invoices SET status = 'draft'",
        "UPDATE invoices SET number = 7 WHERE number = 1",
        "DELETE FROM invoices",
        "UPDATE invoice_lines SET amount = 0",
        "DELETE FROM invoice_lines",
        "INSERT INTO invoice_lines SELECT tenant, invoice, 99, kind, source, price, meter, description, quantity, amount, \
         period_start_us, period_end_us, basis, hash FROM invoice_lines LIMIT 1",
    ] {
        let refused = sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&mut connection)
            .await;
        let words = refused.unwrap_err().to_string();
        assert!(
            words.contains("final") || words.contains("locked"),
            "{sql}: {words}"
        );
    }
}

#[tokio::test]
async fn without_the_raw_events_nothing_can_be_told() {
    let (app, invoices) = two_invoices().await;
    *app.usage.deleted.lock() = true;
    let found = app.verify(&invoices[0]).await;
    assert_eq!(
        found,
        json!({"verified": null, "reason": "raw_events_deleted", "differences": []})
    );
    app.tamper("UPDATE invoices SET total = 1 WHERE number = 1").await;
    assert_eq!(
        app.verify(&invoices[0]).await["verified"],
        false,
        "what is wrong by itself is still found"
    );
}
