//! Stored values of invoices that cannot be read.

use serde_json::{Value, json};

use crate::verification::{two_invoices, verify_all};

/// A value that cannot even be read is named like any other, and keeps no other invoice from being verified.
#[tokio::test]
async fn what_cannot_be_read_is_named_and_the_others_are_verified() {
    let line = "line = 4 AND invoice = (SELECT id FROM invoices WHERE number = 2)";
    let mut tried = 0;
    for (table, which) in [("invoices", "number = 2"), ("invoice_lines", line)] {
        for column in two_invoices().await.0.columns(table).await {
            // Whose it is, and the place of the last line, say nothing of the invoice.
            if ["tenant", "line"].contains(&column.as_str()) {
                continue;
            }
            let (app, _) = two_invoices().await;
            let sql = format!("UPDATE {table} SET {column} = x'ff' WHERE {which}");
            app.tamper(&sql).await;
            let told = verify_all(&app).await;
            let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["INV-000001", "INV-000002"], "{sql}");
            assert_eq!(told[0].1["verified"], true, "{sql} {told:?}");
            assert_eq!(told[1].1["verified"], false, "{sql} {told:?}");
            let pointer = told[1].1["differences"][0]["pointer"].as_str();
            assert!(
                pointer.is_some_and(|pointer| pointer.starts_with('/')),
                "{told:?}"
            );
            tried += 1;
        }
    }
    assert!(tried > 30, "vacuous: {tried} columns");
}

/// Asked for, such an invoice is told with what is damaged, and lists and exports show the others beside it.
#[tokio::test]
async fn an_invoice_that_cannot_be_read_is_named_and_the_others_are_shown() {
    let line = "line = 4 AND invoice = (SELECT id FROM invoices WHERE number = 2)";
    for (table, which, column, pointer) in [
        ("invoices", "number = 2", "total", "/total"),
        ("invoices", "number = 2", "status", "/status"),
        ("invoices", "number = 2", "period_end_us", "/period/end"),
        ("invoice_lines", line, "quantity", "/lines/4/quantity"),
    ] {
        let (app, invoices) = two_invoices().await;
        app.tamper(&format!("UPDATE {table} SET {column} = 'many' WHERE {which}"))
            .await;
        let id = invoices[1]["id"].as_str().unwrap();
        let field = json!({"pointer": pointer, "expected": "a value that can be read", "found": "many"});
        let calls = [
            ("GET", format!("/v1/invoices/{id}")),
            ("GET", "/v1/invoices/INV-000002".to_owned()),
            ("GET", format!("/v1/invoices/{id}.html")),
            ("POST", format!("/v1/invoices/{id}/pay")),
            ("POST", format!("/v1/invoices/{id}/finalize")),
        ];
        for (method, path) in calls {
            let (status, problem) = app.call(method, &path, Value::Null).await;
            assert_eq!(
                (status, &problem["code"]),
                (500, &json!("damaged")),
                "{path} {problem}"
            );
            assert_eq!(problem["retryable"], false);
            assert!(
                problem["detail"].as_str().unwrap().contains(id),
                "{path} {problem}"
            );
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{path} {problem}");
        }
        let page = app.get("/v1/invoices").await;
        let damaged = json!([{"id": id, "number": "INV-000002", "field": field}]);
        assert_eq!(
            (&page["data"], &page["damaged"]),
            (&json!([invoices[0]]), &damaged)
        );
        let first = app.get("/v1/invoices?limit=1").await;
        assert_eq!((&first["data"], &first["damaged"]), (&json!([]), &damaged));
        let cursor = first["next_cursor"].as_str().unwrap();
        let second = app.get(&format!("/v1/invoices?limit=1&cursor={cursor}")).await;
        assert_eq!(second, json!({"data": [invoices[0]], "next_cursor": null}));
        let (_, text) = app
            .call("GET", "/v1/export/invoices?format=ndjson", Value::Null)
            .await;
        let rows: Vec<Value> = text
            .as_str()
            .unwrap()
            .lines()
            .map(|row| serde_json::from_str(row).unwrap())
            .collect();
        assert_eq!(rows, [json!({"damaged": damaged[0]}), invoices[0].clone()]);
        let (_, csv) = app.call("GET", "/v1/export/invoices", Value::Null).await;
        let told = format!("{id},INV-000002,,,,,,,,damaged,,,{pointer} cannot be read,,,,");
        assert_eq!(csv.as_str().unwrap().lines().nth(1), Some(told.as_str()));
    }
}

#[tokio::test]
async fn a_line_that_cannot_be_read_is_told_by_the_invoice_that_corrects_it_too() {
    let (app, _) = two_invoices().await;
    app.tamper("UPDATE invoice_lines SET quantity = 'many' WHERE line = 1 AND invoice = (SELECT id FROM invoices WHERE number = 1)").await;
    let told = verify_all(&app).await;
    let quantity =
        json!({"pointer": "/lines/1/quantity", "expected": "a value that can be read", "found": "many"});
    assert_eq!(told[0].1["differences"], json!([quantity]), "{told:?}");
    let second = told[1].1["differences"].as_array().unwrap();
    assert!(second.iter().any(|one| one["pointer"] == "/lines"), "{told:?}");
}
