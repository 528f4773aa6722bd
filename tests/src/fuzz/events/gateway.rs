//! The gateway's routes with nothing behind them: what they hand on is kept and shown.

use std::cell::OnceCell;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;
use turnpike_domain::catalog::{Catalog, Customer, Grant, Override, Subscription, Tenant};
use turnpike_domain::event::EventBatch;
use turnpike_domain::identity::{EventName, NameKey, Scope, TenantId};
use turnpike_domain::port::BoxFuture;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::history::{Backfill, DeadLetterPage, EventPage, EventQuery, History};
use turnpike_domain::port::intake::{
    Correction, Intake, Known, Outcome, QuotaOutcome, QuotaRecord, Rejection,
};
use turnpike_domain::problem::Problem;
use turnpike_domain::record::Position;
use turnpike_domain::time::Timestamp;
use turnpike_http::{Caller, RequestId};
use turnpike_ingest::{IngestOptions, IngestParts, IngestState};
use turnpike_stores::machine::{ManualClock, SeededRandomness};

/// The time of every request: 2026-03-01T12:00:00Z.
pub(super) const NOW_US: i64 = 1_772_366_400_000_000;
/// Where OpenMeter's clients send to.
const OPENMETER: &str = "/api/v1/events";

/// A request.
pub(super) struct Sent {
    path: String,
    headers: HeaderMap,
    chunk: usize,
    pub(super) body: Vec<u8>,
}

impl Sent {
    /// The request that `input` says, if it is one of those that send or amend an event.
    pub(super) fn read(input: &[u8]) -> Option<Self> {
        let end = input.windows(2).position(|two| two == b"\n\n")?;
        let mut lines = std::str::from_utf8(&input[..end]).ok()?.split('\n');
        let path = lines.next()?.to_owned();
        let mut headers = HeaderMap::new();
        let mut chunk = usize::MAX;
        for line in lines {
            let (name, value) = line.split_once(':')?;
            if name == "x-chunk" {
                chunk = value.trim().parse().ok().filter(|chunk| *chunk > 0)?;
                continue;
            }
            let name: HeaderName = name.parse().ok()?;
            headers.append(name, HeaderValue::from_str(value.trim()).ok()?);
        }
        let sent = Self {
            path,
            headers,
            chunk,
            body: input[end + 2..].to_vec(),
        };
        let (bare, _) = sent.path.split_once('?').unwrap_or((&sent.path, ""));
        let known = bare == "/v1/events" || bare == OPENMETER || sent.is_amendment();
        (known && sent.path.parse::<axum::http::Uri>().is_ok()).then_some(sent)
    }

    /// Whether it amends an event.
    pub(super) fn is_amendment(&self) -> bool {
        let parts: Vec<_> = self.path.split('/').collect();
        let name = |part: &str| !part.is_empty() && !part.contains(['?', '#']);
        matches!(parts[..], ["", "v1", "events", source, id, "amend"] if name(source) && name(id))
    }

    /// Whether each of its lines stands alone.
    pub(super) fn is_stream(&self) -> bool {
        self.path == "/v1/events" && self.media().contains("ndjson")
    }

    /// Whether its body is events in JSON as they are, so that it can be read without knowing the gateway.
    pub(super) fn is_plain(&self) -> bool {
        let whole = ["application/json", "application/cloudevents+json"].contains(&self.media().as_str());
        let path = self.path == "/v1/events" || self.path == OPENMETER;
        let bare = self.headers.len() == 1 && self.headers.contains_key("content-type");
        bare && ((whole && path) || self.path == "/v1/events" && self.media() == "application/x-ndjson")
    }

    fn media(&self) -> String {
        let media = self
            .headers
            .get("content-type")
            .and_then(|value| value.to_str().ok());
        media.unwrap_or_default().to_ascii_lowercase()
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    media: Option<HeaderValue>,
    pub(super) json: Value,
}

impl Answer {
    /// It is no defect of the server, and a refusal is a problem.
    pub(super) fn assert_is_one(&self) {
        assert!(self.status.as_u16() < 500, "{self:?}");
        if !self.status.is_success() {
            assert_eq!(
                self.media.as_ref().map(HeaderValue::as_bytes),
                Some(&b"application/problem+json"[..])
            );
            assert_eq!(self.json["status"], self.status.as_u16(), "{self:?}");
            assert!(
                self.json["code"].is_string() && self.json["detail"].is_string(),
                "{self:?}"
            );
        }
    }

    /// A number of the answer.
    pub(super) fn count(&self, name: &str) -> u64 {
        self.json[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no {name}: {self:?}"))
    }
}

/// An event that was handed on.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) kind: String,
    pub(super) subject: String,
    pub(super) data: String,
    pub(super) extensions: String,
    pub(super) time_us: i64,
    pub(super) time_sent: bool,
}

/// Sends a request; its answer, and the events that it brought in.
pub(super) fn send(sent: &Sent) -> (Answer, Vec<Kept>) {
    thread_local! {
        static GATEWAY: OnceCell<Gateway> = const { OnceCell::new() };
    }
    GATEWAY.with(|gateway| gateway.get_or_init(Gateway::new).send(sent))
}

struct Gateway {
    router: Router,
    sink: Arc<Sink>,
    runtime: Runtime,
}

impl Gateway {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros_clamped(NOW_US)));
        let sink = Arc::new(Sink::default());
        let state = IngestState::new(IngestParts {
            intake: sink.clone(),
            history: sink.clone(),
            directory: Arc::new(Nobody),
            clock: clock.clone(),
            randomness: Arc::new(SeededRandomness::new(1, clock)),
            key: NameKey([7; 16]),
            options: IngestOptions::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        Self {
            router: turnpike_ingest::router(state).split_for_parts().0,
            sink,
            runtime: runtime.expect("a runtime"),
        }
    }

    fn send(&self, sent: &Sent) -> (Answer, Vec<Kept>) {
        let chunks: Vec<_> = sent.body.chunks(sent.chunk).map(Bytes::copy_from_slice).collect();
        let body = Body::from_stream(futures_util::stream::iter(
            chunks.into_iter().map(Ok::<_, Infallible>),
        ));
        let mut request = Request::post(&sent.path).body(body).expect("a request");
        *request.headers_mut() = sent.headers.clone();
        request.extensions_mut().insert(Caller {
            tenant: TenantId(1),
            key_id: "fuzz".into(),
            scopes: Arc::new([Scope::Admin].into()),
            request_id: RequestId("fuzz".into()),
        });
        let answer = self.runtime.block_on(async {
            let (parts, body) = self
                .router
                .clone()
                .oneshot(request)
                .await
                .expect("an answer")
                .into_parts();
            let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
            Answer {
                status: parts.status,
                media: parts.headers.get("content-type").cloned(),
                json: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            }
        });
        (answer, std::mem::take(&mut *self.sink.0.lock().expect("a lock")))
    }
}

/// Takes all and knows nothing.
#[derive(Default)]
struct Sink(Mutex<Vec<Kept>>);

impl Intake for Sink {
    fn submit(&self, batch: Arc<EventBatch>) -> BoxFuture<'_, Result<Vec<Outcome>, Problem>> {
        let mut kept = self.0.lock().expect("a lock");
        for entry in batch.entries() {
            let event = batch.event(entry);
            assert_eq!((event.tenant, event.received_us, event.grant), (1, NOW_US, None));
            kept.push(Kept {
                id: event.id.to_owned(),
                source: event.source.to_owned(),
                kind: event.kind.to_owned(),
                subject: event.subject.to_owned(),
                data: event.data.to_owned(),
                extensions: event.extensions.to_owned(),
                time_us: event.time_us,
                time_sent: event.time_sent,
            });
        }
        Box::pin(std::future::ready(Ok(vec![
            Outcome::Accepted(Position(1));
            batch.len()
        ])))
    }

    fn correct(
        &self,
        _: EventName,
        change: Correction,
        _: Timestamp,
    ) -> BoxFuture<'_, Result<Option<Known>, Problem>> {
        let Correction::Amend { data, time } = change else {
            panic!("a void");
        };
        assert!(data.is_some() || time.is_some(), "nothing is amended");
        if let Some(data) = data {
            let read: Result<serde::de::IgnoredAny, _> = serde_json::from_str(&data);
            assert!(data.starts_with('{') && read.is_ok(), "{data}");
        }
        Box::pin(std::future::ready(Ok(None)))
    }

    fn reject(&self, rejections: Vec<Rejection>) -> BoxFuture<'_, Result<Vec<Position>, Problem>> {
        Box::pin(std::future::ready(Ok(vec![Position(1); rejections.len()])))
    }

    fn resolve(&self, _: TenantId, _: Position) -> BoxFuture<'_, Result<(), Problem>> {
        unreachable!("nothing is resolved")
    }

    fn quota(&self, _: QuotaRecord) -> BoxFuture<'_, Result<QuotaOutcome, Problem>> {
        unreachable!("the gateway takes no quota")
    }

    fn lookup(&self, _: Vec<EventName>) -> BoxFuture<'_, Result<Vec<Option<Known>>, Problem>> {
        unreachable!("the gateway looks nothing up")
    }
}

impl History for Sink {
    fn events(&self, _: TenantId, _: EventQuery) -> BoxFuture<'_, Result<EventPage, Problem>> {
        unreachable!("nothing is listed")
    }

    fn dead_letters(
        &self,
        _: TenantId,
        _: usize,
        _: Option<String>,
    ) -> BoxFuture<'_, Result<DeadLetterPage, Problem>> {
        unreachable!("nothing is listed")
    }

    fn backfill(&self, _: TenantId, _: &str) -> Option<Backfill> {
        None
    }
}

/// A directory without anybody.
struct Nobody;

impl Directory for Nobody {
    fn tenant(&self, _: TenantId) -> Option<Arc<Tenant>> {
        None
    }
    fn tenants(&self) -> Vec<Arc<Tenant>> {
        Vec::new()
    }
    fn catalog(&self, _: TenantId) -> Arc<Catalog> {
        Arc::default()
    }
    fn customer(&self, _: TenantId, _: &str) -> Option<Arc<Customer>> {
        None
    }
    fn customers_from(&self, _: TenantId, _: &str, _: usize) -> Vec<Arc<Customer>> {
        Vec::new()
    }
    fn customer_of_subject(&self, _: TenantId, _: &str) -> Option<Arc<Customer>> {
        None
    }
    fn children(&self, _: TenantId, _: &str) -> Vec<Arc<Customer>> {
        Vec::new()
    }
    fn subscriptions(&self, _: TenantId, _: &str) -> Vec<Arc<Subscription>> {
        Vec::new()
    }
    fn subscription(&self, _: TenantId, _: &str) -> Option<Arc<Subscription>> {
        None
    }
    fn overrides(&self, _: TenantId, _: &str) -> Vec<Arc<Override>> {
        Vec::new()
    }
    fn grants(&self, _: TenantId, _: &str) -> Vec<Arc<Grant>> {
        Vec::new()
    }
    fn grant_holders(&self, _: TenantId, _: &str) -> Vec<Arc<Customer>> {
        Vec::new()
    }
    fn epoch(&self) -> u64 {
        0
    }
}
