//! Seeded usage for the fault tests, and the bookkeeping of what was acknowledged.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::app::Caller;
use crate::compare::{self, SubjectRow, Verdicts, assert_rows, assert_total};
use crate::instant::time;
use crate::oracle::{Oracle, OracleEvent, OracleMeter, Select};

/// 2026-01-01T00:00:00Z in microseconds: the month that the events lie in.
pub const MONTH_US: i64 = 1_767_225_600_000_000;
/// The length of January.
pub const MONTH_LEN_US: i64 = 31 * 86_400 * 1_000_000;
/// The same month in a query.
pub const MONTH_QUERY: &str = "from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z";

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

    fn count(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_default() += times;
    }

    /// An event that was not sent before.
    pub fn fresh(&mut self) -> OracleEvent {
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

    /// Sends a batch and tells the oracle. False: no answer came, and nothing was told; the caller brings the server back
    /// and sends the same batch again.
    pub async fn send(&mut self, caller: &Caller, batch: &[OracleEvent], again: bool) -> bool {
        let Some(verdicts) = compare::send(caller, &mut self.oracle, batch, again).await else {
            return false;
        };
        self.note(batch, verdicts);
        true
    }

    fn note(&mut self, batch: &[OracleEvent], verdicts: Verdicts) {
        self.sent.extend_from_slice(batch);
        self.count("accepted", verdicts.accepted);
        self.count("duplicates", verdicts.duplicates);
        self.count("conflicts", verdicts.conflicts);
    }

    /// Tells the oracle a batch that was sent by somebody else in the same way.
    pub fn tell(&mut self, batch: &[OracleEvent]) {
        let verdicts = Verdicts::of(&mut self.oracle, batch);
        self.note(batch, verdicts);
    }

    /// The same for a correction.
    pub fn tell_correction(&mut self, correction: &Correction) {
        let Correction { source, id, amend } = correction;
        match amend {
            None => self.oracle.void(source, id),
            Some((data, time_us)) => self.oracle.amend(source, id, Some(data.clone()), *time_us),
        };
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
        let step = correct(caller, &mut self.oracle, correction).await;
        if let Some(step) = step {
            self.count(step, 1);
        }
        step.is_some()
    }

    /// Every meter, over the month and by customer and day, must be what the oracle says.
    pub async fn verify(&self, caller: &Caller) {
        dump(caller, &self.oracle).await;
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

/// Sends a correction and tells the oracle; what it was. None: no answer came, or one that says to try again.
pub async fn correct(caller: &Caller, oracle: &mut Oracle, correction: &Correction) -> Option<&'static str> {
    let Correction { source, id, amend } = correction;
    let step = if amend.is_some() { "amend" } else { "void" };
    let body = amend.as_ref().map_or_else(
        || json!({}),
        |(data, time_us)| match time_us {
            Some(time_us) => json!({"data": data, "time": time(*time_us)}),
            None => json!({ "data": data }),
        },
    );
    let path = format!("/v1/events/{source}/{id}/{step}");
    let (status, answer) = caller.send(reqwest::Method::POST, &path, Some(&body)).await?;
    match (status, amend) {
        (200, None) => assert!(oracle.void(source, id)),
        (200, Some((data, time_us))) => {
            let known = oracle.amend(source, id, Some(data.clone()), *time_us);
            assert!(known, "{path}: {answer}");
        }
        (409, Some(_)) => assert!(!oracle.amend(source, id, None, None), "{path}: {answer}"),
        (503 | 429, _) => return None,
        _ => panic!("{path}: {status} {answer}"),
    }
    Some(step)
}

/// All usage that the meters know of the month: totals, and rows by day and customer, also of customers that are named more
/// than once. Each must be the oracle's.
pub async fn dump(caller: &Caller, oracle: &Oracle) -> Vec<(&'static str, Vec<SubjectRow>)> {
    let whole = Select {
        from_us: MONTH_US,
        to_us: MONTH_US + MONTH_LEN_US,
        ..Select::default()
    };
    let by_day = Select {
        window: Some("day".into()),
        zone: Some("Europe/Istanbul".into()),
        ..whole.clone()
    };
    let mut all = Vec::new();
    for (key, meter) in meters() {
        assert_total(caller, oracle, (key, &meter), &whole).await;
        // The oracle carries no value from day to day.
        if meter.aggregation != "time_weighted_sum" {
            let rows = assert_rows(caller, oracle, (key, &meter), &by_day).await;
            let named_again = Select {
                subjects: rows
                    .iter()
                    .take(5)
                    .flat_map(|row| [row.1.clone(), row.1.clone()])
                    .collect(),
                ..by_day.clone()
            };
            assert_rows(caller, oracle, (key, &meter), &named_again).await;
            all.push((key, rows));
        }
    }
    all
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
