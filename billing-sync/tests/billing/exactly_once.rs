//! R17: whoever asks, however often, through whichever crash: one invoice per period, and numbers without gaps.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::app::{App, amounts};

const CUSTOMERS: usize = 5;

async fn with_customers(app: &App) {
    let plan = json!({"currency": "USD", "prices": [
        {"key": "base", "model": "flat", "amount": "10", "timing": "arrears"},
        {"key": "units", "meter": "tokens", "model": "per_unit", "unit_amount": "0.5"}]});
    app.catalog(plan, "UTC").await;
    for n in 0..CUSTOMERS {
        app.put(&format!("/v1/customers/c{n}"), json!({})).await;
        app.subscribe(json!({"customer": format!("c{n}")})).await;
        app.usage
            .add(&format!("c{n}"), "2026-01-05T00:00:00Z", &n.to_string());
    }
}

fn assert_once(invoices: &[Value], periods: usize) {
    assert_eq!(invoices.len(), CUSTOMERS * periods);
    let keys: BTreeSet<_> = invoices
        .iter()
        .map(|i| (i["subscription"].to_string(), i["period"].to_string()))
        .collect();
    assert_eq!(
        keys.len(),
        invoices.len(),
        "one invoice per subscription and period"
    );
    let numbers: BTreeSet<_> = invoices
        .iter()
        .map(|i| i["number"].as_str().unwrap().to_owned())
        .collect();
    let expected: BTreeSet<_> = (1..=invoices.len()).map(|n| format!("INV-{n:06}")).collect();
    assert_eq!(numbers, expected, "numbers have no gaps");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r17_a_hundred_runs_and_finalise_calls_at_once() {
    let app = Arc::new(App::start().await);
    with_customers(&app).await;
    app.at("2026-02-01T00:30:00Z");
    app.run("2026-02-01T00:00:00Z").await;
    let drafts = app.invoices().await;
    assert!(drafts.len() == CUSTOMERS && drafts.iter().all(|draft| draft["status"] == "draft"));
    app.at("2026-02-01T01:00:00Z");
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..100 {
        let app = app.clone();
        let id = drafts[n % CUSTOMERS]["id"].as_str().unwrap().to_owned();
        calls.spawn(async move {
            if n % 2 == 0 {
                let (status, body) = app
                    .call("POST", &format!("/v1/invoices/{id}/finalize"), json!({}))
                    .await;
                assert_eq!((status, &body["status"]), (200, &json!("open")), "{body}");
                Some(body)
            } else {
                let run = app
                    .post("/v1/billing/runs", json!({"period_end": "2026-02-01T00:00:00Z"}))
                    .await;
                assert_eq!(app.follow(run["id"].as_str().unwrap()).await["status"], "done");
                None
            }
        });
    }
    let answers: Vec<Value> = calls.join_all().await.into_iter().flatten().collect();
    let invoices = app.invoices().await;
    assert_once(&invoices, 1);
    for answer in answers {
        let stands = invoices
            .iter()
            .find(|invoice| invoice["id"] == answer["id"])
            .unwrap();
        assert_eq!(&answer, stands, "every caller saw the same bytes");
    }
    for invoice in &invoices {
        assert_eq!(app.verify(invoice).await["verified"], true);
    }
    app.usage.add("c1", "2026-01-06T00:00:00Z", "10");
    app.run("2026-02-01T00:00:00Z").await;
    assert_eq!(
        app.invoices().await,
        invoices,
        "later usage changes nothing that is final"
    );
}

/// Every point between two durable steps of a run, before and behind its commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_anywhere_resumes_to_exactly_one_invoice() {
    let mut crashes = 0;
    for point in ["sql.before_commit", "sql.after_commit"] {
        for at in 1.. {
            let app = App::start().await;
            with_customers(&app).await;
            app.at("2026-03-02T00:00:00Z");
            let app = app.restarted(&format!("{point}:{at}:down")).await;
            let (status, run) = app
                .call(
                    "POST",
                    "/v1/billing/runs",
                    json!({"period_end": "2026-03-01T00:00:00Z"}),
                )
                .await;
            let broke = match (status, run["id"].as_str()) {
                (202, Some(id)) => !went_well(&app, id).await,
                _ => true,
            };
            let app = app.restarted("").await;
            let again = app.run("2026-03-01T00:00:00Z").await;
            assert_eq!(again["status"], "done", "{point}:{at} {again}");
            let invoices = app.invoices().await;
            assert_once(&invoices, 2);
            // Each invoice is counted by the run that made it, through the crash; and nothing twice.
            let runs = app.get("/v1/billing/runs").await;
            let runs = runs["data"].as_array().unwrap();
            let counted: u64 = runs.iter().map(|run| run["invoices"].as_u64().unwrap()).sum();
            assert_eq!(counted, invoices.len() as u64, "{point}:{at} {runs:?}");
            for run in runs {
                assert_eq!(run["subscriptions"], CUSTOMERS, "{point}:{at} {runs:?}");
            }
            assert!(
                invoices.iter().all(|invoice| invoice["status"] == "open"),
                "{point}:{at}"
            );
            assert_eq!(app.verify(&invoices[0]).await["verified"], true, "{point}:{at}");
            if !broke {
                break;
            }
            crashes += 1;
        }
    }
    println!("{crashes} crashes injected");
    // Begin, running, two periods of two steps each, progress and end, before each commit and behind all but the last.
    assert!(crashes >= 15, "only {crashes} crashes were injected");
}

/// Whether the run comes to its end; `false` once it does not go on.
async fn went_well(app: &App, id: &str) -> bool {
    for _ in 0..40 {
        let run = app.get(&format!("/v1/billing/runs/{id}")).await;
        match run["status"].as_str().unwrap() {
            "done" => return true,
            "failed" => return false,
            _ => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
    false
}

/// A step that fails for all at once is done again for each alone, and each subscription is billed once all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_fails_for_many_is_done_for_each() {
    for point in ["sql.before_commit", "sql.after_commit"] {
        // The third transaction behind the run's own two closes the first period of all.
        for at in 3..=6 {
            let app = App::start().await;
            with_customers(&app).await;
            app.at("2026-03-02T00:00:00Z");
            let app = app.restarted(&format!("{point}:{at}:error")).await;
            let run = app.run("2026-03-01T00:00:00Z").await;
            assert_eq!(
                (&run["status"], &run["failed"]),
                (&json!("done"), &json!(0)),
                "{point}:{at} {run}"
            );
            assert_eq!(run["invoices"], CUSTOMERS * 2, "{point}:{at} {run}");
            assert_once(&app.invoices().await, 2);
        }
    }
}

/// A voided invoice keeps its number, its period stays closed, and what comes late is the difference to what it says.
#[tokio::test]
async fn a_voided_invoice_keeps_its_number_and_its_period() {
    let app = App::start().await;
    with_customers(&app).await;
    app.at("2026-02-02T00:00:00Z");
    app.run("2026-02-01T00:00:00Z").await;
    let before = app.invoices().await;
    let voided = before.iter().find(|invoice| invoice["customer"] == "c3").unwrap();
    let id = voided["id"].as_str().unwrap();
    let now = app.post(&format!("/v1/invoices/{id}/void"), json!({})).await;
    assert_eq!(
        (&now["status"], &now["number"]),
        (&json!("void"), &voided["number"])
    );
    assert_eq!((&now["hash"], &now["lines"]), (&voided["hash"], &voided["lines"]));
    app.usage.add("c3", "2026-01-20T00:00:00Z", "4");
    app.run("2026-02-01T00:00:00Z").await;
    assert_once(&app.invoices().await, 1);
    app.at("2026-03-02T00:00:00Z");
    app.run("2026-03-01T00:00:00Z").await;
    let after = app.invoices().await;
    assert_once(&after, 2);
    let next = after.iter().rfind(|invoice| invoice["customer"] == "c3").unwrap();
    assert_eq!(amounts(next, "adjustment"), ["2.00"], "{next}");
    for invoice in &after {
        assert_eq!(app.verify(invoice).await["verified"], true, "{invoice}");
    }
}
