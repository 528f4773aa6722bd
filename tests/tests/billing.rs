//! From usage to an invoice, over HTTP: equal to the oracle to the last minor unit, verified from the raw log, never
//! changed once final; what comes late is adjusted on the next one.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use turnpike_tests::app::{ADMIN_KEY, App, AppOptions, Caller};
use turnpike_tests::oracle::{Bill, OraclePrice, OracleTier};

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");

/// A tenant with its own clock, and an admin key of it.
async fn test_tenant(app: &App) -> Caller {
    let admin = app.admin();
    let made = admin
        .created("/v1/tenants", &json!({"key": "lab", "name": "Lab", "test": true}))
        .await;
    let key = made["api_key"].as_str().expect("a key").to_owned();
    assert_ne!(key, ADMIN_KEY);
    app.caller(&key)
}

fn tier(up_to: Option<&str>, unit: &str, flat: &str) -> OracleTier {
    OracleTier {
        up_to: up_to.map(str::to_owned),
        unit_amount: unit.to_owned(),
        flat_amount: flat.to_owned(),
    }
}

fn prices(quantity: &str) -> Vec<(OraclePrice, &str)> {
    vec![
        (
            OraclePrice::Flat {
                amount: "29.00".into(),
            },
            "0",
        ),
        (
            OraclePrice::PerUnit {
                unit_amount: "0.0004".into(),
                included: "1000".into(),
            },
            quantity,
        ),
        (
            OraclePrice::Graduated {
                tiers: vec![
                    tier(Some("1000"), "0.05", "10"),
                    tier(Some("5000"), "0.041", "0"),
                    tier(None, "0.003", "0"),
                ],
            },
            quantity,
        ),
        (
            OraclePrice::Package {
                size: "1000".into(),
                amount: "1.00".into(),
            },
            quantity,
        ),
    ]
}

async fn catalog(caller: &Caller) {
    caller
        .put(
            "/v1/meters/tokens",
            &json!({"event_type": "llm", "aggregation": "sum", "value": "$.tokens"}),
        )
        .await;
    let plan = json!({
        "currency": "USD",
        "prices": [
            {"key": "base", "model": "flat", "amount": "29.00", "timing": "arrears"},
            {"key": "units", "meter": "tokens", "model": "per_unit", "unit_amount": "0.0004", "included": "1000"},
            {"key": "tiers", "meter": "tokens", "model": "graduated", "tiers": [
                {"up_to": "1000", "unit_amount": "0.05", "flat_amount": "10"},
                {"up_to": "5000", "unit_amount": "0.041"}, {"up_to": null, "unit_amount": "0.003"}]},
            {"key": "packs", "meter": "tokens", "model": "package", "package_size": "1000", "package_amount": "1.00"},
        ],
    });
    caller.put("/v1/plans/pro", &plan).await;
    let customer = json!({"name": "Acme", "timezone": "Europe/Istanbul", "subjects": ["acme", "acme-eu"]});
    caller.put("/v1/customers/acme", &customer).await;
}

async fn clock(caller: &Caller) -> jiff::Timestamp {
    let (status, body) = caller.get("/v1/test-clock").await;
    assert_eq!(status, 200, "{body}");
    let text = body["now"]
        .as_str()
        .or_else(|| body["time"].as_str())
        .expect("a time");
    text.parse().expect("a time")
}

async fn send(caller: &Caller, id: &str, subject: &str, tokens: &str, time: jiff::Timestamp) {
    let event = json!({
        "id": id, "source": "gateway", "type": "llm", "subject": subject, "time": time.to_string(), "data": {"tokens": tokens},
    });
    let (status, body) = caller.post("/v1/events", &event).await;
    assert_eq!(status, 200, "{body}");
}

async fn run_until(caller: &Caller, end: &str) -> Value {
    let run = caller
        .created("/v1/billing/runs", &json!({ "period_end": end }))
        .await;
    let id = run["id"].as_str().expect("an id").to_owned();
    for _ in 0..200 {
        let (_, run) = caller.get(&format!("/v1/billing/runs/{id}")).await;
        match run["status"].as_str() {
            Some("done") => return run,
            Some("failed") => panic!("{run}"),
            _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
    panic!("the run did not end");
}

async fn invoices(caller: &Caller) -> Vec<Value> {
    let (status, body) = caller.get("/v1/invoices?customer=acme&limit=100").await;
    assert_eq!(status, 200, "{body}");
    let mut invoices = body["data"].as_array().expect("rows").clone();
    invoices.sort_by_key(|invoice| invoice["period"]["start"].as_str().unwrap_or("").to_owned());
    invoices
}

async fn verified(caller: &Caller, invoice: &Value) {
    let id = invoice["id"].as_str().expect("an id");
    let (status, body) = caller
        .post(&format!("/v1/invoices/{id}/verify"), &json!({}))
        .await;
    assert_eq!((status, &body["verified"]), (200, &json!(true)), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invoice_is_what_the_oracle_says_and_stays_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start(BINARY, directory.path()).await;
    let caller = test_tenant(&app).await;
    catalog(&caller).await;
    let start = clock(&caller).await;
    let hours = |n: i64| start + jiff::SignedDuration::from_hours(n);
    let body = json!({"customer": "acme", "plan": "pro", "start": start.to_string()});
    let subscription = caller.created("/v1/subscriptions", &body).await;
    let period = &subscription["current_period"];
    let first_end: jiff::Timestamp = period["end"].as_str().expect("an end").parse().expect("a time");
    send(&caller, "1", "acme", "1500.5", start).await;
    send(&caller, "2", "acme-eu", "3200.25", start).await;
    send(&caller, "3", "somebody-else", "999999", start).await;

    let advance = async |caller: &Caller, to: jiff::Timestamp| {
        let (status, body) = caller
            .post("/v1/test-clock/advance", &json!({"to": to.to_string()}))
            .await;
        assert_eq!(status, 200, "{body}");
    };
    advance(&caller, first_end + jiff::SignedDuration::from_hours(2)).await;
    run_until(&caller, &first_end.to_string()).await;
    let first = invoices(&caller).await.remove(0);
    let expected = Bill::of(&prices("4700.75"), 2);
    let amounts: Vec<_> = first["lines"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| line["amount"].clone())
        .collect();
    let expected_amounts: Vec<_> = expected.lines.iter().map(|amount| json!(amount)).collect();
    assert_eq!(amounts, expected_amounts, "{first}");
    assert_eq!(first["total"], json!(expected.total), "{first}");
    verified(&caller, &first).await;

    // Late for the first period: the invoice stays, the next one has an adjustment.
    send(&caller, "late", "acme", "5000", hours(1)).await;
    let (status, body) = caller.post("/v1/events/gateway/2/void", &json!({})).await;
    assert_eq!(status, 200, "{body}");
    send(
        &caller,
        "4",
        "acme",
        "10",
        first_end + jiff::SignedDuration::from_hours(1),
    )
    .await;
    let before = first.clone();
    app.kill();
    app.restart().await;
    let caller = app.caller(&caller.api_key());
    assert_eq!(invoices(&caller).await[0], before, "a final invoice changed");
    let (_, subscription) = caller
        .get(&format!(
            "/v1/subscriptions/{}",
            subscription["id"].as_str().expect("an id")
        ))
        .await;
    let second_end = subscription["current_period"]["end"]
        .as_str()
        .expect("an end")
        .to_owned();
    let later: jiff::Timestamp = second_end.parse().expect("a time");
    advance(&caller, later + jiff::SignedDuration::from_hours(2)).await;
    run_until(&caller, &second_end).await;
    let all = invoices(&caller).await;
    let second = &all[1];
    let (billed, corrected) = (Bill::of(&prices("4700.75"), 2), Bill::of(&prices("6500.5"), 2));
    let minor = |text: &str| text.replace('.', "").parse::<i64>().expect("an amount");
    let adjusted: i64 = second["lines"]
        .as_array()
        .expect("lines")
        .iter()
        .filter(|line| line["kind"] == "adjustment")
        .map(|line| minor(line["amount"].as_str().expect("an amount")))
        .sum();
    assert_eq!(
        adjusted,
        minor(&corrected.total) - minor(&billed.total),
        "{second}"
    );
    let total = minor(second["total"].as_str().expect("a total"));
    assert_eq!(
        total,
        adjusted + minor(&Bill::of(&prices("10"), 2).total),
        "{second}"
    );
    assert_eq!(all[0], before, "a final invoice changed");
    for invoice in &all {
        verified(&caller, invoice).await;
    }
    let numbers: Vec<_> = all.iter().map(|invoice| invoice["number"].clone()).collect();
    assert_eq!(numbers, [json!("INV-000001"), json!("INV-000002")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_a_hundred_runs_at_once_make_one_invoice() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let caller = test_tenant(&app).await;
    catalog(&caller).await;
    let start = clock(&caller).await;
    let body = json!({"customer": "acme", "plan": "pro", "start": start.to_string()});
    let subscription = caller.created("/v1/subscriptions", &body).await;
    send(&caller, "1", "acme", "2000", start).await;
    let end = subscription["current_period"]["end"]
        .as_str()
        .expect("an end")
        .to_owned();
    let to: jiff::Timestamp = end.parse().expect("a time");
    let to = (to + jiff::SignedDuration::from_hours(2)).to_string();
    let mut calls = tokio::task::JoinSet::new();
    let (status, body) = caller.post("/v1/test-clock/advance", &json!({ "to": to })).await;
    assert_eq!(status, 200, "{body}");
    for _ in 0..100 {
        let (caller, end) = (caller.clone(), end.clone());
        calls.spawn(async move {
            caller
                .post("/v1/billing/runs", &json!({ "period_end": end }))
                .await
        });
    }
    let mut accepted = 0;
    while let Some(call) = calls.join_next().await {
        let (status, body) = call.expect("a call");
        assert!(status == 202 || status == 409, "{status} {body}");
        accepted += u64::from(status == 202);
    }
    assert!(accepted > 0);
    run_until(&caller, &end).await;
    let invoices = invoices(&caller).await;
    assert_eq!(invoices.len(), 1, "{invoices:?}");
    assert_eq!(invoices[0]["number"], "INV-000001");
    let id = invoices[0]["id"].as_str().expect("an id");
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (caller, path) = (caller.clone(), format!("/v1/invoices/{id}/finalize"));
        calls.spawn(async move { caller.post(&path, &json!({})).await.0 });
    }
    while let Some(status) = calls.join_next().await {
        let status = status.expect("a call");
        assert!(status == 200 || status == 409, "{status}");
    }
    let (_, after) = caller.get(&format!("/v1/invoices/{id}")).await;
    assert_eq!(after["hash"], invoices[0]["hash"]);
    verified(&caller, &after).await;
}

const MANY: usize = 130;

/// The end of a month, counted from January 2025.
fn month_end(month: usize) -> String {
    format!("{}-{:02}-01T00:00:00Z", 2025 + month / 12, month % 12 + 1)
}

async fn many_subscriptions(caller: &Caller) {
    catalog(caller).await;
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
            if app.ends_within(std::time::Duration::from_secs(20)) {
                killed += 1;
            }
            app.restart().await;
            run_until(&app.admin(), &month_end(months)).await;
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
