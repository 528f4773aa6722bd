//! The routes as a whole: methods, spellings, what the document says of them, error codes, and how collections behave.

mod codes;
mod collections;
mod methods;

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use turnpike_tests::app::App;

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");

fn method(name: &str) -> Method {
    name.to_uppercase().parse().expect("a method")
}

/// Path → method → operation, as the server's own document has them.
async fn document(app: &App) -> BTreeMap<String, BTreeMap<String, Value>> {
    let (_, document) = app.caller("none").get("/openapi.json").await;
    let paths: BTreeMap<String, BTreeMap<String, Value>> =
        serde_json::from_value(document["paths"].clone()).expect("paths");
    assert!(paths.len() > 50, "{} paths", paths.len());
    paths
}

/// A path with something in the place of each parameter.
fn filled(path: &str) -> String {
    let parts = path.split('/');
    let parts = parts.map(|part| if part.starts_with('{') { "x" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// Sends bytes and reads until the server closes the connection.
async fn raw(app: &App, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(app.address()).await.expect("a connection");
    stream.write_all(bytes).await.expect("sent");
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    closed.expect("the connection ends").expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Head and problem of a raw answer, which must have this status.
fn problem_of(answer: &str, status: u16) -> (String, Value) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(head.contains("application/problem+json"), "{answer}");
    assert!(head.contains("x-request-id"), "{answer}");
    (head.to_owned(), serde_json::from_str(body).expect("a problem"))
}
