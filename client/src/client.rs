//! The plain functions.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Response, Url, redirect};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};

use crate::transport::{self, may_retry, retry_after};
use crate::{Ask, Decision, Error, Event, EventsAnswer, FieldError, Problem, Quantity, RateLimit};

const TIMEOUT: Duration = Duration::from_secs(5);
const TRIES: u32 = 4;
/// The pause behind the first loss of a connection; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The code of a refusal by a quota, asked for with a status of its own.
const REFUSED: &str = "quota_refused";

/// A connection to an engine with an API key. Cheap to clone; needs tokio's runtime.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    http: reqwest::Client,
    timeout: Duration,
    tries: u32,
}

/// An answer that says what was asked for.
struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    /// For a refusal by a quota that time heals.
    retry_after: Option<Duration>,
}

/// A problem's body.
#[derive(Deserialize)]
struct ProblemBody {
    code: String,
    detail: String,
    retryable: bool,
    request_id: Option<String>,
    #[serde(default)]
    errors: Vec<FieldError>,
}

impl Client {
    /// A client for the engine at `base_url`, such as `http://127.0.0.1:8080`. An address or a key that cannot be used is
    /// [`Error::Config`]. Each call takes up to 5 s and 4 tries.
    pub fn new(base_url: &str, api_key: &str) -> Result<Self, Error> {
        let url = Url::parse(base_url).ok();
        if !url.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            let detail =
                format!("no address of an engine: \"{base_url}\"; give one such as http://127.0.0.1:8080");
            return Err(Error::Config(detail));
        }
        let key =
            Some(api_key).filter(|key| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()));
        let bearer = key.and_then(|key| HeaderValue::from_str(&format!("Bearer {key}")).ok());
        let Some(mut bearer) = bearer else {
            let detail = "the API key is empty, or has a space or another character that no key has";
            return Err(Error::Config(detail.to_owned()));
        };
        bearer.set_sensitive(true);
        let http = transport::builder(base_url)
            .default_headers(HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]))
            .redirect(redirect::Policy::none())
            .user_agent(concat!("turnpike-client/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Config(format!("cannot make an HTTP client: {error}")))?;
        Ok(Self {
            base: base_url.trim_end_matches('/').to_owned(),
            http,
            timeout: TIMEOUT,
            tries: TRIES,
        })
    }

    /// The same client, whose calls take at most `timeout`, all tries and pauses together. A pause that the engine asks for
    /// and that would end later is not begun: the call then fails at once.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The same client, whose calls are tried `tries` times at the most, the first one counted.
    #[must_use]
    pub fn with_tries(self, tries: u32) -> Self {
        Self { tries, ..self }
    }

    /// Whether a customer may do this now; nothing is consumed.
    pub async fn check(&self, ask: &Ask) -> Result<Decision, Error> {
        self.decide("/v1/quota/check", &ask.question()).await
    }

    /// Decides and records usage in one durable step, once per id.
    pub async fn consume(&self, ask: &Ask) -> Result<Decision, Error> {
        self.decide("/v1/quota/consume", &ask.order()).await
    }

    /// Holds an amount, durably, for up to `ttl` (whole seconds, 1 to 86,400). The decision's `reservation` has the id
    /// for what follows.
    pub async fn reserve(&self, ask: &Ask, ttl: Duration) -> Result<Decision, Error> {
        let mut body = ask.order();
        body.insert("ttl_s".to_owned(), json!(ttl.as_secs()));
        self.decide("/v1/quota/reservations", &body).await
    }

    /// Turns a reservation into usage: `amount` of it, which may be less or (within the limits) more; all of it for none.
    /// After its end it is decided anew.
    pub async fn commit(&self, reservation: &str, amount: Option<Quantity>) -> Result<Decision, Error> {
        let path = format!("/v1/quota/reservations/{}/commit", transport::encode(reservation));
        self.decide(&path, &json!({"amount": amount})).await
    }

    /// Gives a reservation back.
    pub async fn release(&self, reservation: &str) -> Result<Decision, Error> {
        let path = format!(
            "/v1/quota/reservations/{}/release",
            transport::encode(reservation)
        );
        self.call(&path, Bytes::new()).await?.decision()
    }

    /// Sends events, durably; each is accepted or not for itself. One call takes up to 64 MiB.
    pub async fn send(&self, events: &[Event]) -> Result<EventsAnswer, Error> {
        self.call("/v1/events", json(&events)?).await?.read()
    }

    /// A quota call. A refusal is asked for with a status of its own, which alone tells when to ask again.
    async fn decide(&self, path: &str, body: &impl Serialize) -> Result<Decision, Error> {
        self.call(&format!("{path}?status=strict"), json(body)?)
            .await?
            .decision()
    }

    /// Posts `body`, again where that is worth it. That is safe for all calls here: they read, or carry the id under which
    /// they are done once.
    #[expect(
        clippy::disallowed_methods,
        reason = "the client is no part of the engine, which alone has its clock injected"
    )]
    async fn call(&self, path: &str, body: Bytes) -> Result<Answered, Error> {
        let end = Instant::now() + self.timeout;
        let mut backoff = FIRST_PAUSE;
        let mut tried = 1;
        loop {
            let Ok(answered) = timeout_at(end, self.once(path, body.clone())).await else {
                return Err(Error::TimedOut(self.timeout));
            };
            let error = match answered {
                Ok(answered) => return Ok(answered),
                Err(error) => error,
            };
            let worth = match &error {
                Error::Unreachable(_) => true,
                other => other.status().is_some_and(may_retry),
            };
            let pause = error.retry_after().unwrap_or(backoff);
            if !worth || tried >= self.tries || Instant::now() + pause >= end {
                return Err(error);
            }
            sleep(pause).await;
            tried += 1;
            backoff *= 2;
        }
    }

    async fn once(&self, path: &str, body: Bytes) -> Result<Answered, Error> {
        let request = self.http.post(format!("{}{path}", self.base));
        let request = if body.is_empty() {
            request
        } else {
            request
                .header(header::CONTENT_TYPE, "application/json")
                .body(body)
        };
        let response = request.send().await.map_err(Error::Unreachable)?;
        Answered::of(response).await
    }
}

fn json(body: &impl Serialize) -> Result<Bytes, Error> {
    let body = serde_json::to_vec(body);
    body.map(Bytes::from)
        .map_err(|error| Error::Config(format!("what is sent is no JSON: {error}")))
}

impl Answered {
    async fn of(response: Response) -> Result<Self, Error> {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(Error::Unreachable)?;
        let mut answered = Self {
            status,
            headers,
            body,
            retry_after: None,
        };
        if status.is_success() {
            return Ok(answered);
        }
        let retry_after = retry_after(&answered.headers);
        let body: ProblemBody = answered.read()?;
        if body.code == REFUSED {
            answered.retry_after = retry_after.filter(|_| body.retryable);
            return Ok(answered);
        }
        Err(Error::Problem(Box::new(Problem {
            status,
            code: body.code,
            detail: body.detail,
            retryable: body.retryable,
            request_id: body.request_id,
            errors: body.errors,
            retry_after,
        })))
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Unreadable {
            status: self.status,
            detail: error.to_string(),
        })
    }

    fn decision(self) -> Result<Decision, Error> {
        Ok(Decision {
            retry_after: self.retry_after,
            rate_limit: RateLimit::of(&self.headers),
            ..self.read()?
        })
    }
}
