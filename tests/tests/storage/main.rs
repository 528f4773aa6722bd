//! What the data directory promises, on the real binary: a full disk (R5), and directories that cannot be used.

mod damaged;
mod full;

use std::path::Path;

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use turnpike_tests::app::{self, ADMIN_KEY, App};
use turnpike_tests::compare::{Verdicts, assert_total, ndjson};
use turnpike_tests::instant::DAY_US;
use turnpike_tests::oracle::{Oracle, OracleEvent, OracleMeter, Select};
use turnpike_tests::workload::{MONTH_LEN_US, MONTH_US};

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");

/// Events that do not compress.
fn batch(random: &mut StdRng, first: u64, count: u64) -> Vec<OracleEvent> {
    let mut event = |id: u64| {
        let noise = (0..4_000).map(|_| char::from(random.random_range(b'a'..=b'z')));
        OracleEvent {
            source: "s".into(),
            id: format!("e{id}"),
            kind: "t".into(),
            subject: "a".into(),
            time_us: MONTH_US + 14 * DAY_US,
            data: json!({"noise": noise.collect::<String>()}),
        }
    };
    (first..first + count).map(&mut event).collect()
}

struct Sent {
    status: u16,
    retry_after: Option<String>,
    body: Value,
}

/// Sends events; the headers of the answer are looked at too. A batch that is taken is told to the oracle.
async fn send(app: &App, oracle: &mut Oracle, events: &[OracleEvent], again: bool) -> Sent {
    let request = reqwest::Client::new()
        .post(app.url("/v1/events"))
        .bearer_auth(ADMIN_KEY)
        .header("content-type", "application/x-ndjson")
        .body(ndjson(events));
    let answer = request.send().await.expect("an answer");
    let retry_after = answer.headers().get("retry-after");
    let retry_after = retry_after.map(|value| value.to_str().expect("text").to_owned());
    let sent = Sent {
        status: answer.status().as_u16(),
        retry_after,
        body: answer.json().await.expect("JSON"),
    };
    if sent.status == 200 {
        Verdicts::of(oracle, events).assert_said(&sent.body, again);
    }
    sent
}

fn meter() -> OracleMeter {
    OracleMeter {
        event_type: "t".into(),
        aggregation: "count".into(),
        ..OracleMeter::default()
    }
}

fn january() -> Select {
    Select {
        from_us: MONTH_US,
        to_us: MONTH_US + MONTH_LEN_US,
        ..Select::default()
    }
}

async fn declare(app: &App) {
    let meter = json!({"event_type": "t", "aggregation": "count"});
    app.admin().put("/v1/meters/count", &meter).await;
}

async fn verify(app: &App, oracle: &Oracle) {
    assert_total(&app.admin(), oracle, ("count", &meter()), &january()).await;
}

/// Starts the server where it must not start: exit code, and what it says.
fn serve(data: &Path) -> (Option<i32>, String) {
    run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        &data.display().to_string(),
    ])
}

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let ended = app::run(BINARY, Path::new("/"), arguments);
    (ended.code, ended.out + &ended.error)
}
