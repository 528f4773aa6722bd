//! Calls to a server over HTTP, for the commands that need one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::ProgressBar;
use reqwest::{Method, Response};
use serde_json::Value;
use turnpike_client::transport::{self, encode, may_retry};
use turnpike_domain::time::{Clock as _, Randomness as _};
use turnpike_stores::machine::{MachineClock, MachineRandomness};

use super::refusal::{Refusal, refused};
use super::{CommandError, output};

/// Tries of a call that a retry can help, beside the first.
const RETRIES: u32 = 8;
/// The longest pause between two tries.
const PAUSE_MS_MAX: u64 = 5_000;
/// The longest pause that a server is granted which asks for one.
const PAUSE_ASKED_MAX: Duration = Duration::from_secs(30);

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
    patience: Option<Patience>,
}

/// How long work is held up for a server that went away in the middle of it.
#[derive(Debug, Clone)]
struct Patience {
    /// Of one call, from the end of its first try to the beginning of its last.
    most: Duration,
    /// Where people are told.
    bar: ProgressBar,
    /// Whether the server has answered: who never was there is not waited for.
    met: Arc<AtomicBool>,
    /// Whether it was told that the server went away.
    told: Arc<AtomicBool>,
}

/// What a try of a call led to.
enum Tried<T> {
    Done(T),
    Refused(Refusal),
    Lost(reqwest::Error),
}

/// The tries of one call that have ended.
#[derive(Default)]
struct Tries {
    ended: u32,
    /// When the first one had, by the machine's monotonic clock.
    first_end_us: Option<u64>,
}

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// Nothing.
    None,
    /// JSON.
    Json(Value),
    /// JSON, or null for nothing, with an idempotency key.
    Once(String, Value),
    /// Bytes with their content type.
    Bytes(&'static str, bytes::Bytes),
}

/// An error for a text that is no key and could not be sent as one.
fn check_key(key: &str) -> Result<(), CommandError> {
    if key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let place = if key.trim() == key {
        ""
    } else {
        " at its beginning or end"
    };
    Err(CommandError::usage(format!(
        "the API key has a space, a line's end or another character{place} that no key has; check --api-key or \
         TURNPIKE_API_KEY"
    )))
}

impl Client {
    /// A client for the server at `base`.
    pub(crate) fn new(base: &str, key: &str) -> Result<Self, CommandError> {
        check_key(key)?;
        let http = transport::builder(base)
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_mins(5))
            .user_agent(concat!("turnpike/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| CommandError::failed(format!("cannot make an HTTP client: {error}")))?;
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            key: key.to_owned(),
            http,
            patience: None,
        })
    }

    /// The same client, which waits up to `most` for a server that it has met and that goes away. `bar` tells of it.
    pub(crate) fn patient(self, most: Duration, bar: ProgressBar) -> Self {
        let patience = Patience {
            most,
            bar,
            met: Arc::default(),
            told: Arc::default(),
        };
        Self {
            patience: Some(patience),
            ..self
        }
    }

    /// `GET` of `path` as text.
    pub(crate) async fn text(&self, path: &str) -> Result<String, CommandError> {
        self.retried(Method::GET, path, Body::None, Response::text).await
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

    /// `DELETE` of what can be taken away only once.
    pub(crate) async fn delete_once(&self, path: &str) -> Result<Value, CommandError> {
        let id = MachineRandomness.new_id();
        self.json(Method::DELETE, path, Body::Once(id, Value::Null)).await
    }

    /// A call with a JSON answer; `Null` for an answer without a body.
    pub(crate) async fn json(&self, method: Method, path: &str, body: Body) -> Result<Value, CommandError> {
        let bytes = self.retried(method, path, body, Response::bytes).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| CommandError::failed(format!("{path} did not answer with JSON: {error}")))
    }

    /// A call whose answer the caller reads itself, which no retry can help any more; an error unless it succeeds.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Response, CommandError> {
        self.retried(method, path, body, |response| std::future::ready(Ok(response)))
            .await
    }

    /// A call and what `read` makes of its answer. Calls that a retry can help are tried again, as `Retry-After` says.
    /// That is safe for all calls here: they read, set what they set before, or are repeated with the same ids.
    async fn retried<T, F: Future<Output = Result<T, reqwest::Error>>>(
        &self,
        method: Method,
        path: &str,
        body: Body,
        read: impl Fn(Response) -> F,
    ) -> Result<T, CommandError> {
        let mut tries = Tries::default();
        loop {
            let tried = match self.send(method.clone(), path, body.clone()).await {
                Ok(response) if !response.status().is_success() => {
                    let refusal = Refusal::read(response).await;
                    refusal.map_or_else(Tried::Lost, Tried::Refused)
                }
                Ok(response) => read(response).await.map_or_else(Tried::Lost, Tried::Done),
                Err(error) => Tried::Lost(error),
            };
            tries.note_end();
            let pause = match tried {
                Tried::Done(value) => {
                    self.note_found();
                    return Ok(value);
                }
                Tried::Refused(refusal) => match self.pause_after_refusal(&tries, &refusal) {
                    Some(pause) => pause,
                    None => return Err(refused(self, (&method, path), &refusal, tries.ended).await),
                },
                Tried::Lost(error) if error.is_builder() => return Err(self.no_address(&error)),
                Tried::Lost(error) => match self.pause_after_loss(&tries, &error) {
                    Some(pause) => pause,
                    None => return Err(self.unreachable(&error)),
                },
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// How long the next try may be waited for.
    fn left(&self, tries: &Tries) -> Duration {
        match &self.patience {
            Some(patience) => patience.most.saturating_sub(tries.since_first()),
            None if tries.ended <= RETRIES => Duration::MAX,
            None => Duration::ZERO,
        }
    }

    /// How long to wait before the next try, unless that is not worth it: no less than after a loss, for whoever asks for
    /// no pause at all would be called without end.
    fn pause_after_refusal(&self, tries: &Tries, refusal: &Refusal) -> Option<Duration> {
        let left = self.left(tries);
        let asked = refusal.retry_after.unwrap_or(Duration::from_secs(1));
        let worth = may_retry(refusal.status) && !left.is_zero() && asked <= left;
        worth.then(|| asked.min(PAUSE_ASKED_MAX).max(tries.pause()).min(left))
    }

    fn pause_after_loss(&self, tries: &Tries, error: &reqwest::Error) -> Option<Duration> {
        let left = self.left(tries);
        let met = self
            .patience
            .as_ref()
            .filter(|patience| patience.met.load(Ordering::Relaxed));
        if left.is_zero() || (error.is_connect() && met.is_none()) {
            return None;
        }
        if let Some(patience) = met
            && !patience.told.swap(true, Ordering::Relaxed)
        {
            patience.tell(&format!(
                "the server at {} went away ({}); trying again for {} s",
                self.base,
                root_cause(error),
                patience.most.as_secs()
            ));
        }
        Some(tries.pause().min(left))
    }

    fn note_found(&self) {
        if let Some(patience) = &self.patience {
            patience.met.store(true, Ordering::Relaxed);
            if patience.told.swap(false, Ordering::Relaxed) {
                patience.tell("the server is back");
            }
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
            Body::Once(id, Value::Null) => request.header("idempotency-key", id),
            Body::Once(id, value) => request.header("idempotency-key", id).json(&value),
            Body::Bytes(kind, bytes) => request.header("content-type", kind).body(bytes),
        };
        request.send().await
    }

    /// All rows of a list.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Value>, CommandError> {
        let mut rows = Vec::new();
        let mut pages = self.pages(path);
        while let Some(page) = pages.next().await? {
            rows.extend(page);
        }
        Ok(rows)
    }

    /// The rows of a list, page by page.
    pub(crate) fn pages<'a>(&'a self, path: &'a str) -> Pages<'a> {
        Pages {
            client: self,
            path,
            cursor: Some(String::new()),
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

/// A list that is read page by page.
pub(crate) struct Pages<'a> {
    client: &'a Client,
    path: &'a str,
    /// Where the next page begins: empty for the first one, none behind the last.
    cursor: Option<String>,
}

impl Pages<'_> {
    /// The next page; none behind the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Value>>, CommandError> {
        let Some(cursor) = self.cursor.take() else {
            return Ok(None);
        };
        let mark = if self.path.contains('?') { '&' } else { '?' };
        let mut path = format!("{}{mark}limit=1000", self.path);
        if !cursor.is_empty() {
            path = format!("{path}&cursor={}", encode(&cursor));
        }
        let mut page = self.client.get(&path).await?;
        self.cursor = page["next_cursor"].as_str().map(str::to_owned);
        for damaged in page["damaged"].as_array().into_iter().flatten() {
            let get = |pointer| output::cell(damaged.pointer(pointer).unwrap_or(&Value::Null));
            output::tell(&format!(
                "the invoice {} {} is not shown: {} cannot be read; look with `turnpike verify` and restore a backup",
                get("/id"),
                get("/number"),
                get("/field/pointer"),
            ));
        }
        Ok(Some(match page["data"].take() {
            Value::Array(rows) => rows,
            _ => Vec::new(),
        }))
    }
}

impl Patience {
    /// Tells people, above the bar where there is one.
    fn tell(&self, text: &str) {
        if self.bar.is_hidden() {
            output::tell(text);
        } else {
            self.bar.suspend(|| output::tell(text));
        }
    }
}

impl Tries {
    fn note_end(&mut self) {
        self.ended += 1;
        self.first_end_us
            .get_or_insert_with(|| MachineClock.monotonic_us());
    }

    /// The time since the first one ended, pauses and calls.
    fn since_first(&self) -> Duration {
        let now_us = MachineClock.monotonic_us();
        Duration::from_micros(now_us - self.first_end_us.unwrap_or(now_us))
    }

    /// The pause before the next: twice as long each time.
    fn pause(&self) -> Duration {
        let doublings = self.ended.saturating_sub(1).min(10);
        Duration::from_millis((200 << doublings).min(PAUSE_MS_MAX))
    }
}

fn root_cause(error: &reqwest::Error) -> &dyn std::error::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_none_is_told_at_once() {
        let client = Client::new("nonsense", "k").unwrap();
        let error = client.get("/v1/meters").await.unwrap_err();
        assert_eq!(error.kind, super::super::Kind::Usage, "{error}");
        assert!(error.to_string().contains("\"nonsense\""), "{error}");
    }
}
