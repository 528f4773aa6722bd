//! Requests whose body is not framed as its head says.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use turnpike_tests::app::{ADMIN_KEY, App};

use super::app;

const GOOD: &str = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";

/// The head of a call with this key and these headers.
fn head(path: &str, key: &str, headers: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{headers}\r\n")
}

const CHUNKED: &str = "content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n";

/// A line with an event, as a chunk.
fn chunk(id: &str) -> String {
    let line = format!("{{\"id\":\"{id}\",\"source\":\"s\",\"type\":\"t\",\"subject\":\"x\"}}\n");
    format!("{:x}\r\n{line}\r\n", line.len())
}

/// Sends the parts, as a rule so that each is read by itself, and reads to the end: a server that does not close its side
/// fails the test. The status, head and body of each answer.
async fn answers(app: &App, parts: &[&str]) -> Vec<(u16, String, Value)> {
    let mut stream = TcpStream::connect(app.address()).await.expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    for part in parts {
        stream.write_all(part.as_bytes()).await.expect("sent");
        // All is right where two parts are read as one.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut all = String::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut all)).await;
    closed.expect("the server closes").expect("no reset");
    let answers = all.split("HTTP/1.1 ").skip(1).map(|answer| {
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (
            head[..3].parse().expect("a status"),
            head.to_owned(),
            serde_json::from_str(body).unwrap_or(Value::Null),
        )
    });
    answers.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_wrongly_framed_gets_one_answer() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let events = head("/v1/events", ADMIN_KEY, CHUNKED);
    let (half, rest) = events.split_at(40);
    let wrong_behind_head = format!("{rest}zz\r\n");
    let whole = head(
        "/v1/events",
        ADMIN_KEY,
        "content-type: application/json\r\ntransfer-encoding: chunked\r\n",
    );
    let repeatable = format!("idempotency-key: k\r\n{CHUNKED}");
    let repeatable = head("/v1/events", ADMIN_KEY, &repeatable);
    let control = head(
        "/v1/quota/check",
        ADMIN_KEY,
        "idempotency-key: l\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n",
    );
    let stranger = head("/v1/events", "wrong", CHUNKED);
    let good = chunk("a");
    let no_end = good.replace("\r\n", "\n\n");
    let with_one_before = format!("{GOOD}{events}");
    for (parts, statuses) in [
        (vec![&*events, "zz\r\n"], vec![400]),
        (vec![&events, &good, "zz\r\n"], vec![400]),
        (vec![&events, &good, "zz\r\n", &chunk("b"), GOOD], vec![400]),
        // What the library itself finds wrong.
        (vec![&events, "5 5\r\n"], vec![400]),
        (vec![&events, &no_end], vec![400]),
        (vec![half, &wrong_behind_head], vec![400]),
        (vec![&whole, "1\r\n{\r\n", "zz\r\n"], vec![400]),
        (vec![&repeatable, &good, "zz\r\n"], vec![400]),
        (vec![&control, "zz\r\n"], vec![400]),
        (vec![GOOD, &events, "zz\r\n"], vec![200, 400]),
        (vec![&with_one_before, "zz\r\n"], vec![200, 400]),
        (
            vec![&with_one_before, &good, "0\r\n\r\n", &events, "zz\r\n"],
            vec![200, 200, 400],
        ),
        // The answer is out before the body goes wrong.
        (vec![&stranger, "zz\r\n"], vec![401]),
    ] {
        let answers = answers(&app, &parts).await;
        let found: Vec<u16> = answers.iter().map(|answer| answer.0).collect();
        assert_eq!(found, statuses, "{parts:?}: {answers:?}");
        let (_, head, last) = answers.last().expect("an answer");
        if statuses.last() == Some(&400) {
            assert!(head.contains("\r\nconnection: close"), "{parts:?}: {head}");
            assert_eq!(
                (&last["code"], &last["retryable"]),
                (&"invalid_request".into(), &false.into()),
                "{parts:?}: {last}"
            );
        }
    }
    let told = answers(&app, &[&events, &chunk("c"), "zz\r\n"]).await;
    let detail = told[0].2["detail"].as_str().expect("words");
    assert!(
        detail.contains("does not begin with its size") && detail.contains("were accepted"),
        "{detail}"
    );
}
