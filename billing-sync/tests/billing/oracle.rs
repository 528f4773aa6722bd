//! Random lives of a subscription against plain integers that share nothing with the engine.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::app::{App, amounts, minor};

/// Hundredths of a unit, per month (0 is January 2026).
#[derive(Default, Clone)]
struct Month {
    used: i64,
    billed: [i64; 3],
}

const UNIT_PARTS: i64 = 37; // 0.0037 each, beyond 50 units.
const SIZE: i64 = 700; // hundredths of a unit in a package, 0.33 each.

fn half_up(numerator: i64, denominator: i64) -> i64 {
    (2 * numerator + denominator).div_euclid(2 * denominator)
}

/// Cents of per_unit, graduated and package for `used` hundredths.
fn costs(used: i64) -> [i64; 3] {
    let used = used.max(0);
    let beyond = (used - 5_000).max(0);
    let per_unit = half_up(beyond * UNIT_PARTS, 10_000);
    let (low, high) = (used.min(10_000), (used - 10_000).max(0));
    // 0.05 up to 100 units with 1.00 flat, then 0.0125 with 2.50 flat: in 10⁻⁶ of a dollar.
    let graduated = low * 500 + 1_000_000 + high * 125 + if used > 10_000 { 2_500_000 } else { 0 };
    let packages = (used + SIZE - 1) / SIZE;
    [per_unit, half_up(graduated, 10_000), packages * 33]
}

fn plan() -> Value {
    json!({"currency": "USD", "prices": [
        {"key": "a", "meter": "tokens", "model": "per_unit", "unit_amount": "0.0037", "included": "50"},
        {"key": "b", "meter": "tokens", "model": "graduated", "tiers": [
            {"up_to": "100", "unit_amount": "0.05", "flat_amount": "1"}, {"unit_amount": "0.0125", "flat_amount": "2.5"}]},
        {"key": "c", "meter": "tokens", "model": "package", "package_size": "7", "package_amount": "0.33"}]})
}

fn hundredths(value: i64) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", value.abs() / 100, value.abs() % 100)
}

fn change(app: &App, months: &mut [Month], at: usize, amount: i64, day: i64) {
    months[at].used += amount;
    app.usage.add(
        "acme",
        &format!("2026-{:02}-{day:02}T08:30:00Z", at + 1),
        &hundredths(amount),
    );
}

async fn life(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let app = App::start().await;
    app.catalog(plan(), "UTC").await;
    app.subscribe(json!({})).await;
    let mut months = vec![Month::default(); 6];
    for closing in 0..5usize {
        for _ in 0..random.random_range(0..12) {
            let amount = random.random_range(1..4_000);
            change(&app, &mut months, closing, amount, random.random_range(1..28));
        }
        if closing > 0 && random.random_bool(0.7) {
            // Late, voided or amended: for the month before.
            let amount = random.random_range(-2_000..3_000).max(-months[closing - 1].used);
            change(&app, &mut months, closing - 1, amount, random.random_range(1..28));
        }
        let end = format!("2026-{:02}-01T00:00:00Z", closing + 2);
        app.at(&format!("2026-{:02}-01T02:00:00Z", closing + 2));
        app.run(&end).await;
        let invoice = app.invoices().await.pop().unwrap();
        let adjusted = if closing == 0 {
            vec![]
        } else {
            settle(&mut months[closing - 1])
        };
        let usage = settle(&mut months[closing]);
        let shown = |kind| {
            amounts(&invoice, kind)
                .iter()
                .map(|text| minor(&json!(text)))
                .collect::<Vec<_>>()
        };
        assert_eq!(shown("usage"), usage, "seed {seed}, month {closing}");
        let adjusted: Vec<i64> = adjusted.into_iter().filter(|amount| *amount != 0).collect();
        assert_eq!(shown("adjustment"), adjusted, "seed {seed}, month {closing}");
        let sum: i64 = usage.iter().chain(&adjusted).sum();
        assert_eq!(minor(&invoice["total"]), sum, "seed {seed}, month {closing}");
    }
    for invoice in app.invoices().await {
        assert_eq!(
            app.verify(&invoice).await,
            json!({"verified": true, "differences": []}),
            "seed {seed}"
        );
    }
}

/// What is still to be billed of a month, which then is billed.
fn settle(month: &mut Month) -> Vec<i64> {
    let now = costs(month.used);
    let open = now
        .iter()
        .zip(month.billed)
        .map(|(now, billed)| now - billed)
        .collect();
    month.billed = now;
    open
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invoices_and_adjustments_are_those_of_the_oracle() {
    for seed in 0..25 {
        life(seed).await;
    }
}
