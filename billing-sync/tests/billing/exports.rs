//! What is written for other programs.

use serde_json::json;

use crate::app::App;

#[tokio::test]
async fn no_text_of_the_csv_is_a_formula() {
    let app = App::start().await;
    let price = json!({"key": "base", "model": "flat", "amount": "5", "timing": "arrears"});
    app.catalog(
        json!({"name": "=HYPERLINK(\"http://x\")", "currency": "USD", "prices": [price]}),
        "UTC",
    )
    .await;
    app.subscribe(json!({})).await;
    app.at("2026-02-02T00:00:00Z");
    app.run("2026-02-01T00:00:00Z").await;
    let (_, text) = app.call("GET", "/v1/export/invoices", json!(null)).await;
    let mut rows = csv::Reader::from_reader(text.as_str().unwrap().as_bytes());
    let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
    assert_eq!(&rows[0][12], "'=HYPERLINK(\"http://x\"): base");
    assert_eq!(&rows[0][14], "5.00");
}
