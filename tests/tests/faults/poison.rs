//! R14: one event of a hundred cannot be read, by anybody or by one of three meters.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use turnpike_tests::app::{App, Caller};
use turnpike_tests::compare::{must_send, ndjson};
use turnpike_tests::oracle::{Oracle, OracleEvent};
use turnpike_tests::run::times;
use turnpike_tests::waits::Waits;

use super::{BINARY, declare, event, verify};

/// Events of one request, of which the last is poison.
const BATCH: u64 = 100;
/// No answer takes longer, or something stalls.
const STALL: Duration = Duration::from_secs(10);
/// Kinds of poison.
const KINDS: u64 = 16;

/// What is sent, and what becomes of it.
enum Poison {
    /// Refused, with this code: no meter sees it.
    Refused(Vec<u8>, &'static str),
    /// Taken, for its envelope is good; the meter `tokens` cannot read it.
    Unreadable(OracleEvent),
}

fn poison(number: u64) -> Poison {
    let envelope = |data: &str| {
        let id = format!(r#"{{"id":"refused-{number}","source":"poison","type":"t","subject":"s""#);
        format!(r#"{id},"time":"2026-01-15T12:00:00Z","data":{data}}}"#).into_bytes()
    };
    let plain = |text: &str| text.replace("ID", &format!("refused-{number}")).into_bytes();
    let unreadable = |tokens: Value| {
        let mut poison = event("poison", number, 7);
        poison.data["tokens"] = tokens;
        Poison::Unreadable(poison)
    };
    let deep = || format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
    let long = || format!(r#"{{"x":"{}"}}"#, "y".repeat(10 * 1024 * 1024));
    match number % KINDS {
        0 => Poison::Refused(
            b"{\"id\":\"\xff\xfe\",\"source\":\"s\",\"type\":\"t\",\"subject\":\"s\"}".to_vec(),
            "invalid_json",
        ),
        1 => Poison::Refused(envelope(r#"{"tokens":NaN}"#), "invalid_json"),
        2 => Poison::Refused(envelope(&deep()), "too_deep"),
        3 => Poison::Refused(envelope(&long()), "too_large"),
        4 => Poison::Refused(plain(r#"{"id":"ID""#), "invalid_json"),
        5 => Poison::Refused(plain("[1,2]"), "invalid"),
        6 => Poison::Refused(plain(r#"{"id":"ID","source":"s","type":"t"}"#), "invalid_subject"),
        7 => Poison::Refused(
            plain(r#"{"id":"ID","source":"s","type":"t","subject":"s","time":"1969-12-31T23:59:59Z"}"#),
            "invalid_time",
        ),
        8 => Poison::Refused(
            plain(r#"{"id":"ID","source":"s","type":"t","subject":"s","time":"2999-01-01T00:00:00Z"}"#),
            "time_in_future",
        ),
        9 => Poison::Refused(
            plain(r#"{"id":"ID","source":"s","type":"t","subject":"s","data":[]}"#),
            "invalid_data",
        ),
        10 => Poison::Refused(
            plain(r#"{"id":7,"source":"s","type":"t","subject":"s"}"#),
            "invalid_id",
        ),
        11 => unreadable(json!("abc")),
        12 => unreadable(json!(1e40)),
        13 => unreadable(json!(true)),
        14 => unreadable(json!("0.0000000000001")),
        _ => unreadable(Value::Null),
    }
}

/// Good events of a batch that nobody sent before.
fn good(batch: u64) -> Vec<OracleEvent> {
    let ids = batch * BATCH..(batch + 1) * BATCH - 1;
    ids.map(|id| event("good", id, id)).collect()
}

/// Sends a batch with poison at its end.
async fn send(caller: &Caller, oracle: &mut Oracle, batch: u64, refusals: &mut BTreeMap<String, u64>) {
    let mut events = good(batch);
    let refused = match poison(batch) {
        Poison::Unreadable(event) => {
            events.push(event);
            None
        }
        Poison::Refused(line, code) => Some((line, code)),
    };
    let mut lines = ndjson(&events);
    if let Some((line, _)) = &refused {
        lines.extend_from_slice(line);
        lines.push(b'\n');
    }
    let (status, answer) = caller.send_lines(lines).await.expect("an answer");
    let count = (events.len() as u64, u64::from(refused.is_some()));
    let said = answer["accepted"].as_u64().zip(answer["rejected"].as_u64());
    assert_eq!((status, said), (200, Some(count)), "{answer}");
    for event in events {
        oracle.send(event);
    }
    if let Some((line, code)) = refused {
        let error = &answer["errors"][0];
        let start = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
        assert_eq!(
            (&error["index"], &error["code"]),
            (&json!(BATCH - 1), &json!(code)),
            "{start}: {error}"
        );
        assert!(
            error["detail"].as_str().is_some_and(|why| !why.is_empty()),
            "{error}"
        );
        *refusals.entry(code.to_owned()).or_default() += 1;
    }
}

/// All dead letters.
async fn letters(caller: &Caller) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let (status, page) = caller
            .get(&format!("/v1/events/dead-letters?limit=1000{cursor}"))
            .await;
        assert_eq!(status, 200, "{page}");
        all.extend(page["data"].as_array().expect("rows").iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// How many letters there are of each code. Each must have its reason and place.
fn by_code(letters: &[Value]) -> BTreeMap<String, u64> {
    let mut codes = BTreeMap::new();
    for letter in letters {
        let reason = letter["detail"].as_str().is_some_and(|why| !why.is_empty());
        assert!(reason && !letter["position"].is_null(), "{letter}");
        let code = letter["code"].as_str().expect("a code").to_owned();
        *codes.entry(code).or_default() += 1;
    }
    codes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r14_poison_is_kept_with_its_reason_and_stops_nothing() {
    let batches = times(96, 1_008) as u64;
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start(BINARY, directory.path()).await;
    let caller = app.admin();
    declare(&caller).await;
    let mut oracle = Oracle::default();
    let (mut alone, mut beside) = (Waits::default(), Waits::default());
    // What good events wait for: first alone, then each behind a batch with poison.
    for batch in batches..2 * batches {
        alone.time(must_send(&caller, &mut oracle, &good(batch))).await;
    }
    let (mut refusals, mut unreadable) = (BTreeMap::new(), Vec::new());
    for batch in 0..batches {
        let waited = std::time::Instant::now();
        send(&caller, &mut oracle, batch, &mut refusals).await;
        assert!(waited.elapsed() < STALL, "poison {batch} stalls");
        if let Poison::Unreadable(event) = poison(batch) {
            unreadable.push(event);
        }
        let good = good(2 * batches + batch);
        beside.time(must_send(&caller, &mut oracle, &good)).await;
    }
    println!("injected {refusals:?} and {} unreadable values", unreadable.len());
    assert!(beside.max() < STALL, "a good batch waited {:?}", beside.max());
    beside.assert_at_most(2, &alone);
    // The unreadable ones count for the two other meters; every one of both kinds is on record, also through a kill.
    verify(&caller, &oracle).await;
    app.restart().await;
    let caller = app.admin();
    let mut expected = refusals.clone();
    *expected.entry("invalid_value".to_owned()).or_default() += unreadable.len() as u64;
    assert_eq!(by_code(&letters(&caller).await), expected);
    mended(&caller, &mut oracle, &unreadable).await;
    assert_eq!(by_code(&letters(&caller).await), refusals);
}

/// Mended by amending: the letters go, the values count, and further replays change nothing.
async fn mended(caller: &Caller, oracle: &mut Oracle, unreadable: &[OracleEvent]) {
    for event in unreadable {
        let data = json!({"tokens": 5, "bytes": 6});
        let path = format!("/v1/events/{}/{}/amend", event.source, event.id);
        let answer = caller
            .send(Method::POST, &path, Some(&json!({ "data": data })))
            .await;
        assert_eq!(answer.expect("an answer").0, 200);
        assert!(oracle.amend(&event.source, &event.id, Some(data), None));
    }
    for _ in 0..2 {
        let (status, answer) = caller.post("/v1/events/dead-letters/replay", &json!({})).await;
        assert_eq!(status, 200, "{answer}");
        verify(caller, oracle).await;
    }
}
