//! Real usage: both traces, sent twice and in shuffled order with a kill in the middle, must give the totals that are
//! added up here without any code of the engine.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use serde_json::json;
use turnpike_tests::app::{App, Caller};
use turnpike_tests::run::seed;
use turnpike_tests::traces::{Use, access_log, llm};

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");
const HOUR_US: i64 = 3_600_000_000;

/// Sums by customer, by hour, and distinct values, the plain way.
struct Expected {
    events: u64,
    by_customer: BTreeMap<String, u64>,
    by_hour: BTreeMap<i64, u64>,
    distinct: u64,
    without_amount: u64,
}

fn expected(uses: &[Use]) -> Expected {
    let mut expected = Expected {
        events: uses.len() as u64,
        by_customer: BTreeMap::new(),
        by_hour: BTreeMap::new(),
        distinct: uses
            .iter()
            .map(|one| &one.distinct)
            .collect::<BTreeSet<_>>()
            .len() as u64,
        without_amount: uses.iter().filter(|one| one.amount.is_none()).count() as u64,
    };
    for one in uses {
        if let Some(amount) = one.amount {
            *expected.by_customer.entry(one.customer.clone()).or_default() += amount;
            *expected
                .by_hour
                .entry(one.time_us - one.time_us % HOUR_US)
                .or_default() += amount;
        }
    }
    expected
}

async fn send_all(app: &mut App, uses: &[Use], kill_at: Option<usize>) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for (at, batch) in uses.chunks(500).enumerate() {
        let mut lines = Vec::new();
        for one in batch {
            lines.extend_from_slice(one.event.to_string().as_bytes());
            lines.push(b'\n');
        }
        if kill_at == Some(at) {
            app.restart().await;
        }
        let (status, body) = app.admin().send_lines(lines).await.expect("an answer");
        assert_eq!(status, 200, "{body}");
        for name in ["accepted", "duplicates", "conflicts", "rejected"] {
            *counts.entry(name).or_default() += body[name].as_u64().expect("a count");
        }
    }
    counts
}

/// All rows of a usage query as (key, value), where the key is made from a row.
async fn all(
    caller: &Caller,
    path: &str,
    key: impl Fn(&serde_json::Value) -> String,
) -> BTreeMap<String, u64> {
    let (mut found, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let (status, body) = caller.get(&format!("{path}&limit=1000{cursor}")).await;
        assert_eq!(status, 200, "{body}");
        for row in body["data"].as_array().expect("rows") {
            let value = row["value"]
                .as_str()
                .expect("a value")
                .parse()
                .expect("a whole number");
            assert!(found.insert(key(row), value).is_none(), "a row came twice: {row}");
        }
        match body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

async fn check(app: &App, range: &str, expected: &Expected) {
    let caller = app.admin();
    let by_customer = all(
        &caller,
        &format!("/v1/meters/amount/usage?{range}&group_by=customer"),
        |row| row["customer"].as_str().expect("a customer").to_owned(),
    )
    .await;
    assert_eq!(by_customer, expected.by_customer);
    let by_hour = all(
        &caller,
        &format!("/v1/meters/amount/usage?{range}&window=hour"),
        |row| row["start"].as_str().expect("a start").to_owned(),
    )
    .await;
    let hours = expected.by_hour.iter().map(|(us, sum)| {
        (
            jiff::Timestamp::from_microsecond(*us)
                .expect("a time")
                .to_string(),
            *sum,
        )
    });
    assert_eq!(by_hour, hours.collect());
    let total = async |meter: &str| {
        caller
            .total(meter, range)
            .await
            .expect("a value")
            .parse::<u64>()
            .expect("whole")
    };
    assert_eq!(total("events").await, expected.events);
    assert_eq!(total("distinct").await, expected.distinct);
    assert_eq!(total("amount").await, expected.by_customer.values().sum::<u64>());
}

async fn trace(uses: Vec<Use>, kind: &str, amount: &str, distinct: &str, range: &str) {
    let seed = seed("--test real_usage", 11);
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start(BINARY, directory.path()).await;
    let caller = app.admin();
    for (key, aggregation, value) in [
        ("amount", "sum", Some(amount)),
        ("events", "count", None),
        ("distinct", "unique_count", Some(distinct)),
    ] {
        let mut meter = json!({"event_type": kind, "aggregation": aggregation});
        if let Some(value) = value {
            meter["value"] = json!(value);
        }
        caller.put(&format!("/v1/meters/{key}"), &meter).await;
    }
    let expected = expected(&uses);
    assert!(expected.events > 8_000, "the trace is whole");
    let mut shuffled = uses.clone();
    shuffled.shuffle(&mut StdRng::seed_from_u64(seed));
    let first = send_all(&mut app, &shuffled, Some(shuffled.len() / 1_000)).await;
    assert_eq!((first["accepted"], first["duplicates"]), (expected.events, 0));
    check(&app, range, &expected).await;
    let second = send_all(&mut app, &uses, None).await;
    assert_eq!(
        (second["accepted"], second["duplicates"], second["conflicts"]),
        (0, expected.events, 0)
    );
    check(&app, range, &expected).await;
    app.restart().await;
    check(&app, range, &expected).await;
    let (_, letters) = app.admin().get("/v1/events/dead-letters?limit=1000").await;
    assert_eq!(
        letters["data"].as_array().expect("rows").len() as u64,
        expected.without_amount.min(1_000),
        "{letters}"
    );
    println!(
        "{} events of {kind}, {} without an amount",
        expected.events, expected.without_amount
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_llm_service() {
    let range = "from=2023-11-16T00:00:00Z&to=2023-11-17T00:00:00Z";
    trace(llm(), "llm.request", "$.tokens", "$.context", range).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_site() {
    let range = "from=2015-05-17T00:00:00Z&to=2015-05-22T00:00:00Z";
    trace(access_log(), "http.request", "$.bytes", "$.path", range).await;
}
