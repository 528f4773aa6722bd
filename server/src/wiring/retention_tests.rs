//! Retention through the whole engine: raw events go, usage and invoices stay, and a verification says why it cannot be.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::{Value, json};
use turnpike_domain::time::Timestamp;
use turnpike_stores::fault::FailPoints;
use turnpike_stores::machine::{MachineRandomness, ManualClock};

use super::{Engine, EngineParts, Offline, StartError};
use crate::config::Config;
use crate::http::Answers as _;

const KEY: &str = "test-bootstrap-key-0123456789";
const EVENTS: usize = 4_000;

fn config(data: &Path) -> Config {
    let mut config = Config::built_in().unwrap();
    data.clone_into(&mut config.data_dir);
    config.engine.partitions = 2;
    config.engine.segment_bytes = 65_536;
    config.billing.check_interval_s = 0;
    config.billing.look_back_days = 0;
    config
}

async fn open(config: &Config, now: &str) -> Engine {
    let parts = EngineParts {
        clock: Arc::new(ManualClock::new(Timestamp::parse(now).unwrap())),
        randomness: Arc::new(MachineRandomness),
        fail_points: Arc::new(FailPoints::default()),
        bootstrap_key: Some(KEY.to_owned()),
        show_key: Box::new(|_| Ok(())),
    };
    Engine::open(config, parts).await.unwrap()
}

async fn call(engine: &Engine, method: &str, path: &str, body: &Value) -> (u16, Value) {
    call_with(engine, KEY, (method, path), body).await
}

async fn call_with(engine: &Engine, key: &str, (method, path): (&str, &str), body: &Value) -> (u16, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json");
    let body = if body.is_null() {
        Body::empty()
    } else {
        Body::from(body.to_string())
    };
    let answer = engine.front.answer(request.body(body).unwrap(), None).await;
    let status = answer.status().as_u16();
    let bytes = to_bytes(answer.into_body(), 1 << 22).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// A call that must succeed.
async fn good(engine: &Engine, method: &str, path: &str, body: Value) -> Value {
    let (status, answer) = call(engine, method, path, &body).await;
    assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
    answer
}

/// An event of January that hardly compresses.
fn event(n: usize) -> Value {
    let mut noise = String::new();
    let mut state = n as u64 + 1;
    for _ in 0..12 {
        state = (state ^ (state >> 27))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(31);
        write!(noise, "{state:016x}").unwrap();
    }
    json!({"id": format!("e{n}"), "source": "s", "type": "call", "subject": "acme",
        "time": format!("2026-01-{:02}T{:02}:00:00Z", n % 28 + 1, n % 24), "data": {"noise": noise}})
}

/// A month of usage, billed.
async fn billed_january(engine: &Engine) -> Value {
    let meter = json!({"event_type": "call", "aggregation": "count"});
    good(engine, "PUT", "/v1/meters/calls", meter).await;
    let price = json!({"key": "calls", "meter": "calls", "model": "per_unit", "unit_amount": "0.01"});
    let plan = json!({"name": "Pro", "currency": "USD", "interval": "month", "prices": [price]});
    good(engine, "PUT", "/v1/plans/pro", plan).await;
    good(engine, "PUT", "/v1/customers/acme", json!({"name": "Acme"})).await;
    let subscription = json!({"customer": "acme", "plan": "pro", "start": "2026-01-01T00:00:00Z"});
    good(engine, "POST", "/v1/subscriptions", subscription).await;
    for batch in 0..EVENTS / 200 {
        let events: Vec<_> = (batch * 200..(batch + 1) * 200).map(event).collect();
        let answer = good(engine, "POST", "/v1/events", Value::Array(events)).await;
        assert_eq!(answer["accepted"], 200, "{answer}");
    }
    let end = json!({"period_end": "2026-02-01T00:00:00Z"});
    let mut run = good(engine, "POST", "/v1/billing/runs", end).await;
    let path = format!("/v1/billing/runs/{}", run["id"].as_str().unwrap());
    while run["status"] != "done" {
        assert_ne!(run["status"], "failed", "{run}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        run = good(engine, "GET", &path, Value::Null).await;
    }
    let invoices = good(engine, "GET", "/v1/invoices", Value::Null).await;
    let invoice = invoices["data"][0].clone();
    assert_eq!(invoice["total"], "40.00", "{invoices}");
    invoice
}

async fn verified(engine: &Engine, invoice: &Value) -> Value {
    let path = format!("/v1/invoices/{}/verify", invoice["id"].as_str().unwrap());
    good(engine, "POST", &path, Value::Null).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_events_go_and_a_verification_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut config = config(&data);
    let engine = open(&config, "2026-02-02T00:00:00Z").await;
    let invoice = billed_january(&engine).await;
    assert_eq!(verified(&engine, &invoice).await["verified"], true);
    let usage_path =
        "/v1/meters/calls/usage?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z&window=day&limit=100";
    let usage = good(&engine, "GET", usage_path, Value::Null).await;
    engine.close().await.unwrap();
    assert!(
        !data.join("log/horizon").exists(),
        "kept for ever unless configured"
    );

    config.engine.retention_days = 30;
    config.engine.retention_check_interval_s = 1;
    let engine = open(&config, "2026-06-01T00:00:00Z").await;
    let mut answer = verified(&engine, &invoice).await;
    for _ in 0..300 {
        if answer["verified"] != true {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer = verified(&engine, &invoice).await;
    }
    let expected = json!({"verified": null, "reason": "raw_events_deleted", "differences": []});
    assert_eq!(answer, expected);
    assert!(data.join("log/horizon").exists());
    let still = good(&engine, "GET", usage_path, Value::Null).await;
    assert_eq!(still["data"], usage["data"], "what was counted stays");
    let path = format!("/v1/invoices/{}", invoice["id"].as_str().unwrap());
    assert_eq!(
        good(&engine, "GET", &path, Value::Null).await["total"],
        invoice["total"]
    );
    // A repeat of what is gone is known, and counts no second time.
    let (_, again) = call(&engine, "POST", "/v1/events", &json!([event(0)])).await;
    assert_eq!(again["accepted"], 0, "{again}");
    engine.close().await.unwrap();

    let offline = Offline::open(&config).await.unwrap();
    let mut told = Vec::new();
    let verified = offline.verify_invoices(|_, _, found| told.push(serde_json::to_value(found).unwrap()));
    verified.await.unwrap();
    offline.close().await.unwrap();
    assert_eq!(told, [expected]);
    let refused = Offline::rebuild(&config).await.unwrap_err();
    assert!(matches!(refused, StartError::NotDerivable(_)), "{refused}");
}

/// Objects of the customers that the audit log of a key's tenant names.
async fn customers_noted(engine: &Engine, key: &str) -> Vec<String> {
    let path = "/v1/audit?action=customer&limit=1000";
    let (status, page) = call_with(engine, key, ("GET", path), &Value::Null).await;
    assert_eq!(status, 200, "{page}");
    let rows = page["data"].as_array().unwrap().iter();
    rows.map(|row| row["object"].as_str().unwrap().to_owned())
        .collect()
}

/// By the machine's clock: what a test tenant does is as young as all else, wherever its own clock stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_log_is_kept_as_long_as_it_should_be() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(&directory.path().join("data"));
    let engine = open(&config, "2025-06-01T00:00:00Z").await;
    good(&engine, "PUT", "/v1/customers/old", json!({})).await;
    engine.close().await.unwrap();
    let engine = open(&config, "2026-01-01T00:00:00Z").await;
    good(&engine, "PUT", "/v1/customers/young", json!({})).await;
    let lab = json!({"key": "lab", "test": true, "clock": "2020-01-01T00:00:00Z"});
    let made = good(&engine, "POST", "/v1/tenants", lab).await;
    let lab = made["api_key"].as_str().unwrap();
    let put = ("PUT", "/v1/customers/past");
    let (status, answer) = call_with(&engine, lab, put, &json!({})).await;
    assert!((200..300).contains(&status), "{answer}");
    assert_eq!(
        customers_noted(&engine, KEY).await.len(),
        2,
        "kept for ever unless said"
    );
    engine.close().await.unwrap();

    config.audit.retention_days = 30;
    let engine = open(&config, "2026-01-20T00:00:00Z").await;
    let mut noted = customers_noted(&engine, KEY).await;
    for _ in 0..300 {
        if noted.len() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        noted = customers_noted(&engine, KEY).await;
    }
    assert_eq!(noted, ["customer/young"]);
    assert_eq!(customers_noted(&engine, lab).await, ["customer/past"]);
    engine.close().await.unwrap();
}
