//! Every route of the document by every method and odd spelling, and what the document says of it.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use turnpike_tests::app::{ADMIN_KEY, App};

use crate::{BINARY, document, filled, method, problem_of, raw};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_takes_the_methods_that_the_document_says_and_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let client = reqwest::Client::new();
    let mut refused = 0;
    for (path, operations) in document(&app).await {
        let call = async |method: Method| {
            let request = client.request(method, app.url(&filled(&path)));
            request.bearer_auth(ADMIN_KEY).send().await.expect("an answer")
        };
        let mut known: BTreeSet<String> = operations.keys().map(|name| name.to_uppercase()).collect();
        if known.contains("GET") {
            known.insert("HEAD".to_owned());
            let (get, head) = (call(Method::GET).await, call(Method::HEAD).await);
            assert_eq!(get.status(), head.status(), "HEAD {path}");
            assert!(!get.status().is_server_error(), "GET {path}");
            assert_eq!(head.bytes().await.expect("no body").len(), 0, "HEAD {path}");
        }
        let allow = |answer: &reqwest::Response| -> BTreeSet<String> {
            let allow = answer.headers()["allow"].to_str().expect("text");
            allow.split(',').map(|method| method.trim().to_owned()).collect()
        };
        let options = call(Method::OPTIONS).await;
        assert_eq!(
            (options.status().as_u16(), allow(&options)),
            (204, known.clone()),
            "OPTIONS {path}"
        );
        for name in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"] {
            if known.contains(name) {
                continue;
            }
            let answer = call(method(name)).await;
            assert_eq!(
                (answer.status().as_u16(), allow(&answer)),
                (405, known.clone()),
                "{name} {path}"
            );
            let body: Value = answer.json().await.expect("a problem");
            assert_eq!(body["code"], "method_not_allowed", "{name} {path}");
            refused += 1;
        }
    }
    println!("{refused} wrong methods");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_spelling_of_a_path_is_taken_for_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let mut tried = 0;
    for path in document(&app).await.into_keys().map(|path| filled(&path)) {
        let (before, last) = path.rsplit_once('/').expect("a slash");
        for spelling in [
            format!("{before}%2F{last}"),
            format!("{before}%2f{last}"),
            format!("{before}//{last}"),
            format!("{before}/./{last}"),
            format!("{before}/y/../{last}"),
            format!("{before}/%2e%2e/{last}"),
            format!("/{path}"),
            format!("{path}/"),
            format!("{path}%00"),
            format!("{path}%ff"),
            format!("{path}\\..\\"),
            format!("{before}/{}", last.to_uppercase()),
        ] {
            if spelling == path {
                continue;
            }
            let head = format!(
                "GET {spelling} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {ADMIN_KEY}\r\n\r\n"
            );
            let answer = raw(&app, head.as_bytes()).await;
            let status: u16 = answer
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok())
                .expect("a status");
            assert!([400, 404, 405].contains(&status), "{spelling}: {answer}");
            problem_of(&answer, status);
            tried += 1;
        }
    }
    println!("{tried} spellings");
    assert_eq!(app.admin().get("/readyz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_told_in_two_ways_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    app.admin()
        .put(
            "/v1/meters/all",
            &json!({"event_type": "t", "aggregation": "count"}),
        )
        .await;
    let event = r#"{"id":"e","source":"s","type":"t","subject":"x"}"#;
    let chunk = format!("{:x}\r\n{event}\r\n0\r\n\r\n", event.len());
    let head = |lengths: &str| {
        format!(
            "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer {ADMIN_KEY}\r\n{lengths}\r\n"
        )
    };
    let (sized, chunked) = (
        format!("content-length: {}\r\n", event.len()),
        "transfer-encoding: chunked\r\n",
    );
    for lengths in [
        format!("{sized}{chunked}"),
        format!("{chunked}{sized}"),
        format!("{chunked}x: y\r\nContent-LENGTH:0\r\n"),
        format!("{sized}content-length: 1\r\n"),
        "transfer-encoding: gzip, chunked\r\n".to_owned(),
        "transfer-encoding: chunked, chunked\r\n".to_owned(),
        chunked.repeat(2),
        format!("transfer-encoding: gzip\r\n{chunked}"),
    ] {
        // Behind a good request on the same connection too.
        for before in ["", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"] {
            let mut stream = TcpStream::connect(app.address()).await.expect("a connection");
            if !before.is_empty() {
                stream.write_all(before.as_bytes()).await.expect("sent");
                let mut first = [0; 4_096];
                let read = stream.read(&mut first).await.expect("an answer");
                assert!(first[..read].starts_with(b"HTTP/1.1 200"));
            }
            let request = format!("{}{chunk}", head(&lengths));
            stream.write_all(request.as_bytes()).await.expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer");
            let (head, problem) = problem_of(&answer, 400);
            assert_eq!(problem["code"], "invalid_request", "{lengths}");
            assert!(head.contains("connection: close"), "{head}");
        }
    }
    let range = "from=2020-01-01T00:00:00Z&to=2030-01-01T00:00:00Z";
    assert_eq!(app.admin().total("all", range).await.as_deref(), Some("0"));
    // Either alone is fine.
    for (lengths, body) in [(sized.as_str(), event), (chunked, chunk.as_str())] {
        let request = format!("{}{body}", head(&format!("{lengths}connection: close\r\n")));
        assert!(
            raw(&app, request.as_bytes()).await.starts_with("HTTP/1.1 200 "),
            "{lengths}"
        );
    }
}

/// What the sources mount without the macro that puts it into the document as well.
fn mounted_by_hand(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            mounted_by_hand(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            let product = text.split("#[cfg(test)]").next().unwrap_or_default();
            // Without arguments it tells the route of a request.
            let calls = product
                .split(".route(")
                .skip(1)
                .filter(|call| !call.starts_with(')'));
            for call in calls {
                let literal = call
                    .trim_start()
                    .strip_prefix('"')
                    .and_then(|rest| rest.split('"').next());
                found.insert(
                    literal
                        .unwrap_or_else(|| panic!("{}: a path that is no literal", path.display()))
                        .to_owned(),
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mounted_route_is_in_the_document() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let document = document(&app).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let mut by_hand = BTreeSet::new();
    for folder in ["server", "ingest", "aggregator", "enforcer", "billing-sync"] {
        mounted_by_hand(&root.join(folder).join("src"), &mut by_hand);
    }
    assert!(by_hand.contains("/docs"), "{by_hand:?}");
    for path in by_hand {
        assert!(document.contains_key(&path), "{path} is not in the document");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_says_which_calls_take_an_idempotency_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let client = reqwest::Client::new();
    let mut taking = 0;
    for (path, operations) in document(&app).await {
        for (name, operation) in operations {
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let named: BTreeSet<_> = parameters
                .iter()
                .map(|one| (one["name"].to_string(), one["in"].to_string()))
                .collect();
            assert_eq!(
                named.len(),
                parameters.len(),
                "{name} {path} describes a parameter twice"
            );
            let documented = parameters
                .iter()
                .any(|one| one["name"] == "Idempotency-Key" && one["in"] == "header");
            if name == "get" {
                assert!(!documented, "GET {path}");
                continue;
            }
            let request = client
                .request(method(&name), app.url(&filled(&path)))
                .bearer_auth(ADMIN_KEY);
            let answer = request
                .header("idempotency-key", "k".repeat(300))
                .json(&json!({}))
                .send();
            let body: Value = answer.await.expect("an answer").json().await.unwrap_or_default();
            let refused = body["detail"]
                .as_str()
                .is_some_and(|detail| detail.starts_with("Idempotency-Key must"));
            assert_eq!(refused, documented, "{name} {path}: {body}");
            taking += usize::from(documented);
        }
    }
    assert!(taking > 30, "{taking}");
}
