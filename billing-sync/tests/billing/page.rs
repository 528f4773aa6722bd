//! The page of an invoice as a browser prints it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::app::App;

const LINES: usize = 120;
const NASTY: &str = "<script>alert(1)</script> & \"Sons\" <img src=x onerror=alert(2)>";

/// An invoice of many lines, whose names are written to break out of a page.
async fn long_page() -> String {
    let app = App::start().await;
    let price = |n: usize| {
        let minor = format!("{n}.25");
        json!({"key": format!("item-{n:03}"), "model": "flat", "amount": minor, "timing": "arrears"})
    };
    let prices: Vec<Value> = (0..LINES).map(price).collect();
    app.catalog(json!({"name": NASTY, "currency": "USD", "prices": prices}), "UTC")
        .await;
    app.put(
        "/v1/customers/acme",
        json!({"name": NASTY, "email": "a<b>@example.com"}),
    )
    .await;
    app.subscribe(json!({})).await;
    app.at("2026-02-02T00:00:00Z");
    app.run("2026-02-01T00:00:00Z").await;
    let (status, page) = app.call("GET", "/v1/invoices/INV-000001.html", Value::Null).await;
    assert_eq!(status, 200);
    page.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn nothing_in_a_name_is_taken_for_markup() {
    let page = long_page().await;
    assert_eq!(
        page.matches("alert(1)").count(),
        LINES + 2,
        "in the title, for the customer, on each line"
    );
    for markup in ["<script", "<img", "<b>"] {
        assert!(!page.contains(markup), "{markup} is not escaped");
    }
    assert!(page.contains("&lt;script&gt;"), "it is shown as it was written");
}

/// The text of the printed page, one part for each sheet; `None` where there is no browser or reader of PDF.
fn printed(page: &str, directory: &Path) -> Option<Vec<String>> {
    let (html, pdf) = (directory.join("invoice.html"), directory.join("invoice.pdf"));
    std::fs::write(&html, page).unwrap();
    let print = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-pdf-header-footer",
        ])
        .arg(format!("--user-data-dir={}", directory.join("profile").display()))
        .arg(format!("--print-to-pdf={}", pdf.display()))
        .arg(&html)
        .output();
    let read = |pdf: &Path| {
        Command::new("pdftotext")
            .arg("-layout")
            .arg(pdf)
            .arg("-")
            .output()
    };
    match (print, read(&pdf)) {
        (Ok(printed), Ok(text)) => {
            assert!(printed.status.success() && text.status.success(), "{printed:?}");
            let text = String::from_utf8(text.stdout).unwrap();
            let sheets = text.split('\u{c}').map(str::to_owned);
            Some(sheets.filter(|sheet| !sheet.trim().is_empty()).collect())
        }
        _ => None,
    }
}

#[tokio::test]
async fn a_long_invoice_prints_its_heading_on_each_sheet_and_its_sums_once() {
    let directory = tempfile::tempdir().unwrap();
    let Some(sheets) = printed(&long_page().await, directory.path()) else {
        println!("skipped: chromium or pdftotext is not installed");
        return;
    };
    assert!(sheets.len() > 3, "{} sheets", sheets.len());
    let times = |text: &str| {
        sheets
            .iter()
            .map(|sheet| sheet.matches(text).count())
            .sum::<usize>()
    };
    assert_eq!(times("Subtotal"), 1, "the sums stand once: {sheets:?}");
    for sheet in sheets.iter().filter(|sheet| sheet.contains("item-")) {
        assert_eq!(
            sheet.matches("Description").count(),
            1,
            "the columns are named: {sheet}"
        );
    }
    for n in 0..LINES {
        assert_eq!(times(&format!("item-{n:03}")), 1, "line {n}");
    }
    let last = format!("item-{:03}", LINES - 1);
    let sums = sheets.iter().find(|sheet| sheet.contains("Subtotal")).unwrap();
    assert!(
        sums.contains(&last) && sums.contains("Total"),
        "whole, behind the last line: {sums}"
    );
}
