//! T11: one billing run over many subscriptions with three metered prices each.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use turnpike_domain::identity::TenantId;
use turnpike_domain::port::control::{ControlStore as _, Decision, Effect};
use turnpike_domain::time::Timestamp;
use turnpike_stores::contract::control::{change, customer, subscription};
use turnpike_stores::fault::FailPoints;
use turnpike_stores::machine::{MachineClock, MachineRandomness, TenantClock};
use turnpike_stores::sql::{SqlPlace, SqlStore};

use crate::Failure;
use crate::client::{Connection, Wire, request};
use crate::engine::{API_KEY, Engine, key_of};

/// Customers and subscriptions in one transaction, and events in one request.
const BATCH: u32 = 1_000;
/// Nothing is billed but by the run.
pub const BY_THE_RUN: [(&str, &str); 1] = [("TURNPIKE_BILLING_CHECK_INTERVAL_S", "0")];
/// Seconds after which the run is given up.
const SECONDS_MAX: u64 = 1_800;

/// Makes the subscriptions, sends two events for each, runs billing for January 2026, and looks whether each has its
/// invoice.
pub async fn measure(binary: &Path, subscriptions: u32) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let place = directory.path().join("engine");
    let engine = Engine::start(binary, &place, &BY_THE_RUN).await?;
    declare(&engine, "load").await?;
    drop(engine);
    subscribe(&place, subscriptions).await?;
    let engine = Engine::start(binary, &place, &BY_THE_RUN).await?;
    let mut connection = Connection::open(engine.address, Wire::Http).await?;
    for first in (0..subscriptions).step_by(BATCH as usize) {
        send(&mut connection, first..subscriptions.min(first + BATCH)).await?;
    }
    let begin = Instant::now();
    let run = run(&mut connection).await?;
    let seconds = begin.elapsed().as_secs_f64();
    if run["invoices"] != subscriptions || run["failed"] != 0 {
        return Err(format!("not every subscription was billed: {run}").into());
    }
    check(&mut connection, subscriptions).await?;
    println!(
        "billing run: {subscriptions} subscriptions in {seconds:.1} s, {:.0} invoices/s, peak memory {} MB",
        f64::from(subscriptions) / seconds,
        engine.peak_memory_bytes() / 1_000_000
    );
    Ok(())
}

/// Three meters, and a plan with a price of each.
pub async fn declare(engine: &Engine, plan: &str) -> Result<(), Failure> {
    for (meter, aggregation) in [("tokens", "sum"), ("peak", "max"), ("requests", "count")] {
        let value = (aggregation != "count").then_some("$.tokens");
        let mut body = json!({"event_type": "llm.request", "aggregation": aggregation});
        if let Some(path) = value {
            body["value"] = path.into();
        }
        engine.put(&format!("/v1/meters/{meter}"), &body).await?;
    }
    let tiers =
        json!([{"up_to": "1000", "unit_amount": "0.05", "flat_amount": "1"}, {"unit_amount": "0.04"}]);
    let body = json!({"currency": "USD", "prices": [
        {"key": "tokens", "meter": "tokens", "model": "graduated", "tiers": tiers},
        {"key": "peak", "meter": "peak", "model": "per_unit", "unit_amount": "0.001"},
        {"key": "requests", "meter": "requests", "model": "package", "package_size": "10", "package_amount": "1"}]});
    engine.put(&format!("/v1/plans/{plan}"), &body).await
}

/// Writes customers and subscriptions into the database of a stopped engine, many in a transaction.
async fn subscribe(place: &Path, subscriptions: u32) -> Result<(), Failure> {
    let store = SqlStore::open(
        &SqlPlace::File(place.join("turnpike.db")),
        Arc::new(TenantClock::new(Arc::new(MachineClock))),
        Arc::new(MachineRandomness),
        Arc::new(FailPoints::default()),
    )
    .await?;
    let start = Timestamp::parse("2026-01-01T00:00:00Z")?;
    for first in (0..subscriptions).step_by(BATCH as usize) {
        let mut effects = Vec::new();
        for n in first..subscriptions.min(first + BATCH) {
            let key = key_of(n);
            effects.push(Effect::Customer(customer(&key, &key)));
            let id = format!("sub-{key}");
            effects.push(Effect::Subscription(subscription(&id, &key, "load", start)));
        }
        let decide = move |_: &dyn turnpike_domain::port::control::ControlState| {
            Ok(Decision {
                effects,
                ..Decision::unchanged(Value::Null)
            })
        };
        store
            .change(change(TenantId::DEFAULT, None), Box::new(decide))
            .await?;
    }
    Ok(store.close().await?)
}

/// Two events of each customer, in January.
pub async fn send(connection: &mut Connection, customers: std::ops::Range<u32>) -> Result<(), Failure> {
    let event = |n: u32, day: u32| {
        json!({"specversion": "1.0", "id": format!("{n}-{day}"), "source": "load", "type": "llm.request",
            "subject": key_of(n), "time": format!("2026-01-{day:02}T10:00:00Z"), "data": {"tokens": 600 + n % 800}})
    };
    let events: Vec<Value> = customers.flat_map(|n| [event(n, 5), event(n, 20)]).collect();
    let body = Value::Array(events).to_string();
    let answer = call(connection, ("POST", "/v1/events"), &body).await?;
    if answer["rejected"] != 0 || answer["accepted"] == 0 {
        return Err(format!("events were refused: {answer}").into());
    }
    Ok(())
}

/// Runs billing to its end.
pub async fn run(connection: &mut Connection) -> Result<Value, Failure> {
    let asked = json!({"period_end": "2026-02-01T00:00:00Z"}).to_string();
    let mut run = call(connection, ("POST", "/v1/billing/runs"), &asked).await?;
    let path = format!("/v1/billing/runs/{}", run["id"].as_str().unwrap_or_default());
    let begin = Instant::now();
    while run["status"] != "done" && run["status"] != "failed" {
        if begin.elapsed() > Duration::from_secs(SECONDS_MAX) {
            return Err(format!("the run did not end within {SECONDS_MAX} s: {run}").into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        run = call(connection, ("GET", &path), "").await?;
    }
    Ok(run)
}

/// The last number is that of the last subscription, there is none behind it, and a sample is verified.
async fn check(connection: &mut Connection, subscriptions: u32) -> Result<(), Failure> {
    let number = |n: u32| format!("INV-{n:06}");
    let sample: Vec<String> = (1..=subscriptions)
        .step_by(1 + subscriptions as usize / 500)
        .map(number)
        .collect();
    let asked = json!({ "invoices": sample }).to_string();
    let found = call(connection, ("POST", "/v1/invoices/verify"), &asked).await?;
    let all = found["data"].as_array().ok_or("no verification")?;
    if all.iter().any(|one| one["verified"] != true) || all.len() != sample.len() {
        return Err(format!("an invoice is wrong: {found}").into());
    }
    let behind = format!("/v1/invoices/{}", number(subscriptions + 1));
    let bytes = request("GET", &behind, API_KEY, "application/json", b"");
    let (status, _) = connection.call(&bytes).await?;
    if status != 404 {
        return Err(format!("{behind} answers {status}").into());
    }
    Ok(())
}

async fn call(
    connection: &mut Connection,
    (method, path): (&str, &str),
    body: &str,
) -> Result<Value, Failure> {
    let bytes = request(method, path, API_KEY, "application/json", body.as_bytes());
    let (status, body) = connection.call(&bytes).await?;
    if !(200..300).contains(&status) {
        return Err(format!("{method} {path}: {status}: {}", String::from_utf8_lossy(body)).into());
    }
    Ok(serde_json::from_slice(body)?)
}
