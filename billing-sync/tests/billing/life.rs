use serde_json::{Value, json};
use turnpike_domain::identity::Scope;

use crate::app::{App, amounts, minor};

fn plan() -> Value {
    json!({"name": "Pro", "currency": "USD", "prices": [
        {"key": "base", "model": "flat", "amount": "29.00", "timing": "arrears"},
        {"key": "units", "meter": "tokens", "model": "per_unit", "unit_amount": "0.0004", "included": "1000"},
        {"key": "least", "meter": "tokens", "model": "per_unit", "unit_amount": "0.001", "minimum_amount": "5", "filter": {"region": ["eu"]}},
    ]})
}

async fn january() -> App {
    let app = App::start().await;
    app.catalog(plan(), "UTC").await;
    app.subscribe(json!({})).await;
    app.usage.add("acme", "2026-01-10T00:00:00Z", "5000");
    app.usage.add_in("acme", "2026-01-11T00:00:00Z", "1500.5", "eu");
    app.usage.add("somebody", "2026-01-11T00:00:00Z", "99999");
    app.usage.add("acme", "2026-02-01T00:00:00Z", "7");
    app
}

/// The same, cancelled when half of January is over.
async fn cancelled_in_january() -> App {
    let app = january().await;
    let id = app.get("/v1/subscriptions").await["data"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    app.at("2026-01-16T12:00:00Z");
    app.post(&format!("/v1/subscriptions/{id}/cancel"), json!({"at": "now"}))
        .await;
    app
}

#[tokio::test]
async fn a_period_is_a_draft_in_its_grace_time_and_final_behind_it() {
    let app = january().await;
    app.at("2026-02-01T00:30:00Z");
    let run = app.run("2026-02-01T00:00:00Z").await;
    assert_eq!(
        (&run["status"], &run["drafts"], &run["invoices"]),
        (&json!("done"), &json!(1), &json!(0))
    );
    let draft = app.invoices().await.remove(0);
    assert_eq!(
        (&draft["status"], &draft["number"], &draft["hash"]),
        (&json!("draft"), &json!(null), &json!(null))
    );
    // Late, but in the grace time: it still counts.
    app.usage.add("acme", "2026-01-31T23:59:59Z", "1000");
    app.at("2026-02-01T01:00:00Z");
    let run = app.run("2026-02-01T00:00:00Z").await;
    assert_eq!(run["invoices"], json!(1));
    let invoice = app.invoices().await.remove(0);
    assert_eq!(
        (&invoice["status"], &invoice["number"]),
        (&json!("open"), &json!("INV-000001"))
    );
    assert_eq!(invoice["id"], draft["id"]);
    // (7500.5 - 1000) x 0.0004 = 2.6002; 1500.5 x 0.001 = 1.5005, up to 5.00.
    assert_eq!(amounts(&invoice, "recurring"), ["29.00"]);
    assert_eq!(amounts(&invoice, "usage"), ["2.60", "1.50"]);
    assert_eq!(amounts(&invoice, "minimum"), ["3.50"]);
    assert_eq!(
        (&invoice["total"], &invoice["amount_due"]),
        (&json!("36.60"), &json!("36.60"))
    );
    assert_eq!(
        app.verify(&invoice).await,
        json!({"verified": true, "differences": []})
    );
}

#[tokio::test]
async fn only_legal_steps_are_taken_and_each_is_kept_once() {
    let app = january().await;
    app.at("2026-02-01T00:30:00Z");
    app.run("2026-02-01T00:00:00Z").await;
    let id = app.invoices().await[0]["id"].as_str().unwrap().to_owned();
    let path = |step: &str| format!("/v1/invoices/{id}/{step}");
    for step in ["pay", "void", "uncollectible", "verify"] {
        let (status, body) = app.call("POST", &path(step), json!({})).await;
        assert_eq!(
            (status, &body["code"]),
            (409, &json!("illegal_transition")),
            "{step}"
        );
    }
    let (status, first) = app
        .call_once("POST", &path("finalize"), json!({}), Some("k"))
        .await;
    assert_eq!((status, &first["status"]), (200, &json!("open")));
    let (_, again) = app
        .call_once("POST", &path("finalize"), json!({}), Some("k"))
        .await;
    assert_eq!(again, first);
    let (status, body) = app.call_once("POST", &path("pay"), json!({}), Some("k")).await;
    assert_eq!((status, &body["code"]), (409, &json!("idempotency_conflict")));
    assert_eq!(
        app.post(&path("uncollectible"), json!({})).await["status"],
        "uncollectible"
    );
    let paid = app.post(&path("pay"), json!({})).await;
    assert_eq!(
        (&paid["status"], &paid["amount_due"], &paid["hash"]),
        (&json!("paid"), &json!("0.00"), &first["hash"])
    );
    for step in ["pay", "void", "uncollectible", "finalize"] {
        assert_eq!(app.call("POST", &path(step), json!({})).await.0, 409, "{step}");
    }
    assert_eq!(app.call("POST", "/v1/invoices/none/pay", json!({})).await.0, 404);
    assert_eq!(app.verify(&paid).await["verified"], true);
}

#[tokio::test]
async fn what_comes_late_is_adjusted_on_the_next_invoice_and_the_final_one_stays() {
    let app = january().await;
    app.at("2026-02-02T00:00:00Z");
    app.run("2026-02-01T00:00:00Z").await;
    let first = app.invoices().await.remove(0);
    app.usage.add_in("acme", "2026-01-20T00:00:00Z", "4000", "eu");
    app.usage.add("acme", "2026-01-10T00:00:00Z", "-5000");
    app.at("2026-03-02T00:00:00Z");
    app.run("2026-03-01T00:00:00Z").await;
    let all = app.invoices().await;
    assert_eq!(all[0], first, "a final invoice never changes");
    // units: 5500.5 instead of 6500.5: 1.80 - 2.20; least: 5500.5 x 0.001 = 5.50 instead of 5.00.
    assert_eq!(amounts(&all[1], "adjustment"), ["0.50", "-0.40"]);
    let adjusted = &all[1]["lines"].as_array().unwrap()[4];
    assert_eq!(
        (&adjusted["period"], &adjusted["watermark"]),
        (&first["period"], &all[1]["watermark"])
    );
    // Another one for January, on the day after: it came within 35 days of January's end, so it is on the next invoice too.
    app.usage.add("acme", "2026-01-25T00:00:00Z", "100000");
    app.usage.add("acme", "2026-02-25T00:00:00Z", "5000");
    app.at("2026-04-02T00:00:00Z");
    let run = app.run("2026-04-01T00:00:00Z").await;
    let all = app.invoices().await;
    assert_eq!(amounts(&all[2], "adjustment"), ["40.00", "1.60"], "{}", all[2]);
    assert_eq!(run["late"], json!(0));
    // And one in April: beyond the look-back time, listed and not billed.
    app.usage.add("acme", "2026-01-25T00:00:00Z", "100000");
    app.at("2026-05-02T00:00:00Z");
    let run = app.run("2026-05-01T00:00:00Z").await;
    let all = app.invoices().await;
    assert_eq!(amounts(&all[3], "adjustment"), [""; 0], "{}", all[3]);
    assert_eq!(
        (&run["late"], &run["late_usage"][0]["amount"]),
        (&json!(1), &json!("40.00"))
    );
    assert_eq!(run["late_usage"][0]["period"], first["period"]);
    for invoice in &all {
        assert_eq!(
            app.verify(invoice).await,
            json!({"verified": true, "differences": []})
        );
    }
}

/// However long a period is, what comes late for it is on the invoice of the period behind it.
#[tokio::test]
async fn what_comes_late_for_a_year_is_on_the_next_years_invoice() {
    for (interval, count, first_end, second_end) in [
        ("month", 5, "2026-06-01", "2026-11-01"),
        ("month", 6, "2026-07-01", "2027-01-01"),
        ("year", 1, "2027-01-01", "2028-01-01"),
    ] {
        let app = App::start().await;
        let plan = json!({"currency": "USD", "interval": interval, "interval_count": count, "prices": [
            {"key": "units", "meter": "tokens", "model": "per_unit", "unit_amount": "1"}]});
        app.catalog(plan, "UTC").await;
        app.subscribe(json!({})).await;
        app.usage.add("acme", "2026-02-10T00:00:00Z", "43");
        let closed = async |day: &str| {
            app.at(&format!("{day}T03:00:00Z"));
            let run = app.run(&format!("{day}T00:00:00Z")).await;
            assert_eq!((&run["invoices"], &run["late"]), (&json!(1), &json!(0)), "{run}");
        };
        closed(first_end).await;
        // An event that came late, and a void.
        app.usage.add("acme", "2026-02-11T00:00:00Z", "500");
        app.usage.add("acme", "2026-02-10T00:00:00Z", "-40");
        let upcoming = app.get("/v1/customers/acme/invoices/upcoming").await;
        assert_eq!(amounts(&upcoming, "adjustment"), ["460.00"], "{interval} {count}");
        closed(second_end).await;
        let all = app.invoices().await;
        assert_eq!(amounts(&all[1], "adjustment"), ["460.00"], "{interval} {count}");
        assert_eq!(app.verify(&all[1]).await["verified"], true);
    }
}

#[tokio::test]
async fn a_subscription_that_is_over_gets_a_closing_invoice() {
    let app = cancelled_in_january().await;
    app.at("2026-02-02T00:00:00Z");
    app.run("2026-02-01T00:00:00Z").await;
    let first = app.invoices().await.remove(0);
    assert_eq!(first["period"]["end"], "2026-01-16T12:00:00Z");
    // Half of January: 15.5 of 31 days.
    assert_eq!(amounts(&first, "proration"), ["14.50"]);
    app.usage.add("acme", "2026-01-12T00:00:00Z", "10000");
    app.run("2026-02-01T00:00:00Z").await;
    app.run("2026-02-01T00:00:00Z").await;
    let all = app.invoices().await;
    assert_eq!(all.len(), 2);
    assert_eq!(
        (&all[1]["number"], &all[1]["total"]),
        (&json!("INV-000002"), &json!("4.00"))
    );
    app.usage.add("acme", "2026-01-12T00:00:00Z", "-10000");
    app.run("2026-02-01T00:00:00Z").await;
    let all = app.invoices().await;
    assert_eq!((all.len(), &all[2]["total"]), (3, &json!("-4.00")));
    for invoice in &all {
        assert_eq!(app.verify(invoice).await["verified"], true);
    }
    app.at("2026-03-19T00:00:00Z");
    app.run("2026-03-01T00:00:00Z").await;
    app.at("2026-03-20T00:00:00Z");
    app.usage.add("acme", "2026-01-12T00:00:00Z", "10000");
    let run = app.run("2026-03-01T00:00:00Z").await;
    assert_eq!(
        (app.invoices().await.len(), &run["late"]),
        (3, &json!(1)),
        "its look-back time is over"
    );
}

#[tokio::test]
async fn the_clock_finds_late_usage_of_a_subscription_that_is_over() {
    let app = cancelled_in_january().await;
    let look = async |now: &str| {
        app.look(now).await;
        app.invoices().await.len()
    };
    assert_eq!(look("2026-01-16T12:00:00Z").await, 1, "a draft");
    assert_eq!(look("2026-01-16T14:00:00Z").await, 1, "final");
    assert_eq!(look("2026-01-16T14:01:00Z").await, 1, "the day's look");
    app.usage.add("acme", "2026-01-12T00:00:00Z", "10000");
    assert_eq!(look("2026-01-16T15:00:00Z").await, 1, "once a day");
    let upcoming = app.get("/v1/customers/acme/invoices/upcoming").await;
    assert_eq!(amounts(&upcoming, "adjustment"), ["4.00"], "{upcoming}");
    assert_eq!(look("2026-01-17T00:00:00Z").await, 2);
    // However long nothing ran, and in the last hours of the 35 days too: what came since the last look is billed.
    app.usage.add("acme", "2026-01-12T00:00:00Z", "10000");
    assert_eq!(look("2026-02-24T00:00:00Z").await, 3, "an outage");
    app.usage.add("acme", "2026-01-12T00:00:00Z", "10000");
    assert_eq!(
        look("2026-02-25T00:00:00Z").await,
        3,
        "its look-back time is over"
    );
}

#[tokio::test]
async fn the_last_hours_of_the_look_back_time_count_for_a_subscription_that_is_over() {
    let app = cancelled_in_january().await;
    for now in [
        "2026-01-16T14:00:00Z",
        "2026-02-19T00:00:00Z",
        "2026-02-20T00:00:00Z",
    ] {
        app.look(now).await;
    }
    // Its 35 days end at noon.
    app.usage.add("acme", "2026-01-12T00:00:00Z", "10000");
    app.at("2026-02-20T01:00:00Z");
    let upcoming = app.get("/v1/customers/acme/invoices/upcoming").await;
    assert_eq!(amounts(&upcoming, "adjustment"), ["4.00"], "{upcoming}");
    app.look("2026-02-21T00:00:00Z").await;
    assert_eq!(app.invoices().await.len(), 2);
}

#[tokio::test]
async fn what_came_late_for_a_subscription_that_is_over_comes_before_a_period_that_runs() {
    let app = cancelled_in_january().await;
    app.at("2026-01-16T14:00:00Z");
    app.run("2026-01-16T12:00:00Z").await;
    app.subscribe(json!({})).await;
    let upcoming = app.get("/v1/customers/acme/invoices/upcoming").await;
    assert_eq!(amounts(&upcoming, "recurring"), ["29.00"], "{upcoming}");
    app.usage.add("acme", "2026-01-12T00:00:00Z", "10000");
    let upcoming = app.get("/v1/customers/acme/invoices/upcoming").await;
    assert_eq!(amounts(&upcoming, "adjustment"), ["4.00"], "{upcoming}");
}

#[tokio::test]
async fn late_usage_that_the_clock_finds_is_listed_among_the_runs() {
    let app = january().await;
    app.put("/v1/customers/other", json!({})).await;
    app.subscribe(json!({"customer": "other"})).await;
    for (now, end) in [
        ("2026-02-02T00:00:00Z", "2026-02-01T00:00:00Z"),
        ("2026-03-02T00:00:00Z", "2026-03-01T00:00:00Z"),
        ("2026-04-02T00:00:00Z", "2026-04-01T00:00:00Z"),
    ] {
        app.at(now);
        app.run(end).await;
    }
    // For January, which lies beyond the look-back time when April is closed.
    app.usage.add("acme", "2026-01-25T00:00:00Z", "100000");
    app.look("2026-05-02T00:00:00Z").await;
    let runs = app.get("/v1/billing/runs").await;
    assert_eq!(runs["data"].as_array().unwrap().len(), 4, "{runs}");
    let listed = &runs["data"][0];
    assert_eq!(
        (&listed["status"], &listed["late"]),
        (&json!("done"), &json!(1)),
        "{runs}"
    );
    assert_eq!(listed["late_usage"][0]["amount"], "40.00", "{runs}");
    // The same is not listed again by the next checks.
    for later in ["2026-05-02T02:00:00Z", "2026-06-02T00:00:00Z"] {
        app.look(later).await;
    }
    let runs = app.get("/v1/billing/runs").await;
    assert_eq!(runs["data"].as_array().unwrap().len(), 4, "{runs}");
    // What comes late beside it is listed alone.
    app.usage.add("other", "2026-02-25T00:00:00Z", "50000");
    app.look("2026-07-02T00:00:00Z").await;
    let runs = app.get("/v1/billing/runs").await;
    assert_eq!(runs["data"].as_array().unwrap().len(), 5, "{runs}");
    let listed = &runs["data"][0];
    assert_eq!(
        (&listed["late"], &listed["late_usage"][0]["amount"]),
        (&json!(1), &json!("19.60")),
        "{runs}"
    );
}

#[tokio::test]
async fn an_invoice_without_a_total_is_paid_and_a_plan_without_prices_makes_none() {
    let app = App::start().await;
    app.catalog(
        json!({"currency": "JPY", "prices": [
        {"key": "units", "meter": "tokens", "model": "per_unit", "unit_amount": "1.5"}]}),
        "UTC",
    )
    .await;
    app.put("/v1/plans/free", json!({"currency": "USD"})).await;
    app.put("/v1/customers/zero", json!({})).await;
    app.subscribe(json!({})).await;
    app.subscribe(json!({"customer": "zero", "plan": "free"})).await;
    app.at("2026-03-02T00:00:00Z");
    let run = app.run("2026-02-01T00:00:00Z").await;
    assert_eq!(
        (&run["subscriptions"], &run["invoices"], &run["empty_periods"]),
        (&json!(2), &json!(1), &json!(1))
    );
    let invoice = app.invoices().await.remove(0);
    assert_eq!(
        (
            &invoice["status"],
            &invoice["total"],
            &invoice["lines"][0]["quantity"]
        ),
        (&json!("paid"), &json!("0"), &json!("0"))
    );
    app.usage.add("acme", "2026-01-02T00:00:00Z", "1");
    let run = app.run("2026-03-01T00:00:00Z").await;
    assert_eq!((&run["invoices"], &run["empty_periods"]), (&json!(1), &json!(1)));
    assert_eq!(
        app.invoices().await[1]["total"],
        "2",
        "1.5 yen round away from zero"
    );
}

#[tokio::test]
async fn one_that_cannot_be_billed_fails_the_run_by_name_and_keeps_no_other_from_it() {
    let app = january().await;
    let dear = json!({"currency": "USD", "prices": [
        {"key": "dear", "meter": "tokens", "model": "per_unit", "unit_amount": "999999999999999999"}]});
    app.put("/v1/plans/dear", dear).await;
    app.put("/v1/customers/other", json!({})).await;
    let other = app.subscribe(json!({"customer": "other", "plan": "dear"})).await;
    app.usage.add("other", "2026-01-02T00:00:00Z", "1000000");
    app.at("2026-02-02T00:00:00Z");
    let run = app.run("2026-02-01T00:00:00Z").await;
    assert_eq!(
        (&run["status"], &run["failed"], &run["invoices"]),
        (&json!("failed"), &json!(1), &json!(1))
    );
    assert_eq!(run["failures"][0]["subscription"], other["id"]);
    assert!(run["failures"][0]["detail"].as_str().unwrap().contains("amount"));
}

#[tokio::test]
async fn what_is_to_come_is_shown_and_not_kept() {
    let app = january().await;
    app.at("2026-01-12T00:00:00Z");
    let upcoming = app.get("/v1/customers/acme/invoices/upcoming").await;
    assert_eq!(
        (&upcoming["id"], &upcoming["status"]),
        (&json!(null), &json!("draft"))
    );
    assert_eq!(amounts(&upcoming, "usage"), ["2.20", "1.50"]);
    assert_eq!(app.invoices().await, Vec::<Value>::new());
    assert_eq!(
        app.call("GET", "/v1/customers/none/invoices/upcoming", json!(null))
            .await
            .0,
        404
    );
    app.put("/v1/customers/idle", json!({})).await;
    assert_eq!(
        app.call("GET", "/v1/customers/idle/invoices/upcoming", json!(null))
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn lists_page_and_filter_and_exports_have_every_line() {
    let app = january().await;
    app.at("2026-06-02T00:00:00Z");
    app.run("2026-06-01T00:00:00Z").await;
    let first = app.get("/v1/invoices?limit=3").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = app.get(&format!("/v1/invoices?limit=3&cursor={cursor}")).await;
    let count = |page: &Value| page["data"].as_array().unwrap().len();
    assert_eq!(
        (count(&first), count(&second), &second["next_cursor"]),
        (3, 2, &json!(null))
    );
    for (query, expected) in [
        ("customer=acme", 5),
        ("customer=other", 0),
        ("status=open", 5),
        ("status=draft", 0),
        ("from=2026-03-01T00:00:00Z&to=2026-05-01T00:00:00Z", 2),
        ("subscription=none", 0),
    ] {
        assert_eq!(
            count(&app.get(&format!("/v1/invoices?{query}")).await),
            expected,
            "{query}"
        );
    }
    for query in [
        "status=odd",
        "from=2026-03-01T00:00:00Z&to=2026-03-01T00:00:00Z",
        "limit=0",
        "limit=1001",
    ] {
        assert_eq!(
            app.call("GET", &format!("/v1/invoices?{query}"), json!(null))
                .await
                .0,
            422,
            "{query}"
        );
    }
    let (_, csv) = app.call("GET", "/v1/export/invoices", json!(null)).await;
    let mut rows = csv::Reader::from_reader(csv.as_str().unwrap().as_bytes());
    let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 5 * 4);
    let sum: i64 = rows.iter().map(|row| minor(&json!(row[14].to_owned()))).sum();
    let totals: i64 = app
        .invoices()
        .await
        .iter()
        .map(|invoice| minor(&invoice["total"]))
        .sum();
    assert_eq!(sum, totals);
    // As the name says, or else as `Accept` does.
    for (uri, accept) in [
        ("/v1/export/invoices?format=ndjson", "text/csv"),
        ("/v1/export/invoices", "application/x-ndjson"),
    ] {
        let request = axum::extract::Request::get(uri).header("accept", accept);
        let request = request.body(axum::body::Body::empty()).unwrap();
        let (_, lines) = app.send(Scope::Read, request).await;
        let numbered = lines
            .lines()
            .filter(|line| serde_json::from_str::<Value>(line).unwrap()["number"].is_string());
        assert_eq!(numbered.count(), 5, "{uri}");
    }
    let runs = app.get("/v1/billing/runs").await;
    assert_eq!(count(&runs), 1);
}

#[tokio::test]
async fn the_page_is_escaped_and_pdf_is_refused_by_name() {
    let app = january().await.for_test_tenant("2026-01-01T00:00:00Z").await;
    app.catalog(plan(), "Europe/Istanbul").await;
    app.subscribe(json!({"start": "2025-12-31T21:00:00Z"})).await;
    app.at("2026-02-02T00:00:00Z");
    app.run("2026-02-01T00:00:00Z").await;
    let id = app.invoices().await[0]["id"].as_str().unwrap().to_owned();
    let (status, page) = app
        .call("GET", &format!("/v1/invoices/{id}.html"), json!(null))
        .await;
    let page = page.as_str().unwrap();
    assert_eq!(status, 200);
    assert!(
        page.contains("Acme &amp; &lt;Sons&gt;")
            && page.contains("Lab &lt;b&gt;")
            && !page.contains("<Sons>"),
        "{page}"
    );
    assert!(
        page.contains("INV-000001") && page.contains("size: A4") && page.contains("36.20 USD"),
        "{page}"
    );
    assert!(page.contains("2026-01-01 – 2026-01-31"), "{page}");
    let (status, body) = app
        .call("GET", &format!("/v1/invoices/{id}.pdf"), json!(null))
        .await;
    assert_eq!(status, 404);
    assert!(body["detail"].as_str().unwrap().contains(".html"));
    assert_eq!(app.get("/v1/invoices/INV-000001").await["id"], json!(id));
}

#[tokio::test]
async fn each_call_needs_its_scope() {
    let app = january().await;
    for (method, path, scope) in [
        ("GET", "/v1/invoices", Scope::Read),
        ("GET", "/v1/invoices/x", Scope::Read),
        ("GET", "/v1/export/invoices", Scope::Read),
        ("GET", "/v1/customers/acme/invoices/upcoming", Scope::Read),
        ("POST", "/v1/invoices/x/finalize", Scope::Billing),
        ("POST", "/v1/invoices/x/pay", Scope::Billing),
        ("POST", "/v1/invoices/x/void", Scope::Billing),
        ("POST", "/v1/invoices/x/uncollectible", Scope::Billing),
        ("POST", "/v1/invoices/x/verify", Scope::Billing),
        ("GET", "/v1/billing/runs", Scope::Billing),
        ("GET", "/v1/billing/runs/x", Scope::Billing),
    ] {
        let request = || {
            axum::extract::Request::builder()
                .method(method)
                .uri(path)
                .body(axum::body::Body::empty())
                .unwrap()
        };
        assert_eq!(app.send(Scope::Ingest, request()).await.0, 403, "{path}");
        assert_ne!(app.send(scope, request()).await.0, 403, "{path}");
    }
}
