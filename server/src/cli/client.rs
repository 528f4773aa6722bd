//! Calls to a server over HTTP, for the commands that need one.

use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use turnpike_domain::time::Randomness as _;
use turnpike_stores::machine::MachineRandomness;

use super::CommandError;
use super::refusal::refused;

/// Tries of a call that a retry can help, beside the first.
const RETRIES: u32 = 8;

/// Where the server is and who calls.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ClientArgs {
    /// Base address of the server.
    #[arg(
        long,
        env = "TURNPIKE_SERVER",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL",
        global = true
    )]
    server: String,
    /// API key.
    #[arg(
        long,
        env = "TURNPIKE_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        global = true
    )]
    api_key: Option<String>,
    /// Write JSON to standard output instead of tables.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl ClientArgs {
    /// A client that calls with these arguments.
    pub(crate) fn client(&self) -> Result<Client, CommandError> {
        let Some(key) = self.api_key.clone().filter(|key| !key.is_empty()) else {
            return Err(CommandError::usage(
                "no API key: give --api-key or set TURNPIKE_API_KEY (the first start of `turnpike serve` shows one)",
            ));
        };
        Client::new(&self.server, &key)
    }
}

/// A connection to a server with a key.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    base: String,
    key: String,
    http: reqwest::Client,
}

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// Nothing.
    None,
    /// JSON.
    Json(Value),
    /// JSON with an idempotency key.
    Once(String, Value),
    /// Bytes with their content type.
    Bytes(&'static str, bytes::Bytes),
}

impl Client {
    /// A client for the server at `base`.
    pub(crate) fn new(base: &str, key: &str) -> Result<Self, CommandError> {
        // Both this and other parts may have chosen it already: the first choice stands.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_mins(5))
            .user_agent(concat!("turnpike/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| CommandError::failed(format!("cannot make an HTTP client: {error}")))?;
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            key: key.to_owned(),
            http,
        })
    }

    /// `GET` of `path` as JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, CommandError> {
        self.json(Method::GET, path, Body::None).await
    }

    /// `POST` to `path`, with a JSON answer.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Result<Value, CommandError> {
        self.json(Method::POST, path, Body::Json(body)).await
    }

    /// `POST` of something that must not be done twice: tries after the first carry the same idempotency key.
    pub(crate) async fn post_once(&self, path: &str, body: Value) -> Result<Value, CommandError> {
        let id = MachineRandomness.new_id();
        self.json(Method::POST, path, Body::Once(id, body)).await
    }

    /// A call with a JSON answer; `Null` for an answer without a body.
    pub(crate) async fn json(&self, method: Method, path: &str, body: Body) -> Result<Value, CommandError> {
        let response = self.call(method, path, body).await?;
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| CommandError::failed(format!("{path} did not answer with JSON: {error}")))
    }

    /// A call; an error unless it succeeds. Calls that a retry can help are tried again, as `Retry-After` says. That is
    /// safe for all calls here: they read, set what they set before, or are repeated with the same ids.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Response, CommandError> {
        let mut tries = 0;
        loop {
            let sent = self.send(method.clone(), path, body.clone()).await;
            let wait = match sent {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if may_retry(response.status()) && tries < RETRIES => retry_after(&response),
                Ok(response) => return Err(refused(self, &method, path, response).await),
                Err(error) if error.is_builder() => return Err(self.no_address(&error)),
                Err(error) if error.is_connect() || tries >= RETRIES => return Err(self.unreachable(&error)),
                Err(_) => Duration::from_millis(200 << tries.min(4)),
            };
            tries += 1;
            tokio::time::sleep(wait).await;
        }
    }

    /// A call whose answer is wanted whatever its status.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Response, reqwest::Error> {
        let request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.key);
        let request = match body {
            Body::None => request,
            Body::Json(value) => request.json(&value),
            Body::Once(id, value) => request.header("idempotency-key", id).json(&value),
            Body::Bytes(kind, bytes) => request.header("content-type", kind).body(bytes),
        };
        request.send().await
    }

    /// All rows of a list, page by page.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Value>, CommandError> {
        let mut rows = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mark = if path.contains('?') { '&' } else { '?' };
            let page = match &cursor {
                None => self.get(&format!("{path}{mark}limit=1000")).await?,
                Some(at) => {
                    self.get(&format!("{path}{mark}limit=1000&cursor={}", encode(at)))
                        .await?
                }
            };
            rows.extend(page["data"].as_array().cloned().unwrap_or_default());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return Ok(rows),
            }
        }
    }

    fn no_address(&self, error: &reqwest::Error) -> CommandError {
        CommandError::usage(format!(
            "no address of a server: \"{}\" ({}); give one such as http://127.0.0.1:8080 (--server, TURNPIKE_SERVER)",
            self.base,
            root_cause(error)
        ))
    }

    fn unreachable(&self, error: &reqwest::Error) -> CommandError {
        let cause = root_cause(error);
        CommandError::unreachable(format!(
            "cannot reach the server at {}: {cause}; is `turnpike serve` running there? (--server, TURNPIKE_SERVER)",
            self.base
        ))
    }
}

fn root_cause(error: &reqwest::Error) -> &dyn std::error::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

/// What RFC 3986 reserves or does not name.
const RESERVED: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// A text as one part of a path or query. A part that is dots alone would be taken for a step in the path.
pub(crate) fn encode(text: &str) -> String {
    if !text.is_empty() && text.bytes().all(|byte| byte == b'.') {
        return "%2E".repeat(text.len());
    }
    percent_encoding::utf8_percent_encode(text, RESERVED).to_string()
}

fn may_retry(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE
}

fn retry_after(response: &Response) -> Duration {
    let seconds = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1).min(30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_paths_are_encoded_where_they_must_be() {
        for (given, expected) in [
            ("context_tokens-1.2~", "context_tokens-1.2~"),
            ("a/b?c#d e%", "a%2Fb%3Fc%23d%20e%25"),
            ("..", "%2E%2E"),
            ("ü", "%C3%BC"),
            ("2026-01-01T00:00:00+01:00", "2026-01-01T00%3A00%3A00%2B01%3A00"),
        ] {
            assert_eq!(encode(given), expected);
        }
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_told_at_once() {
        let client = Client::new("nonsense", "k").unwrap();
        let error = client.get("/v1/meters").await.unwrap_err();
        assert_eq!(error.kind, super::super::Kind::Usage, "{error}");
        assert!(error.to_string().contains("\"nonsense\""), "{error}");
    }
}
