use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use turnpike_domain::invoice::Totals;
use turnpike_domain::port::billing::BillingStore as _;

use crate::app::App;

pub(crate) async fn two_invoices() -> (App, Vec<Value>) {
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

/// A change of a stored field of the second invoice, and where the difference must be named.
const TAMPERED: [(&str, &str, &str); 22] = [
    ("id", "'another'", "/hash"),
    ("number", "7", "/previous_hash"),
    ("customer", "'other'", "/customer"),
    ("subscription", "'other'", "/subscription"),
    ("status", "'finalizing'", "/status"),
    ("currency", "'EUR'", "/currency"),
    ("period_start_us", "period_start_us + 60000000", "/hash"),
    ("period_end_us", "period_end_us + 60000000", "/hash"),
    ("round", "1", "/hash"),
    ("subtotal", "subtotal - 1", "/subtotal"),
    ("discount", "1", "/discount"),
    ("credits", "1", "/credits"),
    ("tax", "1", "/tax"),
    ("total", "total + 1", "/total"),
    ("watermark", "'65536'", "/lines/4/quantity"),
    ("catalog_version", "99", "/hash"),
    ("previous_hash", "''", "/previous_hash"),
    ("hash", "'x'", "/hash"),
    ("created_us", "created_us + 1", "/hash"),
    ("locks_us", "locks_us + 1", "/hash"),
    ("finalized_us", "finalized_us + 1", "/hash"),
    ("parties", "replace(parties, 'Acme', 'Evil')", "/hash"),
];

/// The same for its line of kind `adjustment`, the fifth.
const TAMPERED_LINE: [(&str, &str, &str); 13] = [
    ("invoice", "(SELECT id FROM invoices WHERE number = 1)", "/hash"),
    ("line", "-1", "/hash"),
    ("kind", "'usage'", "/lines/4/kind"),
    ("source", "'plan/pro@9'", "/lines/4/source"),
    ("price", "'other'", "/lines/4/price"),
    ("meter", "'other'", "/lines/4/meter"),
    ("description", "'x'", "/lines/4/hash"),
    ("quantity", "'1000'", "/lines/4/quantity"),
    ("amount", "amount + 1", "/lines/4/amount"),
    ("period_start_us", "period_start_us + 60000000", "/lines/4/hash"),
    ("period_end_us", "period_end_us - 60000000", "/lines/4/hash"),
    ("basis", "replace(basis, '0.12', '0.13')", "/lines/4/price"),
    ("hash", "'x'", "/lines/4/hash"),
];

#[tokio::test]
async fn every_change_behind_the_engines_back_is_found_and_named() {
    let line = "line = 4 AND invoice = (SELECT id FROM invoices WHERE number = 2)";
    let tables = [
        ("invoices", &TAMPERED[..], "number = 2"),
        ("invoice_lines", &TAMPERED_LINE[..], line),
    ];
    for (table, tampered, which) in tables {
        let mut columns = two_invoices().await.0.columns(table).await;
        for (column, value, pointer) in tampered {
            let (app, invoices) = two_invoices().await;
            assert_eq!(invoices[1]["lines"][4]["kind"], "adjustment");
            let sql = format!("UPDATE {table} SET {column} = {value} WHERE {which}");
            app.tamper(&sql).await;
            let number = if *column == "number" { 7 } else { 2 };
            let path = format!("/v1/invoices/INV-{number:06}/verify");
            let found = app.post(&path, json!({})).await;
            assert_eq!(found["verified"], false, "{sql}");
            let differences = found["differences"].as_array().unwrap();
            assert!(
                differences.iter().any(|one| one["pointer"] == *pointer),
                "{sql} {found}"
            );
            columns.retain(|known| known != column);
        }
        assert_eq!(
            columns,
            ["tenant"],
            "each column is tried but that of whose it is"
        );
    }
}

/// All numbers that were given, and what came of each.
pub(crate) async fn verify_all(app: &App) -> Vec<(String, Value)> {
    let found = app.post("/v1/invoices/verify", json!({})).await;
    assert_eq!(found["next_cursor"], Value::Null);
    let told = found["data"].as_array().unwrap().iter();
    told.map(|one| (one["invoice"].as_str().unwrap().to_owned(), one.clone()))
        .collect()
}

/// The series knows its last number: no invoice at its end is gone without a word, nor is one put behind it.
#[tokio::test]
async fn the_end_of_the_series_is_verified_too() {
    for (sql, pointer) in [
        ("DELETE FROM invoices WHERE number = 2", "/number"),
        ("UPDATE invoices SET number = NULL WHERE number = 2", "/number"),
        ("UPDATE invoice_numbers SET last = 1", "/number"),
        ("DELETE FROM invoice_numbers", "/number"),
        ("UPDATE invoice_numbers SET hash = 'x'", "/hash"),
    ] {
        let (app, _) = two_invoices().await;
        app.tamper(sql).await;
        let told = verify_all(&app).await;
        assert_eq!(told.len(), 2, "{sql} {told:?}");
        let last = app.post("/v1/invoices/INV-000002/verify", json!({})).await;
        assert_eq!(last["verified"], false, "{sql} {last}");
        assert_eq!(last["differences"], told[1].1["differences"], "{sql} {told:?}");
        assert_eq!(last["differences"][0]["pointer"], pointer, "{sql} {last}");
    }
    let (app, _) = two_invoices().await;
    let beyond = app
        .call("POST", "/v1/invoices/INV-000003/verify", json!({}))
        .await;
    assert_eq!(beyond.0, 404, "a number that was never given");
}

/// Names are those of the day of the lock, on the page and in the data, whatever becomes of customer and tenant.
#[tokio::test]
async fn a_final_invoice_keeps_its_names() {
    let (app, invoices) = two_invoices().await;
    let path = "/v1/invoices/INV-000001";
    let page = async || {
        let (status, page) = app.call("GET", &format!("{path}.html"), Value::Null).await;
        assert_eq!(status, 200);
        page
    };
    let before = page().await;
    assert!(before.as_str().unwrap().contains("Acme &amp; &lt;Sons&gt;"));
    assert_eq!(
        invoices[0]["bill_to"],
        json!({"name": "Acme & <Sons>", "email": null})
    );
    app.put(
        "/v1/customers/acme",
        json!({"name": "Renamed", "email": "new@example.com"}),
    )
    .await;
    app.at("2026-04-02T00:00:00Z");
    app.run("2026-04-01T00:00:00Z").await;
    assert_eq!(
        (page().await, app.get(path).await),
        (before.clone(), invoices[0].clone())
    );
    let april = app.get("/v1/invoices/INV-000003").await;
    assert_eq!(
        april["bill_to"],
        json!({"name": "Renamed", "email": "new@example.com"})
    );
    let id = april["subscription"].as_str().unwrap();
    app.post(&format!("/v1/subscriptions/{id}/cancel"), json!({"at": "now"}))
        .await;
    let (status, _) = app.call("DELETE", "/v1/customers/acme", Value::Null).await;
    assert_eq!(status, 204);
    assert_eq!((page().await, app.get(path).await), (before, invoices[0].clone()));
    for (_, told) in verify_all(&app).await {
        assert_eq!(told["verified"], true, "{told}");
    }
}

#[tokio::test]
async fn changes_of_earlier_invoices_and_missing_lines_are_found() {
    for sql in [
        "UPDATE invoices SET customer = 'other' WHERE number = 1",
        "UPDATE invoice_lines SET amount = amount - 100 WHERE kind = 'usage' AND invoice = (SELECT id FROM invoices WHERE number = 1)",
        "DELETE FROM invoice_lines WHERE kind = 'adjustment'",
        "DELETE FROM invoices WHERE number = 1",
    ] {
        let (app, invoices) = two_invoices().await;
        app.tamper(sql).await;
        let found = app.verify(&invoices[1]).await;
        assert_eq!(found["verified"], false, "{sql}");
        let pointer = found["differences"][0]["pointer"].as_str().unwrap();
        assert!(pointer.starts_with('/'), "{sql} {found}");
    }
}

/// Whoever changes an amount can compute all hashes anew; the plan's version still says what was to be charged.
#[tokio::test]
async fn a_price_that_the_plan_does_not_have_is_found_though_all_hashes_fit() {
    let (app, invoices) = two_invoices().await;
    let id = invoices[1]["id"].as_str().unwrap();
    let mut forged = app
        .store
        .invoice(app.tenant, id.to_owned())
        .await
        .unwrap()
        .unwrap();
    let basis = serde_json::to_string(&forged.lines[0].basis).unwrap();
    assert!(basis.contains(r#""amount":"10"#), "{basis}");
    let basis = basis.replace(r#""amount":"10"#, r#""amount":"20"#);
    forged.lines[0].basis = serde_json::from_str(&basis).unwrap();
    forged.lines[0].amount = 2_000;
    forged.lines[0].hash = forged.lines[0].seal();
    forged.totals = Totals::of(&forged.lines).unwrap();
    forged.hash = forged.seal();
    let line = &forged.lines[0];
    let (subtotal, total) = (forged.totals.subtotal, forged.totals.total);
    for sql in [
        format!(
            "UPDATE invoice_lines SET basis = '{basis}', amount = 2000, hash = '{}' WHERE line = 0 AND invoice = '{id}'",
            line.hash
        ),
        format!(
            "UPDATE invoices SET subtotal = {subtotal}, total = {total}, hash = '{}' WHERE id = '{id}'",
            forged.hash
        ),
        format!("UPDATE invoice_numbers SET hash = '{}'", forged.hash),
    ] {
        app.tamper(&sql).await;
    }
    let found = app.verify(&invoices[1]).await;
    let differences = found["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 1, "{found}");
    assert_eq!(differences[0]["pointer"], "/lines/0/price");
    let said = |side: &str| differences[0][side].as_str().unwrap().to_owned();
    assert!(said("expected").contains(r#""amount":"10"#) && said("found").contains(r#""amount":"20"#));
}

#[tokio::test]
async fn a_watermark_behind_the_end_of_the_log_is_named_and_not_waited_for() {
    let (app, invoices) = two_invoices().await;
    app.tamper("UPDATE invoices SET watermark = '655360000' WHERE number = 2")
        .await;
    let found = app.verify(&invoices[1]).await;
    assert_eq!(found["verified"], false);
    let differences = found["differences"].as_array().unwrap();
    let watermark = differences.iter().find(|one| one["pointer"] == "/watermark");
    assert_eq!(watermark.unwrap()["found"], "655360000", "{found}");
}

#[tokio::test]
async fn many_invoices_are_verified_with_one_pass_over_the_log() {
    let (app, invoices) = two_invoices().await;
    app.tamper("UPDATE invoices SET tax = 1 WHERE number = 2").await;
    app.usage.passes.store(0, Ordering::Relaxed);
    let asked = json!({"invoices": ["INV-000002", invoices[0]["id"]]});
    let found = app.post("/v1/invoices/verify", asked).await;
    assert_eq!(app.usage.passes.load(Ordering::Relaxed), 1);
    let data = found["data"].as_array().unwrap();
    let said = |at: usize| (data[at]["invoice"].clone(), data[at]["verified"].clone());
    assert_eq!(said(0), (json!("INV-000002"), json!(false)));
    assert_eq!(said(1), (invoices[0]["id"].clone(), json!(true)));
    for (invoices, status) in [
        (json!([]), 422),
        (json!(["INV-000009"]), 404),
        (json!(vec!["INV-000001"; 1_001]), 422),
    ] {
        let asked = json!({ "invoices": invoices });
        assert_eq!(app.call("POST", "/v1/invoices/verify", asked).await.0, status);
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
    let (app, _) = two_invoices().await;
    let mut connection = app.database().await;
    for sql in [
        "UPDATE invoices SET total = 0",
        "UPDATE invoices SET status = 'draft'",
        "UPDATE invoices SET status = 'paid'",
        "UPDATE invoice_history SET status = 'paid'",
        "DELETE FROM invoice_history",
        "UPDATE invoices SET number = 7 WHERE number = 1",
        "UPDATE invoices SET parties = NULL WHERE number = 1",
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

/// What became of an invoice is none of its hash: its history says it, and neither can be changed without the other.
#[tokio::test]
async fn a_status_that_nobody_gave_is_found() {
    let history = "FROM invoice_history WHERE invoice = (SELECT id FROM invoices WHERE number = 2)";
    for sql in [
        "UPDATE invoices SET status = 'open' WHERE number = 2".to_owned(),
        "UPDATE invoices SET status = 'void' WHERE number = 2".to_owned(),
        "UPDATE invoice_history SET status = 'void' WHERE status = 'uncollectible'".to_owned(),
        "UPDATE invoice_history SET at_us = at_us + 1 WHERE status = 'uncollectible'".to_owned(),
        "UPDATE invoice_history SET status = x'ff' WHERE status = 'uncollectible'".to_owned(),
        format!("DELETE {history} AND step = 0"),
        format!("DELETE {history} AND step = 2"),
        format!("DELETE {history}"),
    ] {
        let (app, invoices) = two_invoices().await;
        for step in ["uncollectible", "pay"] {
            let id = invoices[1]["id"].as_str().unwrap();
            app.post(&format!("/v1/invoices/{id}/{step}"), json!({})).await;
        }
        for (_, told) in verify_all(&app).await {
            assert_eq!(told["verified"], true, "{told}");
        }
        app.tamper(&sql).await;
        let told = verify_all(&app).await;
        assert_eq!(told[0].1["verified"], true, "{sql} {told:?}");
        let differences = told[1].1["differences"].as_array().unwrap();
        let places: Vec<_> = differences.iter().map(|one| &one["pointer"]).collect();
        assert_eq!(places, ["/status"], "{sql} {told:?}");
    }
}

/// Invoices that an earlier build made final have a history from their status of that day on.
#[tokio::test]
async fn invoices_from_before_there_were_histories_get_one() {
    let (app, invoices) = two_invoices().await;
    app.tamper("DELETE FROM _sqlx_migrations WHERE version = 7").await;
    sqlx::query("DROP TABLE invoice_history")
        .execute(&mut app.database().await)
        .await
        .unwrap();
    let app = app.restarted("").await;
    let id = invoices[1]["id"].as_str().unwrap();
    app.post(&format!("/v1/invoices/{id}/pay"), json!({})).await;
    for (_, told) in verify_all(&app).await {
        assert_eq!(told["verified"], true, "{told}");
    }
    app.tamper("UPDATE invoices SET status = 'paid'").await;
    let told = verify_all(&app).await;
    let paid = json!([{"pointer": "/status", "expected": "open", "found": "paid"}]);
    assert_eq!(
        (&told[0].1["differences"], &told[1].1["verified"]),
        (&paid, &json!(true))
    );
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
