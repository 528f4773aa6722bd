//! R17 over many subscriptions: a run that bills them in batches, killed at each of its commits.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use turnpike_tests::app::{App, AppOptions, Caller};
use turnpike_tests::billing::bill;
use turnpike_tests::instant::us;

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");
/// Subscriptions: more than are billed at once.
const MANY: usize = 130;

/// The end of a month, counted from January 2025.
fn month_end(month: usize) -> String {
    format!("{}-{:02}-01T00:00:00Z", 2025 + month / 12, month % 12 + 1)
}

async fn many_subscriptions(caller: &Caller) {
    let meter = json!({"event_type": "llm", "aggregation": "sum", "value": "$.tokens"});
    caller.put("/v1/meters/tokens", &meter).await;
    let prices = json!([
        {"key": "base", "model": "flat", "amount": "29.00", "timing": "arrears"},
        {"key": "units", "meter": "tokens", "model": "per_unit", "unit_amount": "0.0004", "included": "1000"},
    ]);
    caller
        .put("/v1/plans/pro", &json!({"currency": "USD", "prices": prices}))
        .await;
    for n in 0..MANY {
        let key = format!("many-{n:03}");
        caller.put(&format!("/v1/customers/{key}"), &json!({})).await;
        let body = json!({"customer": key, "plan": "pro", "start": "2025-01-01T00:00:00Z"});
        caller.created("/v1/subscriptions", &body).await;
    }
}

/// Numbers and periods of all invoices, page by page.
async fn all_invoices(caller: &Caller) -> Vec<(String, String)> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let (status, page) = caller.get(&format!("/v1/invoices?limit=1000{cursor}")).await;
        assert_eq!(status, 200, "{page}");
        for invoice in page["data"].as_array().expect("rows") {
            let number = invoice["number"].as_str().expect("a final invoice");
            let period = format!("{} {}", invoice["subscription"], invoice["period"]);
            all.push((number.to_owned(), period));
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// A run over more subscriptions than are billed at once, killed before and behind each of its commits: after a restart
/// each period has one final invoice, and numbers have no gaps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_a_run_killed_at_each_of_its_commits_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = AppOptions::small(BINARY, directory.path());
    options.set("TURNPIKE_BILLING_CHECK_INTERVAL_S", "0");
    let mut app = App::start_with(options).await;
    many_subscriptions(&app.admin()).await;
    let (mut killed, mut months) = (0, 0);
    // Begin, running, two batches of close, numbers and progress, end.
    for point in ["sql.before_commit", "sql.after_commit"] {
        for nth in 1..=9 {
            months += 1;
            let asked = json!({ "period_end": month_end(months) });
            assert!(app.restart_armed(&format!("{point}:{nth}")).await);
            let path = "/v1/billing/runs";
            app.admin().send(reqwest::Method::POST, path, Some(&asked)).await;
            if app.ends_within(Duration::from_secs(20)) {
                killed += 1;
            }
            app.restart().await;
            assert!(bill(&app.admin(), us(&month_end(months))).await, "{point}:{nth}");
        }
    }
    println!("{killed} kills injected over {months} months of {MANY} subscriptions");
    assert_eq!(killed, 18, "vacuous: a point was not reached");
    let all = all_invoices(&app.admin()).await;
    assert_eq!(all.len(), MANY * months);
    let numbers: BTreeSet<_> = all.iter().map(|(number, _)| number.clone()).collect();
    let expected: BTreeSet<_> = (1..=all.len()).map(|n| format!("INV-{n:06}")).collect();
    assert_eq!(numbers, expected, "numbers have no gaps");
    let periods: BTreeSet<_> = all.iter().map(|(_, period)| period).collect();
    assert_eq!(periods.len(), all.len(), "one invoice for each period");
    for numbers in all.chunks(1_000) {
        let ids: Vec<_> = numbers.iter().map(|(number, _)| number).collect();
        let found = app
            .admin()
            .post("/v1/invoices/verify", &json!({ "invoices": ids }))
            .await
            .1;
        let data = found["data"].as_array().expect("one for each");
        assert!(data.len() == ids.len() && data.iter().all(|one| one["verified"] == true));
    }
}
