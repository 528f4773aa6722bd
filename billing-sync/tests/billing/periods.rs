//! Which periods there are, and what is charged when.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use turnpike_domain::port::billing::{BillingStore as _, Look};
use turnpike_domain::port::control::DueWork as _;
use turnpike_domain::time::{Clock as _, Timestamp};

use crate::app::{App, LAB, amounts};

fn flat(timing: &str) -> Value {
    json!({"currency": "USD", "prices": [{"key": "base", "model": "flat", "amount": "31.00", "timing": timing},
        {"key": "units", "meter": "tokens", "model": "per_unit", "unit_amount": "1"}]})
}

async fn ends(plan: Value, zone: &str, more: Value, now: &str) -> Vec<(String, String)> {
    let app = App::start().await;
    app.catalog(plan, zone).await;
    app.subscribe(more).await;
    app.at(now);
    app.run(now).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let invoices = app.invoices().await;
    invoices
        .iter()
        .map(|i| (text(&i["period"]["start"]), text(&i["period"]["end"])))
        .collect()
}

fn pairs(bounds: &[&str]) -> Vec<(String, String)> {
    bounds
        .windows(2)
        .map(|pair| (pair[0].to_owned(), pair[1].to_owned()))
        .collect()
}

#[tokio::test]
async fn month_ends_follow_the_anchor() {
    let start = json!({"start": "2025-10-31T10:00:00Z"});
    let found = ends(flat("arrears"), "UTC", start, "2026-03-31T12:00:00Z").await;
    assert_eq!(
        found,
        pairs(&[
            "2025-10-31T10:00:00Z",
            "2025-11-30T10:00:00Z",
            "2025-12-31T10:00:00Z",
            "2026-01-31T10:00:00Z",
            "2026-02-28T10:00:00Z",
            "2026-03-31T10:00:00Z",
        ])
    );
}

#[tokio::test]
async fn boundaries_follow_the_zone_through_clock_changes() {
    let start = json!({"start": "2025-09-30T22:00:00Z"});
    let found = ends(flat("arrears"), "Europe/Berlin", start, "2026-05-01T00:00:00Z").await;
    assert_eq!(
        found,
        pairs(&[
            "2025-09-30T22:00:00Z",
            "2025-10-31T23:00:00Z",
            "2025-11-30T23:00:00Z",
            "2025-12-31T23:00:00Z",
            "2026-01-31T23:00:00Z",
            "2026-02-28T23:00:00Z",
            "2026-03-31T22:00:00Z",
            "2026-04-30T22:00:00Z",
        ])
    );
}

#[tokio::test]
async fn a_first_period_up_to_another_anchor_is_charged_by_its_seconds() {
    let app = App::start().await;
    app.catalog(flat("arrears"), "UTC").await;
    app.subscribe(json!({"start": "2025-12-17T12:00:00Z", "anchor": "2026-01-01T00:00:00Z"}))
        .await;
    app.at("2026-02-01T01:00:00Z");
    app.run("2026-02-01T00:00:00Z").await;
    let invoices = app.invoices().await;
    assert_eq!(invoices[0]["period"]["end"], "2026-01-01T00:00:00Z");
    // 14.5 of the 31 days of December.
    assert_eq!(amounts(&invoices[0], "proration"), ["14.50"]);
    assert_eq!(amounts(&invoices[1], "recurring"), ["31.00"]);
}

#[tokio::test]
async fn what_is_in_advance_is_charged_at_the_start_and_for_the_next_period() {
    let app = App::start().await;
    app.catalog(flat("advance"), "UTC").await;
    app.subscribe(json!({})).await;
    app.at("2026-01-01T02:00:00Z");
    app.run("2026-01-01T02:00:00Z").await;
    let first = app.invoices().await;
    assert_eq!(first.len(), 1);
    assert_eq!(
        (&first[0]["period"]["end"], &first[0]["total"]),
        (&json!("2026-01-01T00:00:00Z"), &json!("31.00"))
    );
    assert_eq!(first[0]["lines"][0]["period"]["end"], "2026-02-01T00:00:00Z");
    app.usage.add("acme", "2026-01-15T00:00:00Z", "2");
    app.at("2026-02-01T02:00:00Z");
    app.run("2026-02-01T02:00:00Z").await;
    let second = &app.invoices().await[1];
    assert_eq!(
        (amounts(second, "recurring"), amounts(second, "usage")),
        (vec!["31.00".to_owned()], vec!["2.00".to_owned()])
    );
    assert_eq!(second["lines"][0]["period"]["start"], "2026-02-01T00:00:00Z");
    assert_eq!(second["lines"][1]["period"]["start"], "2026-01-01T00:00:00Z");
    assert_eq!(app.verify(second).await["verified"], true);
}

#[tokio::test]
async fn a_trial_is_free() {
    let app = App::start().await;
    let mut plan = flat("advance");
    plan["trial_days"] = json!(14);
    app.catalog(plan, "UTC").await;
    app.subscribe(json!({})).await;
    app.usage.add("acme", "2026-01-10T00:00:00Z", "100");
    app.usage.add("acme", "2026-01-15T00:00:00Z", "3");
    app.at("2026-02-16T00:00:00Z");
    app.run("2026-02-16T00:00:00Z").await;
    let invoices = app.invoices().await;
    assert_eq!(invoices.len(), 2);
    assert_eq!(
        (&invoices[0]["period"]["end"], &invoices[0]["total"]),
        (&json!("2026-01-15T00:00:00Z"), &json!("31.00"))
    );
    assert_eq!(
        (&invoices[1]["period"]["end"], &invoices[1]["total"]),
        (&json!("2026-02-15T00:00:00Z"), &json!("34.00"))
    );
}

#[tokio::test]
async fn the_clock_of_a_test_tenant_bills_what_falls_due_on_the_way() {
    let app = App::start().await.for_test_tenant("2026-01-01T00:00:00Z").await;
    app.catalog(flat("arrears"), "UTC").await;
    app.subscribe(json!({})).await;
    app.usage.add("acme", "2026-01-10T00:00:00Z", "5");
    let mut now = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
    let mut steps = Vec::new();
    while let Some(next) = app.billing.next_due(LAB, now).await.unwrap() {
        if next > Timestamp::parse("2026-03-15T00:00:00Z").unwrap() {
            break;
        }
        assert!(next > now);
        app.at(&next.to_string());
        app.billing.run_due(LAB, next).await.unwrap();
        steps.push(next.to_string());
        now = next;
    }
    assert_eq!(steps, ["2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"]);
    let invoices = app.invoices().await;
    assert_eq!(
        invoices.iter().map(|i| i["status"].clone()).collect::<Vec<_>>(),
        ["open", "open"]
    );
    assert_eq!(invoices[0]["total"], "36.00");
}

#[tokio::test]
async fn a_subscription_that_begins_in_the_past_leaves_time_to_send_its_usage() {
    let app = App::start().await;
    app.catalog(flat("arrears"), "UTC").await;
    app.subscribe(json!({"start": "2025-11-01T00:00:00Z"})).await;
    let due = async |now: &str| {
        app.look(now).await;
        app.invoices()
            .await
            .iter()
            .map(|i| i["status"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(due("2026-01-01T00:10:00Z").await, ["draft"]);
    assert_eq!(due("2026-01-01T00:20:00Z").await, ["draft"]);
    app.usage.add("acme", "2025-11-10T00:00:00Z", "5");
    assert_eq!(due("2026-01-01T01:10:00Z").await, ["open", "draft"]);
    assert_eq!(app.invoices().await[0]["total"], "36.00");
    assert_eq!(due("2026-01-01T02:10:00Z").await, ["open", "open"]);
}

#[tokio::test]
async fn the_machines_clock_bills_by_itself() {
    let app = App::start().await;
    app.catalog(flat("arrears"), "UTC").await;
    app.subscribe(json!({"start": "2025-11-20T00:00:00Z"})).await;
    let app = app.looking_every(1).await;
    for now in ["2026-01-01T00:10:00Z", "2026-01-01T01:10:00Z"] {
        app.at(now);
        tokio::time::sleep(std::time::Duration::from_millis(1_300)).await;
    }
    app.billing.stop().await;
    let invoices = app.invoices().await;
    assert_eq!(
        (invoices.len(), &invoices[0]["number"]),
        (1, &json!("INV-000001")),
        "{invoices:?}"
    );
}

#[tokio::test]
async fn a_run_ends_at_any_instant_and_one_of_the_future_bills_what_has_ended() {
    let app = App::start().await;
    app.catalog(flat("arrears"), "UTC").await;
    app.subscribe(json!({})).await;
    app.at("2026-02-15T00:00:00Z");
    for (period_end, invoices) in [
        ("2026-01-31T23:59:59.999999Z", 0),
        ("2026-02-01T00:00:01Z", 1),
        ("2030-01-01T00:00:00Z", 0),
    ] {
        let run = app.run(period_end).await;
        assert_eq!(
            (&run["status"], &run["invoices"]),
            (&json!("done"), &json!(invoices)),
            "{period_end}"
        );
    }
}

#[tokio::test]
async fn an_add_on_without_prices_is_billed_in_any_currency() {
    let app = App::start().await;
    app.catalog(flat("arrears"), "UTC").await;
    app.put("/v1/add-ons/badge", json!({"currency": "EUR"})).await;
    app.subscribe(json!({"add_ons": ["badge"]})).await;
    app.at("2026-02-02T00:00:00Z");
    let run = app.run("2026-02-01T00:00:00Z").await;
    assert_eq!(
        (&run["status"], &run["invoices"]),
        (&json!("done"), &json!(1)),
        "{run}"
    );
}

#[tokio::test]
async fn the_invoice_to_come_is_the_one_that_falls_due_first() {
    let app = App::start().await;
    app.catalog(flat("arrears"), "UTC").await;
    let first = app.subscribe(json!({})).await;
    app.at("2026-01-20T00:00:00Z");
    let cancel = format!("/v1/subscriptions/{}/cancel", first["id"].as_str().unwrap());
    app.post(&cancel, json!({"at": "now"})).await;
    let second = app.subscribe(json!({})).await;
    let upcoming = app.get("/v1/customers/acme/invoices/upcoming").await;
    assert_eq!(upcoming["subscription"], first["id"]);
    app.at("2026-01-21T00:00:00Z");
    app.run("2026-01-21T00:00:00Z").await;
    let upcoming = app.get("/v1/customers/acme/invoices/upcoming").await;
    assert_eq!(upcoming["subscription"], second["id"]);
}

/// A check asks for what is due, and not for every subscription; and a change in the middle of a look is not lost.
#[tokio::test]
async fn only_subscriptions_that_are_due_are_looked_at() {
    let app = App::start().await;
    app.catalog(flat("arrears"), "UTC").await;
    app.put("/v1/customers/other", json!({})).await;
    let id = app.subscribe(json!({})).await["id"].as_str().unwrap().to_owned();
    app.subscribe(json!({"customer": "other", "start": "2026-01-20T00:00:00Z"}))
        .await;
    let at = |text: &str| Timestamp::parse(text).unwrap();
    let due = async |now: &str| app.store.looks(app.tenant, at(now), None, 10).await.unwrap();
    let before = due("2026-01-01T00:00:00Z").await;
    assert_eq!(before.len(), 2, "a new one is due at once");
    app.look("2026-01-01T00:00:00Z").await;
    assert_eq!(due("2026-01-31T23:59:59Z").await, []);
    assert_eq!(due("2026-02-01T00:00:00Z").await.len(), 1);
    assert_eq!(due("2026-02-20T00:00:00Z").await.len(), 2);

    app.post(&format!("/v1/subscriptions/{id}/cancel"), json!({"at": "now"}))
        .await;
    let stale = before.into_iter().map(|look| Look {
        at: at("2026-02-01T00:00:00Z"),
        ..look
    });
    app.store.look_again(app.tenant, stale.collect()).await.unwrap();
    let due_now = due("2026-01-01T00:00:00Z").await;
    assert_eq!(
        due_now.len(),
        1,
        "what was read before the change does not hide it"
    );
    assert_eq!(due_now[0].subscription.id, id);

    app.look("2026-02-25T00:00:00Z").await;
    let drafts = app.invoices().await.len();
    assert_eq!(drafts, 1, "the other one; the cancelled one had no time");
    assert_eq!(
        due("2026-02-25T00:30:00Z").await.len(),
        0,
        "a draft waits for its grace time"
    );
    app.look("2026-02-25T01:00:00Z").await;
    assert_eq!(app.invoices().await[0]["status"], "open");
    assert_eq!(
        due("2026-02-25T23:59:59Z").await,
        [],
        "closing a period is no change that asks for another look"
    );
    let over = due("2026-02-26T00:00:00Z").await;
    assert_eq!(over.len(), 1, "late usage of the one that is over");
    assert_eq!(over[0].subscription.id, id);
    assert_eq!(due("2026-03-20T00:00:00Z").await.len(), 2);
}

/// One look and one run bill all with a few transactions, of which none is for one subscription alone.
#[tokio::test]
async fn many_subscriptions_are_billed_together() {
    let app = App::start().await;
    app.catalog(flat("arrears"), "UTC").await;
    for n in 0..120 {
        app.put(&format!("/v1/customers/c{n}"), json!({})).await;
        app.subscribe(json!({"customer": format!("c{n}")})).await;
    }
    app.usage.reads.store(0, Ordering::Relaxed);
    app.at("2026-03-02T00:00:00Z");
    let run = app.run("2026-03-01T00:00:00Z").await;
    assert_eq!(
        (&run["status"], &run["invoices"], &run["subscriptions"]),
        (&json!("done"), &json!(240), &json!(120))
    );
    // Two batches, two periods each.
    assert_eq!(app.usage.reads.load(Ordering::Relaxed), 4);
    let numbers: std::collections::BTreeSet<_> = app
        .invoices()
        .await
        .iter()
        .map(|invoice| invoice["number"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(numbers.len(), 240);
    assert_eq!(numbers.last().unwrap(), "INV-000240");
}

/// Between the commit of a change and the directory's taking it over, the row is ahead: what is due is read from the row, so
/// that a look that counts the change also sees it.
#[tokio::test]
async fn what_is_due_is_read_together_with_the_number_of_its_changes() {
    use sqlx::Executor as _;
    let app = App::start().await;
    app.catalog(flat("arrears"), "UTC").await;
    app.subscribe(json!({})).await;
    let now = app.clock.machine_now();
    let before = app.store.looks(app.tenant, now, None, 10).await.unwrap();
    let end = "2026-01-10T00:00:00Z";
    let committed = format!(
        "UPDATE subscriptions SET changes = changes + 1, body = json_set(body, '$.ends_at', '{end}')"
    );
    let mut database = app.database().await;
    database.execute(sqlx::AssertSqlSafe(committed)).await.unwrap();
    let after = app.store.looks(app.tenant, now, None, 10).await.unwrap();
    assert_eq!(after[0].change, before[0].change + 1);
    assert_eq!(
        after[0].subscription.ends_at,
        Some(Timestamp::parse(end).unwrap())
    );
}

/// A subscription that changes while its period is being closed is closed as it is, not as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_in_the_middle_of_a_run_is_on_the_invoice() {
    let boundary = "2026-02-01T00:00:00Z";
    for by_run in [true, false] {
        let app = App::start().await.for_test_tenant("2026-01-01T00:00:00Z").await;
        app.catalog(flat("advance"), "UTC").await;
        let app = Arc::new(app);
        let id = app.subscribe(json!({})).await["id"].as_str().unwrap().to_owned();
        app.billing.run_due(LAB, app.clock.machine_now()).await.unwrap();
        app.at(boundary);
        let (engine, path) = (app.clone(), format!("/v1/subscriptions/{id}/cancel"));
        *app.usage.meanwhile.lock() = Some(Box::pin(async move {
            engine.post(&path, json!({"at": "now"})).await;
        }));
        if by_run {
            assert_eq!(app.run(boundary).await["status"], "done");
        } else {
            let now = Timestamp::parse(boundary).unwrap();
            assert_eq!(app.billing.run_due(LAB, now).await.unwrap().failed, 0);
        }
        assert!(
            app.usage.meanwhile.lock().is_none(),
            "vacuous: nothing was changed meanwhile"
        );
        let january = app.invoices().await.remove(1);
        assert_eq!(january["period"]["end"], boundary);
        // It ended with January: nothing is charged in advance for February.
        assert_eq!(amounts(&january, "recurring"), Vec::<String>::new(), "{january}");
    }
}
