//! Billing runs, and invoices beside those of the oracle.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::door::{Door, must};
use crate::instant::{time, us};
use crate::oracle::{OracleInvoice, OraclePlan, OraclePrice};

/// Runs billing to its end: all that is unbilled of periods that have ended. False: no answer, or it failed.
pub async fn bill(door: &impl Door, to_us: i64) -> bool {
    let body = json!({ "period_end": time(to_us) });
    let Some((status, run)) = door.call("POST", "/v1/billing/runs", Some(&body)).await else {
        return false;
    };
    assert_eq!(status, 202, "{run}");
    let path = format!("/v1/billing/runs/{}", run["id"].as_str().expect("an id"));
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(20) {
        let Some((status, run)) = door.call("GET", &path, None).await else {
            return false;
        };
        assert_eq!(status, 200, "{run}");
        match run["status"].as_str() {
            Some("done") => return true,
            Some("failed") => return false,
            _ => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
    // Its failure is in the log only: it goes on at the next start.
    false
}

/// A customer's invoices, in the order of their periods.
pub async fn invoices(door: &impl Door, customer: &str) -> Vec<Value> {
    let path = format!("/v1/invoices?customer={customer}&limit=1000");
    let (status, page) = door.call("GET", &path, None).await.expect("an answer");
    assert_eq!(status, 200, "{page}");
    let mut found = page["data"].as_array().expect("rows").clone();
    found.sort_by_key(|invoice| invoice["period"]["start"].to_string());
    found
}

/// A customer's invoices must be those of the oracle, and each must follow from the raw log; what they are.
pub async fn assert_invoices(door: &impl Door, customer: &str, expected: &[OracleInvoice]) -> Vec<Value> {
    let found = invoices(door, customer).await;
    let shown: Vec<_> = found.iter().map(shown).collect();
    assert_eq!(shown, expected, "invoices of {customer}");
    for invoice in &found {
        let id = invoice["id"].as_str().expect("an id");
        let verified = must(door, "POST", &format!("/v1/invoices/{id}/verify"), &json!({})).await;
        assert_eq!(verified, json!({"verified": true, "differences": []}));
    }
    found
}

/// An invoice of the API as the oracle makes it.
fn shown(invoice: &Value) -> OracleInvoice {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let line = |line: &Value| (text(&line["kind"]), text(&line["price"]), text(&line["amount"]));
    let lines = invoice["lines"].as_array().expect("lines");
    let mut lines: Vec<_> = lines.iter().map(line).collect();
    lines.sort();
    OracleInvoice {
        start_us: us(&text(&invoice["period"]["start"])),
        end_us: us(&text(&invoice["period"]["end"])),
        lines,
        total: text(&invoice["total"]),
    }
}

/// A plan of the oracle as it is declared, in US dollars, with flat prices in arrears. `meters` names the meter of each
/// price that has one.
pub fn declared(plan: &OraclePlan, meters: &[(&str, &str)]) -> Value {
    let price = |charge: &crate::oracle::OracleCharge| {
        let mut price = match &charge.price {
            OraclePrice::Flat { amount } => json!({"model": "flat", "amount": amount, "timing": "arrears"}),
            OraclePrice::PerUnit {
                unit_amount,
                included,
            } => {
                json!({"model": "per_unit", "unit_amount": unit_amount, "included": included})
            }
            OraclePrice::Package { size, amount } => {
                json!({"model": "package", "package_size": size, "package_amount": amount})
            }
            OraclePrice::Graduated { tiers } => {
                let tiers: Vec<_> = tiers
                    .iter()
                    .map(|tier| {
                        json!({"up_to": tier.up_to, "unit_amount": tier.unit_amount, "flat_amount": tier.flat_amount})
                    })
                    .collect();
                json!({"model": "graduated", "tiers": tiers})
            }
        };
        price["key"] = json!(charge.key);
        if let Some((_, meter)) = meters.iter().find(|(key, _)| *key == charge.key) {
            price["meter"] = json!(meter);
        }
        price
    };
    let prices: Vec<_> = plan.charges.iter().map(price).collect();
    let mut declared = json!({"currency": "USD", "prices": prices});
    if let Some(commitment) = &plan.minimum_commitment {
        declared["minimum_commitment"] = json!(commitment);
    }
    declared
}
