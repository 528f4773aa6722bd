//! What is still done for a subscription that is over: late usage of it is billed, then listed, and its meters stay so long.

use serde_json::{Value, json};

use crate::app::{App, amounts};

fn plan() -> Value {
    json!({"currency": "USD", "prices": [
        {"key": "units", "meter": "tokens", "model": "per_unit", "unit_amount": "0.001"},
    ]})
}

/// A subscription that began with January and was cancelled on its 16th, at noon.
async fn cancelled() -> App {
    let app = App::start().await;
    cancel(&app).await;
    app
}

async fn cancel(app: &App) {
    app.catalog(plan(), "UTC").await;
    let id = app.subscribe(json!({})).await["id"].as_str().unwrap().to_owned();
    app.usage.add("acme", "2026-01-10T00:00:00Z", "30000");
    app.at("2026-01-16T12:00:00Z");
    app.post(&format!("/v1/subscriptions/{id}/cancel"), json!({"at": "now"}))
        .await;
}

/// The same, billed by a run when its grace time was over.
async fn billed() -> App {
    let app = cancelled().await;
    app.at("2026-01-16T14:00:00Z");
    assert_eq!(app.run("2026-01-16T12:00:00Z").await["invoices"], 1);
    app
}

async fn totals(app: &App) -> Vec<String> {
    let all = app.invoices().await;
    let total = |invoice: &Value| invoice["total"].as_str().unwrap().to_owned();
    all.iter().map(total).collect()
}

#[tokio::test]
async fn what_came_in_time_is_billed_by_the_next_run_however_late_it_is() {
    let app = billed().await;
    app.usage.add("acme", "2026-01-11T00:00:00Z", "40000");
    app.at("2026-02-25T14:00:00Z");
    let run = app.run("2026-02-25T14:00:00Z").await;
    assert_eq!(
        (&run["late"], totals(&app).await),
        (&json!(0), vec!["30.00".to_owned(), "40.00".to_owned()])
    );
    // The next comes behind the look-back time.
    app.usage.add("acme", "2026-01-12T00:00:00Z", "50000");
    app.at("2026-02-26T14:00:00Z");
    let run = app.run("2026-02-26T14:00:00Z").await;
    assert_eq!(
        (&run["late"], totals(&app).await.len()),
        (&json!(1), 2),
        "listed only: {run}"
    );
}

#[tokio::test]
async fn what_came_in_time_is_billed_by_the_next_look_however_late_it_is() {
    for by_run in [true, false] {
        let app = if by_run {
            billed().await
        } else {
            let app = cancelled().await;
            app.look("2026-01-16T12:30:00Z").await;
            let id = app.invoices().await[0]["id"].as_str().unwrap().to_owned();
            app.post(&format!("/v1/invoices/{id}/finalize"), Value::Null)
                .await;
            app
        };
        app.usage.add("acme", "2026-01-11T00:00:00Z", "40000");
        let app = app.restarted("").await;
        app.at("2026-02-25T14:00:00Z");
        let upcoming = app.get("/v1/customers/acme/invoices/upcoming").await;
        assert_eq!(amounts(&upcoming, "adjustment"), ["40.00"], "{upcoming}");
        app.look("2026-02-25T14:00:00Z").await;
        assert_eq!(totals(&app).await, ["30.00", "40.00"], "by a run: {by_run}");
        app.usage.add("acme", "2026-01-12T00:00:00Z", "50000");
        app.look("2026-02-26T14:00:00Z").await;
        assert_eq!(totals(&app).await.len(), 2, "its look-back time is over");
    }
}

#[tokio::test]
async fn what_an_earlier_build_listed_stays_so() {
    for looked in [true, false] {
        let app = billed().await;
        if looked {
            app.look("2026-02-25T14:00:00Z").await;
        }
        app.at("2026-02-25T14:00:00Z");
        app.run("2026-02-25T14:00:00Z").await;
        app.usage.add("acme", "2026-01-11T00:00:00Z", "40000");
        app.tamper("DELETE FROM _sqlx_migrations WHERE version = 9").await;
        sqlx::query("ALTER TABLE subscriptions DROP COLUMN settled_us")
            .execute(&mut app.database().await)
            .await
            .unwrap();
        let app = app.restarted("").await;
        app.look("2026-02-27T14:00:00Z").await;
        assert_eq!(totals(&app).await, ["30.00"], "looked at by the clock: {looked}");
    }
}

/// Whether a call is refused because periods were billed by a meter: until when it stays, or that its key is never given again.
async fn refused(app: &App, method: &str, path: &str, body: Value) -> bool {
    let (status, answer) = app.call(method, path, body).await;
    if status >= 300 {
        assert_eq!((status, &answer["code"]), (409, &json!("in_use")), "{answer}");
        let detail = answer["detail"].as_str().unwrap();
        let told = ["until 2026-06-01T12:00:00Z", "give the new meter another key"];
        assert!(told.iter().any(|told| detail.contains(told)), "{detail}");
    }
    status >= 300
}

#[tokio::test]
async fn a_meter_stays_while_late_usage_that_it_counts_is_billed_or_listed() {
    for (voided, test) in [(false, false), (true, false), (false, true)] {
        let mut app = billed().await;
        if test {
            app = App::start().await.for_test_tenant("2026-01-01T00:00:00Z").await;
            cancel(&app).await;
            app.look("2026-01-16T14:00:00Z").await;
        }
        if voided {
            let id = app.invoices().await[0]["id"].as_str().unwrap().to_owned();
            app.post(&format!("/v1/invoices/{id}/void"), Value::Null).await;
        }
        // Both at once, as nothing is named, and one behind the other.
        let nothing = json!({});
        assert!(refused(&app, "POST", "/v1/catalog/diff", nothing.clone()).await);
        assert!(refused(&app, "POST", "/v1/catalog/apply", nothing.clone()).await);
        assert!(!refused(&app, "DELETE", "/v1/plans/pro", Value::Null).await);
        assert!(refused(&app, "DELETE", "/v1/meters/tokens", Value::Null).await);
        let count = json!({"event_type": "llm", "aggregation": "count"});
        let (status, answer) = app.call("PUT", "/v1/meters/tokens", count).await;
        assert_eq!((status, &answer["code"]), (409, &json!("immutable")), "{answer}");
        app.look("2026-06-01T11:59:59Z").await;
        assert!(refused(&app, "DELETE", "/v1/meters/tokens", Value::Null).await);
        assert!(refused(&app, "POST", "/v1/catalog/apply", nothing.clone()).await);
        app.look("2026-06-01T12:00:00Z").await;
        assert!(!refused(&app, "POST", "/v1/catalog/apply", nothing).await);
        // Its key stays that of the invoices: another meter would say that they are wrong.
        let count = json!({"event_type": "llm", "aggregation": "count"});
        assert!(refused(&app, "PUT", "/v1/meters/tokens", count).await);
    }
}

/// An earlier build let a meter go while closed periods that it priced were still looked at.
#[tokio::test]
async fn a_meter_that_is_gone_keeps_nobody_from_being_billed() {
    let app = billed().await;
    let flat = json!({"currency": "USD", "prices": [{"key": "base", "model": "flat", "amount": "9.00", "timing": "arrears"}]});
    app.put("/v1/plans/flat", flat.clone()).await;
    app.put("/v1/customers/other", json!({})).await;
    app.subscribe(json!({"customer": "other", "plan": "flat"})).await;
    app.call("DELETE", "/v1/plans/pro", Value::Null).await;
    app.tamper("DELETE FROM meters WHERE key = 'tokens'").await;
    app.usage.gone.lock().push("tokens".to_owned());
    let app = app.restarted("").await;
    app.at("2026-02-17T14:00:00Z");
    let run = app.run("2026-02-17T14:00:00Z").await;
    assert_eq!(
        (&run["status"], &run["failed"], &run["invoices"]),
        (&json!("done"), &json!(0), &json!(1)),
        "{run}"
    );
    let told = &run["failures"][0];
    assert_eq!(told["code"], "not_found", "{run}");
    let detail = told["detail"].as_str().unwrap();
    assert!(detail.contains("there is no meter \"tokens\""), "{detail}");
    app.look("2026-02-18T14:00:00Z").await;
    let (status, upcoming) = app
        .call("GET", "/v1/customers/acme/invoices/upcoming", Value::Null)
        .await;
    assert_eq!(status, 404, "{upcoming}");
    let detail = upcoming["detail"].as_str().unwrap();
    assert!(detail.contains("no invoice is to come"), "{detail}");
    // Another of its key would price closed periods anew.
    let count = json!({"event_type": "llm", "aggregation": "count"});
    assert!(refused(&app, "PUT", "/v1/meters/tokens", count.clone()).await);
    let mut catalog = json!({"meters": [count.clone()], "plans": [flat]});
    (catalog["meters"][0]["key"], catalog["plans"][0]["key"]) = (json!("tokens"), json!("flat"));
    assert!(refused(&app, "POST", "/v1/catalog/diff", catalog).await);
    app.look("2026-06-01T12:00:00Z").await;
    assert!(refused(&app, "PUT", "/v1/meters/tokens", count.clone()).await);
    assert!(!refused(&app, "PUT", "/v1/meters/others", count).await);
}
