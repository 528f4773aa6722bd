//! Connections, and heads that cannot be read.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use turnpike_tests::app::{ADMIN_KEY, App};

use super::app;

/// Sends bytes and reads what comes until the server closes the connection, or for `patience`.
async fn raw(app: &App, bytes: &[u8], patience: Duration) -> Option<String> {
    let mut stream = TcpStream::connect(app.address()).await.expect("a connection");
    stream.write_all(bytes).await.expect("sent");
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(patience, stream.read_to_end(&mut answer)).await;
    closed
        .is_ok()
        .then(|| String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_and_bodies_are_given_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let limits = [
        ("TURNPIKE_HTTP_HEADER_READ_TIMEOUT_S", "1"),
        ("TURNPIKE_HTTP_BODY_IDLE_TIMEOUT_S", "1"),
    ];
    let app = app(&directory, &limits).await;
    let patience = Duration::from_secs(5);
    let head = raw(&app, b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ", patience).await;
    assert!(head.is_some(), "a head that does not end keeps its connection");
    let silent = raw(&app, b"", patience).await;
    assert!(silent.is_some(), "a silent client keeps its connection");
    for path in ["/v1/events", "/v1/catalog/apply"] {
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\ncontent-type: application/json\r\n\
             content-length: 1000\r\n\r\n{{\"id\""
        );
        let answer = raw(&app, text.as_bytes(), patience)
            .await
            .expect("the connection ends");
        let status: u16 = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status");
        assert_eq!(status, 408, "{path}: {answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{path}: {answer}");
    }
    assert_eq!(app.admin().get("/healthz").await.0, 200);
}

/// A client that asks for much and reads nothing is let go of, with all that its answers hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_no_answer_is_given_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[("TURNPIKE_HTTP_ANSWER_IDLE_TIMEOUT_S", "1")]).await;
    let mut slow = TcpStream::connect(app.address()).await.expect("a connection");
    // Far more than the operating system takes for a client that does not read.
    let asked = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(400);
    slow.write_all(asked.as_bytes()).await.expect("sent");
    let mut given_up = false;
    for _ in 0..300 {
        let (_, page) = app.admin().get("/metrics").await;
        given_up = page
            .to_string()
            .contains("turnpike_http_answers_given_up_total 1");
        if given_up {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(given_up, "the connection is kept");
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), slow.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection is open");
    assert_eq!(app.admin().get("/healthz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_http_does_no_harm() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let big = format!(
        "GET /healthz HTTP/1.1\r\nhost: x\r\nx-big: {}\r\n\r\n",
        "y".repeat(100_000)
    );
    let many = format!(
        "GET /healthz HTTP/1.1\r\nhost: x\r\n{}\r\n",
        "a: b\r\n".repeat(500)
    );
    let smuggled = "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/meters HTTP/1.1\r\n\r\n";
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        big.as_bytes(),
        many.as_bytes(),
        smuggled.as_bytes(),
    ] {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let answer = raw(&app, bytes, Duration::from_secs(2)).await.unwrap_or_default();
        let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).map(|one| &one[..3]).collect();
        assert!(
            statuses.iter().all(|status| status.starts_with('4')),
            "{shown:?}: {answer}"
        );
    }
    assert_eq!(app.admin().get("/healthz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_before_an_ambiguous_request_is_answered() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let good = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let ambiguous = "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let behind = "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n";
    for (before, expected) in [
        (0, vec!["400"]),
        (1, vec!["200", "400"]),
        (3, vec!["200", "200", "200", "400"]),
    ] {
        let sent = format!("{}{ambiguous}{behind}", good.repeat(before));
        let answer = raw(&app, sent.as_bytes(), Duration::from_secs(10)).await;
        let answer = answer.expect("the connection ends");
        let statuses: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).map(|one| &one[..3]).collect();
        assert_eq!(statuses, expected, "{answer}");
        assert!(answer.contains("length of its body in two ways"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ambiguous_request_that_arrives_in_parts_is_answered_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let ambiguous =
        "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}   ";
    let head = ambiguous.find("\r\n\r\n").expect("a head") + 4;
    for cut in [1, 10, 25, 26, 30, 60, head - 1] {
        let mut stream = TcpStream::connect(app.address()).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let (first, rest) = ambiguous.as_bytes().split_at(cut);
        stream.write_all(first).await.expect("sent");
        // So that the parts are read one by one, as a rule: all is right where they are not.
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(rest).await.expect("sent");
        assert_eq!(
            statuses(&mut stream, &mut String::new(), 1).await,
            ["400"],
            "{cut}"
        );
    }
}

/// A connection that is kept open, and the head and body of its first answer.
async fn kept(app: &App) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(app.address()).await.expect("a connection");
    let sent = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(sent).await.expect("sent");
    let mut answer = vec![0; 4_096];
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut answer)).await;
    let read = read.expect("an answer in time").expect("an answer");
    (stream, String::from_utf8_lossy(&answer[..read]).into_owned())
}

/// Reads until so many answers have begun, or 10 s have passed; their statuses.
async fn statuses(stream: &mut TcpStream, read: &mut String, answers: usize) -> Vec<String> {
    let reading = async {
        let mut piece = vec![0; 16_384];
        while read.matches("HTTP/1.1 ").count() < answers {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(length) => read.push_str(&String::from_utf8_lossy(&piece[..length])),
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(10), reading).await;
    let answers = read.split("HTTP/1.1 ").skip(1);
    answers.map(|answer| answer[..3].to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_before_the_body_leaves_the_connection_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[("TURNPIKE_LIMITS_KEY_CALLS_PER_SECOND", "1")]).await;
    let body = vec![b' '; 300_000];
    for (key, refused) in [("wrong", "401"), (ADMIN_KEY, "429")] {
        let mut stream = TcpStream::connect(app.address()).await.expect("a connection");
        let mut read = String::new();
        if refused == "429" {
            let call = format!("GET /v1/meters HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
            stream.write_all(call.repeat(2).as_bytes()).await.expect("sent");
            statuses(&mut stream, &mut read, 2).await;
            read.clear();
        }
        let head = format!(
            "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
             content-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        assert_eq!(statuses(&mut stream, &mut read, 1).await, [refused]);
        // The body comes after its refusal, as it does from a client that sends without looking.
        stream.write_all(&body).await.expect("the body is read");
        let next = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(next).await.expect("the connection is open");
        assert_eq!(statuses(&mut stream, &mut read, 2).await, [refused, "200"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_sends_little_that_is_thrown_away_and_a_known_one_a_whole_body() {
    const MIB: usize = 1024 * 1024;
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[]).await;
    let send = async |key: &str, path: &str, pieces: usize| {
        let mut stream = TcpStream::connect(app.address()).await.expect("a connection");
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
             content-type: text/plain\r\ncontent-length: {}\r\n\r\n",
            pieces * MIB
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut head = String::new();
        let refused = statuses(&mut stream, &mut head, 1).await;
        let closes = head.contains("\r\nconnection: close\r\n");
        let piece = vec![b' '; MIB];
        let mut taken = 0;
        while taken < pieces && stream.write_all(&piece).await.is_ok() {
            taken += 1;
        }
        (refused, taken, closes)
    };
    for (key, path, status) in [("wrong", "/v1/events", "401"), (ADMIN_KEY, "/healthz", "405")] {
        let (refused, taken, closes) = send(key, path, 127).await;
        assert_eq!(refused, [status], "{path}");
        assert!(closes, "{path}: the answer does not tell that it is the last");
        // What the kernel holds of a connection comes on top.
        assert!(taken < 127, "{path}: {taken} MiB");
    }
    assert_eq!(
        send(ADMIN_KEY, "/v1/events", 64).await,
        (vec!["415".to_owned()], 64, false)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_has_a_bound_on_its_connections() {
    let directory = tempfile::tempdir().expect("a directory");
    // The app itself may keep one open.
    let limit = [("TURNPIKE_HTTP_CONNECTIONS_PER_ADDRESS_MAX", "3")];
    let app = app(&directory, &limit).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(kept(&app).await);
    }
    assert!(open[0].1.starts_with("HTTP/1.1 200"), "{}", open[0].1);
    let refused = &open[4].1;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    for said in [
        "retry-after: 1",
        "connection: close",
        "x-request-id: ",
        "\"code\":\"rate_limited\"",
        "\"request_id\":\"",
    ] {
        assert!(refused.contains(said), "{said} is missing: {refused}");
    }
    drop(open);
    let again = async {
        while !kept(&app).await.1.starts_with("HTTP/1.1 200") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let again = tokio::time::timeout(Duration::from_secs(10), again).await;
    again.expect("who has left is counted no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_behind_a_trusted_proxy_are_told_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = [
        ("TURNPIKE_HTTP_TRUSTED_PROXIES", "127.0.0.0/8"),
        ("TURNPIKE_HTTP_CONNECTIONS_PER_ADDRESS_MAX", "1"),
        ("TURNPIKE_LIMITS_FAILED_AUTH_PER_MINUTE", "2"),
    ];
    let app = app(&directory, &settings).await;
    let open = (kept(&app).await, kept(&app).await);
    assert!(
        open.1.1.starts_with("HTTP/1.1 200"),
        "a proxy has no bound: {}",
        open.1.1
    );
    let client = reqwest::Client::new();
    let mut statuses = Vec::new();
    for from in ["198.51.100.1", "198.51.100.1", "198.51.100.1", "198.51.100.2"] {
        let call = client
            .get(app.url("/v1/meters"))
            .bearer_auth("no-such-key-0123456789");
        let answer = call
            .header("x-forwarded-for", from)
            .send()
            .await
            .expect("an answer");
        statuses.push(answer.status().as_u16());
    }
    assert_eq!(statuses, [401, 401, 429, 401]);
    let noted = async {
        loop {
            let (_, audit) = app.admin().get("/v1/audit").await;
            let text = audit.to_string();
            if text.contains("\"client\":\"198.51.100.1\"") && text.contains("\"client\":\"198.51.100.2\"") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let noted = tokio::time::timeout(Duration::from_secs(20), noted).await;
    noted.expect("the audit log names both clients");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_cannot_be_read_are_problems_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = app(&directory, &[("TURNPIKE_HTTP_HEADER_BYTES_MAX", "8192")]).await;
    let head = |bytes: usize| {
        let before = "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-big: ";
        format!("{before}{}\r\n\r\n", "y".repeat(bytes - before.len() - 4))
    };
    for (bytes, status, code) in [
        ("GET\r\n\r\n".to_owned(), 400, "invalid_request"),
        (
            "GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(),
            400,
            "invalid_request",
        ),
        (
            "GET /healthz HTTP/1.1\r\nhost: x\r\nhost: y\r\nconnection: close\r\n\r\n".to_owned(),
            400,
            "invalid_request",
        ),
        (
            "GET /healthz HTTP/1.1\r\nhost: a b\r\nconnection: close\r\n\r\n".to_owned(),
            400,
            "invalid_request",
        ),
        (
            "GET /healthz HTTP/1.1\r\nhost: x\r\nx: a\r\n folded\r\n\r\n".to_owned(),
            400,
            "invalid_request",
        ),
        (
            "GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(),
            400,
            "invalid_request",
        ),
        (
            format!(
                "GET /healthz HTTP/1.1\r\nhost: x\r\n{}\r\n",
                "a: b\r\n".repeat(150)
            ),
            431,
            "head_too_large",
        ),
        (head(8_193), 431, "head_too_large"),
        (head(60_000), 431, "head_too_large"),
    ] {
        let shown = &bytes[..bytes.len().min(70)];
        let answer = raw(&app, bytes.as_bytes(), Duration::from_secs(5))
            .await
            .unwrap_or_default();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{shown:?}: {answer}"
        );
        assert!(head.contains("application/problem+json"), "{shown:?}: {answer}");
        let body: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(
            (&body["code"], &body["status"]),
            (&json!(code), &json!(status)),
            "{shown:?}"
        );
        assert!(
            body["request_id"].is_string() && body["retryable"] == false,
            "{body}"
        );
        assert_eq!(body["type"], format!("/docs/errors/{code}"));
    }
    for good in [head(8_192), "GET /healthz HTTP/1.0\r\n\r\n".to_owned()] {
        let answer = raw(&app, good.as_bytes(), Duration::from_secs(5))
            .await
            .unwrap_or_default();
        assert!(answer.contains(" 200 OK"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_what_is_under_way_finish() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = app(&directory, &[]).await;
    // A body whose second half comes after the signal.
    let mut stream = TcpStream::connect(app.address()).await.expect("a connection");
    let event = br#"{"id":"late","source":"s","type":"t","subject":"c"}"#;
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        event.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(&event[..20]).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ended = tokio::task::spawn_blocking(move || {
        let ended = app.terminate();
        (app, ended)
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    stream.write_all(&event[20..]).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"accepted\":1"),
        "{answer}"
    );
    let (mut app, (code, took)) = ended.await.expect("an end");
    assert!(
        code == Some(0) && took < Duration::from_secs(10),
        "{code:?} after {took:?}"
    );
    app.restart().await;
    let again: Value = serde_json::from_slice(event).expect("JSON");
    let answer = app.admin().created("/v1/events", &again).await;
    assert_eq!(answer["duplicates"], 1, "{answer}");
}
