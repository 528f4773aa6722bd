//! R12, R13, R14, R15, R20, R21: storms of duplicates, any order of arrival, poison, tenants beside each other, more load than
//! the engine takes, and processes that are asked to end or put to sleep under load.

mod duplicates;
mod ending;
mod isolation;
mod order;
mod overload;
mod poison;

use serde_json::json;
use turnpike_tests::app::Caller;
use turnpike_tests::instant::DAY_US;
use turnpike_tests::oracle::{Oracle, OracleEvent, OracleMeter, Select};
use turnpike_tests::workload::{MONTH_LEN_US, MONTH_US};

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");

/// An event of the middle of January.
fn event(source: &str, id: u64, tokens: u64) -> OracleEvent {
    OracleEvent {
        source: source.to_owned(),
        id: format!("id-{id}"),
        kind: "t".to_owned(),
        subject: format!("s{}", id % 10),
        time_us: MONTH_US + 14 * DAY_US,
        data: json!({"tokens": tokens, "bytes": 2 * tokens}),
    }
}

/// Three meters on the same events.
fn meters() -> [(&'static str, OracleMeter); 3] {
    let meter = |aggregation: &str, value: Option<&str>| OracleMeter {
        event_type: "t".into(),
        aggregation: aggregation.into(),
        value: value.map(str::to_owned),
        ..OracleMeter::default()
    };
    [
        ("events", meter("count", None)),
        ("tokens", meter("sum", Some("tokens"))),
        ("bytes", meter("sum", Some("bytes"))),
    ]
}

async fn declare(caller: &Caller) {
    for (key, meter) in meters() {
        let mut body = json!({"event_type": meter.event_type, "aggregation": meter.aggregation});
        if let Some(value) = &meter.value {
            body["value"] = json!(format!("$.{value}"));
        }
        caller.put(&format!("/v1/meters/{key}"), &body).await;
    }
}

/// The three meters must be what the oracle says, in total and by subject.
async fn verify(caller: &Caller, oracle: &Oracle) {
    let month = Select {
        from_us: MONTH_US,
        to_us: MONTH_US + MONTH_LEN_US,
        ..Select::default()
    };
    for (key, meter) in meters() {
        turnpike_tests::compare::assert_total(caller, oracle, (key, &meter), &month).await;
        turnpike_tests::compare::assert_rows(caller, oracle, (key, &meter), &month).await;
    }
}
