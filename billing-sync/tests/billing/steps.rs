//! A bill in steps is the bill at once, for each price model; and what is to come is what is then billed.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::app::{App, minor};

/// One price of each model that invoices have, with what bounds and splits them.
fn plan() -> Value {
    let tiers = json!([{"up_to": "100", "unit_amount": "0.05", "flat_amount": "1"},
        {"up_to": "250.5", "unit_amount": "0.031"}, {"unit_amount": "0.0125", "flat_amount": "2.5"}]);
    let shares =
        json!([{"up_to": "100", "rate_percent": "1.5", "flat_amount": "2"}, {"rate_percent": "0.7"}]);
    let rates = json!([{"region": "eu", "unit_amount": "0.107"}, {"region": "us", "unit_amount": "0.09"}]);
    json!({"currency": "USD", "interval": "week", "minimum_commitment": "150", "prices": [
        {"key": "advance", "model": "flat", "amount": "7", "timing": "advance"},
        {"key": "arrears", "model": "flat", "amount": "5", "timing": "arrears"},
        {"key": "units", "meter": "tokens", "model": "per_unit", "unit_amount": "0.0037", "included": "50"},
        {"key": "least", "meter": "tokens", "model": "per_unit", "unit_amount": "0.01", "minimum_amount": "3"},
        {"key": "most", "meter": "tokens", "model": "per_unit", "unit_amount": "0.1", "maximum_amount": "20"},
        {"key": "eu", "meter": "tokens", "model": "per_unit", "unit_amount": "0.013", "filter": {"region": ["eu"]}},
        {"key": "graduated", "meter": "tokens", "model": "graduated", "tiers": tiers},
        {"key": "volume", "meter": "tokens", "model": "volume", "tiers": tiers},
        {"key": "up", "meter": "tokens", "model": "package", "package_size": "7", "package_amount": "0.33"},
        {"key": "down", "meter": "tokens", "model": "package", "package_size": "7", "package_amount": "0.33", "round": "down"},
        {"key": "share", "meter": "tokens", "model": "graduated_percentage", "tiers": shares},
        {"key": "matrix", "meter": "tokens", "model": "matrix", "dimensions": ["region"], "rates": rates,
            "default_unit_amount": "0.12"}]})
}

/// An amount in hundredths of a unit, on a day of the first week of January.
type Used = (i64, i64, &'static str);

fn add(app: &App, (amount, day, region): Used) {
    let sign = if amount < 0 { "-" } else { "" };
    let text = format!("{sign}{}.{:02}", amount.abs() / 100, amount.abs() % 100);
    app.usage
        .add_in("acme", &format!("2026-01-{day:02}T08:30:00Z"), &text, region);
}

async fn started() -> App {
    let app = App::start().await;
    app.catalog(plan(), "UTC").await;
    app.subscribe(json!({})).await;
    app
}

/// Bills the week that ended on a day of January, and sees that it is line by line what was to come.
async fn bill(app: &App, day: u32) {
    app.at(&format!("2026-01-{day:02}T02:00:00Z"));
    let day = format!("2026-01-{day:02}T00:00:00Z");
    let to_come = app.get("/v1/customers/acme/invoices/upcoming").await;
    app.run(&day).await;
    let billed = app.invoices().await.pop().unwrap();
    assert_eq!(billed["status"], "open");
    for field in ["lines", "period", "subtotal", "total", "customer", "currency"] {
        assert_eq!(to_come[field], billed[field], "{field}");
    }
}

/// Cents of each price for the first week, on all invoices together.
async fn first_week(app: &App) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for invoice in app.invoices().await {
        for line in invoice["lines"].as_array().unwrap() {
            if line["period"]["start"] == "2026-01-01T00:00:00Z" {
                *sums
                    .entry(line["price"].as_str().unwrap().to_owned())
                    .or_default() += minor(&line["amount"]);
            }
        }
    }
    sums.retain(|_, sum| *sum != 0);
    sums
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_and_late_usage_and_voids_cost_what_they_cost_at_once() {
    let mut corrected = 0;
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut used = |most: i64| -> Vec<Used> {
            let count = random.random_range(0..6);
            let region = |n: u32| ["eu", "us", ""][n as usize % 3];
            (0..count)
                .map(|_| {
                    (
                        random.random_range(1..most),
                        random.random_range(1..8),
                        region(random.random()),
                    )
                })
                .collect()
        };
        let (early, late, later) = (used(12_000), used(9_000), used(3_000));
        let (steps, at_once) = (started().await, started().await);
        // The start, with what is charged in advance.
        for app in [&steps, &at_once] {
            app.at("2026-01-01T02:00:00Z");
            app.run("2026-01-01T00:00:00Z").await;
        }
        for one in &early {
            add(&steps, *one);
        }
        bill(&steps, 8).await;
        // Every other early event is voided, and there are late ones, in two weeks.
        let voids = early
            .iter()
            .step_by(2)
            .map(|(amount, day, region)| (-amount, *day, *region));
        let second: Vec<Used> = voids.chain(late).collect();
        for one in &second {
            add(&steps, *one);
        }
        bill(&steps, 15).await;
        for one in &later {
            add(&steps, *one);
        }
        bill(&steps, 22).await;
        for one in early.iter().chain(&second).chain(&later) {
            add(&at_once, *one);
        }
        bill(&at_once, 8).await;
        assert_eq!(
            first_week(&steps).await,
            first_week(&at_once).await,
            "seed {seed}"
        );
        for invoice in steps.invoices().await {
            let lines = invoice["lines"].as_array().unwrap();
            corrected += lines.iter().filter(|line| line["kind"] == "adjustment").count();
            let found = steps.verify(&invoice).await;
            assert_eq!(found["verified"], true, "seed {seed} {found}");
        }
    }
    assert!(corrected > 50, "vacuous: {corrected} corrections");
}
