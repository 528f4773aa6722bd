//! Seeded usage for the fault tests, and the bookkeeping of what was acknowledged.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::app::Caller;
use crate::oracle::{Oracle, OracleEvent, OracleMeter, Select, Verdict};

/// 2026-01-01T00:00:00Z in microseconds: the month that the events lie in.
pub const MONTH_US: i64 = 1_767_225_600_000_000;
/// The length of January.
pub const MONTH_LEN_US: i64 = 31 * 86_400 * 1_000_000;
/// The same month in a query.
pub const MONTH_QUERY: &str = "from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z";

/// The seed of a test: `TURNPIKE_TEST_SEED`, else the one given. Printed, with the command that replays it.
pub fn seed(test: &str, default: u64) -> u64 {
    let seed = std::env::var("TURNPIKE_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default);
    println!("seed {seed}; again: TURNPIKE_TEST_SEED={seed} cargo test -p turnpike-tests {test}");
    seed
}

/// How often a fault is tried: `TURNPIKE_TEST_NIGHTLY` takes the larger number.
pub fn times(per_change: usize, nightly: usize) -> usize {
    if std::env::var_os("TURNPIKE_TEST_NIGHTLY").is_some() {
        nightly
    } else {
        per_change
    }
}

/// A generator of events with duplicates, conflicts, corrections and late ones.
pub struct Workload {
    random: StdRng,
    next: u64,
    sent: Vec<OracleEvent>,
    /// What was acknowledged.
    pub oracle: Oracle,
    /// How often each thing happened.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Workload {
    /// The same seed makes the same events.
    pub fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self {
            random,
            next: 0,
            sent: Vec::new(),
            oracle: Oracle::default(),
            counts: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn fresh(&mut self) -> OracleEvent {
        self.next += 1;
        let model = ["small", "large", "huge"][self.random.random_range(0..3)];
        OracleEvent {
            source: format!("source-{}", self.random.random_range(0..3)),
            id: format!("event-{}", self.next),
            kind: "llm.request".to_owned(),
            subject: format!("customer-{}", self.random.random_range(0..20)),
            time_us: MONTH_US + self.random.random_range(0..MONTH_LEN_US),
            data: json!({
                "tokens": format!("{}.{:02}", self.random.random_range(0..5_000), self.random.random_range(0..100)),
                "model": model,
                "user": format!("user-{}", self.random.random_range(0..40)),
            }),
        }
    }

    /// A batch in which some events were sent before, and some of these with other content.
    pub fn batch(&mut self, size: usize) -> Vec<OracleEvent> {
        let mut batch = Vec::with_capacity(size);
        for _ in 0..size {
            let event = match self.random.random_range(0..20) {
                0 | 1 if !self.sent.is_empty() => {
                    let at = self.random.random_range(0..self.sent.len());
                    let mut again = self.sent[at].clone();
                    if self.random.random_bool(0.3) {
                        again.data["tokens"] = json!("1234567.5");
                    }
                    again
                }
                _ => self.fresh(),
            };
            batch.push(event);
        }
        batch
    }

    /// Sends a batch until it is answered, whatever happens on the way, and tells the oracle. False: no answer came, and
    /// nothing was told; the caller brings the server back and sends the same batch again.
    pub async fn send(&mut self, caller: &Caller, batch: &[OracleEvent], again: bool) -> bool {
        let mut lines = Vec::new();
        for event in batch {
            lines.extend_from_slice(event.to_json().to_string().as_bytes());
            lines.push(b'\n');
        }
        let Some((status, body)) = caller.send_lines(lines).await else {
            return false;
        };
        if status == 503 || status == 429 {
            self.count("refused");
            return false;
        }
        assert_eq!(status, 200, "{body}");
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        for event in batch {
            let verdict = match self.oracle.send(event.clone()) {
                Verdict::Accepted => "accepted",
                Verdict::Duplicate => "duplicates",
                Verdict::Conflict => "conflicts",
            };
            *expected.entry(verdict).or_default() += 1;
            self.sent.push(event.clone());
            self.count(verdict);
        }
        let says = |name: &str| body[name].as_u64().unwrap_or(u64::MAX);
        let expects = |name: &str| expected.get(name).copied().unwrap_or(0);
        assert_eq!(says("conflicts"), expects("conflicts"), "{body}");
        assert_eq!(says("rejected"), 0, "{body}");
        if again {
            // What the lost answer had acknowledged is a duplicate now.
            assert_eq!(
                says("accepted") + says("duplicates"),
                expects("accepted") + expects("duplicates"),
                "{body}"
            );
        } else {
            assert_eq!(says("accepted"), expects("accepted"), "{body}");
            assert_eq!(says("duplicates"), expects("duplicates"), "{body}");
        }
        true
    }

    /// A correction of an event that was sent: path and body.
    pub fn correction(&mut self) -> Option<Correction> {
        let at = self.random.random_range(0..self.sent.len().max(1));
        let event = self.sent.get(at)?.clone();
        let amend = self.random.random_bool(0.6).then(|| {
            let data =
                json!({"tokens": self.random.random_range(0..9_000), "model": "large", "user": "user-1"});
            let time_us = self
                .random
                .random_bool(0.5)
                .then(|| MONTH_US + self.random.random_range(0..MONTH_LEN_US));
            (data, time_us)
        });
        Some(Correction {
            source: event.source,
            id: event.id,
            amend,
        })
    }

    /// Sends a correction and tells the oracle. False: no answer came.
    pub async fn correct(&mut self, caller: &Caller, correction: &Correction) -> bool {
        let Correction { source, id, amend } = correction;
        let step = if amend.is_some() { "amend" } else { "void" };
        let body = amend.as_ref().map_or_else(
            || json!({}),
            |(data, time_us)| {
                let mut body = json!({ "data": data });
                if let Some(time_us) = time_us {
                    body["time"] = json!(
                        jiff::Timestamp::from_microsecond(*time_us)
                            .expect("a time")
                            .to_string()
                    );
                }
                body
            },
        );
        let path = format!("/v1/events/{source}/{id}/{step}");
        let Some((status, answer)) = caller.send(reqwest::Method::POST, &path, Some(&body)).await else {
            return false;
        };
        match (status, amend) {
            (200, None) => assert!(self.oracle.void(source, id)),
            (200, Some((data, time_us))) => {
                assert!(
                    self.oracle.amend(source, id, Some(data.clone()), *time_us),
                    "{path}: {answer}"
                );
            }
            (409, Some(_)) => assert!(!self.oracle.amend(source, id, None, None), "{path}: {answer}"),
            (503 | 429, _) => return false,
            _ => panic!("{path}: {status} {answer}"),
        }
        self.count(step);
        true
    }

    /// Every meter, over the month and by customer and day, must be what the oracle says.
    pub async fn verify(&self, caller: &Caller) {
        for (key, meter) in meters() {
            let whole = Select {
                from_us: MONTH_US,
                to_us: MONTH_US + MONTH_LEN_US,
                ..Select::default()
            };
            let expected = self.oracle.total(&meter, &whole);
            let found = caller.total(key, MONTH_QUERY).await;
            assert_eq!(
                found.filter(|v| v != "0"),
                expected.filter(|v| v != "0"),
                "{key} over the month"
            );
        }
        for (key, meter) in meters().into_iter().filter(|(key, _)| *key != "gauge") {
            let select = Select {
                from_us: MONTH_US,
                to_us: MONTH_US + MONTH_LEN_US,
                window: Some("day".into()),
                zone: Some("Europe/Istanbul".into()),
                group_by: vec!["subject".into()],
                ..Select::default()
            };
            let path = format!(
                "/v1/meters/{key}/usage?{MONTH_QUERY}&window=day&tz=Europe/Istanbul&group_by=subject"
            );
            assert_eq!(
                rows(caller, &path).await,
                expected_rows(&self.oracle, &meter, &select),
                "{path}"
            );
        }
    }
}

/// A correction on its way: a void, or an amend with data and perhaps a time.
#[derive(Debug, Clone)]
pub struct Correction {
    /// Of the event.
    pub source: String,
    /// Of the event.
    pub id: String,
    /// None: a void.
    pub amend: Option<(Value, Option<i64>)>,
}

/// Rows of an answer as (start in microseconds, subject, value), through all pages, in order.
pub async fn rows(caller: &Caller, path: &str) -> Vec<(i64, String, String)> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let (status, body) = caller.get(&format!("{path}{cursor}")).await;
        assert_eq!(status, 200, "{path}: {body}");
        for row in body["data"].as_array().expect("rows") {
            let start: jiff::Timestamp = row["start"].as_str().expect("a start").parse().expect("a time");
            let subject = row["subject"]
                .as_str()
                .or(row["group"]["subject"].as_str())
                .expect("a subject");
            let value = row["value"].as_str().unwrap_or("null").to_owned();
            found.push((start.as_microsecond(), subject.to_owned(), value));
        }
        match body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    found.sort();
    found
}

fn expected_rows(oracle: &Oracle, meter: &OracleMeter, select: &Select) -> Vec<(i64, String, String)> {
    let rows = oracle.usage(meter, select).into_iter();
    let mut rows: Vec<_> = rows
        .map(|(start, group, value)| (start, group.concat(), value.unwrap_or_else(|| "null".to_owned())))
        .collect();
    rows.sort();
    rows
}

/// One meter of each aggregation over the workload's events, by key.
pub fn meters() -> Vec<(&'static str, OracleMeter)> {
    let meter = |aggregation: &str, value: Option<&str>| OracleMeter {
        event_type: "llm.request".into(),
        aggregation: aggregation.into(),
        value: value.map(str::to_owned),
        percentile: (aggregation == "percentile").then(|| "95".to_owned()),
        group_by: [("model".to_owned(), "model".to_owned())].into(),
        ..OracleMeter::default()
    };
    let mut large = meter("sum", Some("tokens"));
    large.filter = [("model".to_owned(), vec!["large".to_owned(), "huge".to_owned()])].into();
    vec![
        ("requests", meter("count", None)),
        ("tokens", meter("sum", Some("tokens"))),
        ("large", large),
        ("smallest", meter("min", Some("tokens"))),
        ("largest", meter("max", Some("tokens"))),
        ("average", meter("avg", Some("tokens"))),
        ("users", meter("unique_count", Some("user"))),
        ("newest", meter("latest", Some("tokens"))),
        ("p95", meter("percentile", Some("tokens"))),
        ("gauge", meter("time_weighted_sum", Some("tokens"))),
    ]
}

/// Declares the meters to the server.
pub async fn declare(caller: &Caller) {
    for (key, meter) in meters() {
        let paths = |map: &BTreeMap<String, String>| -> BTreeMap<String, String> {
            map.iter()
                .map(|(name, member)| (name.clone(), format!("$.{member}")))
                .collect()
        };
        let mut body = json!({"event_type": meter.event_type, "aggregation": meter.aggregation, "group_by": paths(&meter.group_by)});
        if let Some(value) = &meter.value {
            body["value"] = json!(format!("$.{value}"));
        }
        if let Some(percentile) = &meter.percentile {
            body["percentile"] = json!(percentile);
        }
        for (member, values) in &meter.filter {
            body["filter"][format!("$.{member}")] = json!(values);
        }
        caller.put(&format!("/v1/meters/{key}"), &body).await;
    }
}
