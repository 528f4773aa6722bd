use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts as _, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::Instrument as _;
use turnpike_domain::identity::TenantId;
use turnpike_domain::limits::{BODY_BYTES_MAX, CONTROL_BODY_BYTES_MAX};
use turnpike_domain::port::control::{Answer, Claim, ControlStore, Idempotent};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::Clock;
use turnpike_http::{Answered, Changing, Failure, read_within};
use turnpike_ingest::IngestState;

use super::routes::Handlers;

/// Changing calls that go past the control store; the others keep their answer there together with their effect.
const OUTSIDE: &[&str] = &[
    "/v1/events",
    "/v1/events/{source}/{id}/void",
    "/v1/events/{source}/{id}/amend",
    "/v1/events/dead-letters/replay",
    "/v1/quota/consume",
    "/v1/quota/reservations",
    "/v1/quota/reservations/{id}/commit",
    "/v1/quota/reservations/{id}/release",
    "/api/v1/events",
];

/// Those of them whose body may be as large as that of any request of events.
const EVENTS: &[&str] = &["/v1/events", "/api/v1/events"];

/// Keeps the answers to changing calls with an `Idempotency-Key` whose effect is not in the control store, for
/// [`turnpike_domain::limits::IDEMPOTENT_ANSWER_DAYS`]. The key is claimed before the effect and the answer kept behind
/// it: after a crash in between another request under the key is still a conflict, and the same one runs again, which
/// the ids of events and reservations make harmless.
pub(crate) struct Repeats {
    /// Where answers are kept.
    pub(crate) store: Arc<dyn ControlStore>,
    /// Time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Keys whose call runs now.
    pub(crate) running: Arc<Running>,
    /// The gateway of events.
    pub(crate) ingest: IngestState,
}

/// Keys whose call runs now; as many as there are connections at the most.
#[derive(Debug, Default)]
pub(crate) struct Running(Mutex<HashSet<(TenantId, String)>>);

/// A key in [`Running`] until it is dropped.
struct Held {
    running: Arc<Running>,
    key: (TenantId, String),
}

impl Running {
    fn hold(self: &Arc<Self>, tenant: TenantId, key: &str) -> Result<Held, Problem> {
        let key = (tenant, key.to_owned());
        if self.0.lock().insert(key.clone()) {
            let running = Arc::clone(self);
            return Ok(Held { running, key });
        }
        let detail = format!("a call with the Idempotency-Key \"{}\" is still running", key.1);
        Err(Problem::new(Code::IdempotencyInProgress, detail))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.running.0.lock().remove(&self.key);
    }
}

/// Headers that tell of the answer as its body does. Those of keys and tenants come later and tell of each call.
const KEPT_HEADERS: [&str; 4] = [
    "content-type",
    "ratelimit-policy",
    "ratelimit",
    "turnpike-events-without-id",
];

/// An answer as it is kept for repeats. The body is a text, not JSON: numbers stay as they were written, and so do keys
/// that an event has twice.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    text: String,
    headers: BTreeMap<String, String>,
}

/// An answer as it was kept formerly.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Former {
    body: Value,
    headers: BTreeMap<String, String>,
}

impl Kept {
    fn of(headers: &HeaderMap, body: &[u8]) -> Result<Value, Problem> {
        let kept = KEPT_HEADERS.iter().filter_map(|name| {
            let value = headers.get(*name)?.to_str().ok()?;
            Some(((*name).to_owned(), value.to_owned()))
        });
        let headers: BTreeMap<_, _> = kept.collect();
        let text = str::from_utf8(body)
            .map_err(|error| Problem::new(Code::Internal, format!("an answer is no text: {error}")))?;
        Ok(json!({ "text": text, "headers": headers }))
    }

    fn again(mut first: Answer) -> Response {
        let (text, headers) = if let Ok(kept) = Self::deserialize(&first.body) {
            first.body = Value::Null;
            (kept.text, kept.headers)
        } else if let Ok(former) = Former::deserialize(&first.body) {
            first.body = former.body;
            (String::new(), former.headers)
        } else {
            // Before headers were kept, an answer was its body alone.
            (String::new(), BTreeMap::new())
        };
        let mut response = Answered(first).into_response();
        if !text.is_empty() {
            *response.body_mut() = text.into();
        }
        for (name, value) in headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// Bytes that are hashed before other requests have their turn.
const HASHED_AT_ONCE_BYTES: usize = 256 * 1024;

/// What makes a call another one under the same key: its body, and the headers that say how it is read or are a part of it.
async fn fingerprint(headers: &HeaderMap, body: &[u8]) -> String {
    let meant = |name: &str| matches!(name, "content-type" | "content-encoding") || name.starts_with("ce-");
    let mut said: Vec<_> = headers
        .iter()
        .filter(|(name, _)| meant(name.as_str()))
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    said.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for part in said.iter().flat_map(|(name, value)| [name.as_bytes(), *value]) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.update(&[0xFF; 8]);
    for piece in body.chunks(HASHED_AT_ONCE_BYTES) {
        hasher.update(piece);
        tokio::task::yield_now().await;
    }
    hasher.finalize().to_hex().to_string()
}

impl Repeats {
    /// Whether a call of `route` is answered as it was answered first.
    pub(crate) fn concern(route: &str, request: &Request) -> bool {
        request.headers().contains_key("idempotency-key")
            && *request.method() == Method::POST
            && OUTSIDE.contains(&route)
    }

    /// Answers such a call.
    pub(crate) async fn pass(
        self: &Arc<Self>,
        route: &str,
        request: Request,
        handlers: Handlers,
    ) -> Response {
        let running = Arc::clone(self).run(EVENTS.contains(&route), request, handlers);
        running.await.unwrap_or_else(IntoResponse::into_response)
    }

    async fn run(
        self: Arc<Self>,
        is_of_events: bool,
        request: Request,
        handlers: Handlers,
    ) -> Result<Response, Failure> {
        let (mut parts, body) = request.into_parts();
        let changing = Changing::from_request_parts(&mut parts, &()).await?;
        let request = Request::from_parts(parts.clone(), body);
        let bytes = self.whole(changing.tenant(), is_of_events, request).await?;
        let asked = fingerprint(&parts.headers, &bytes).await;
        let Some(call) = changing.change(self.clock.as_ref(), &asked).idempotency else {
            let request = Request::from_parts(parts, Body::from(bytes));
            return Ok(handlers.run(request).await);
        };
        let held = match self.running.hold(changing.tenant(), &call.key) {
            Ok(held) => held,
            // Who holds it may be a repeat of a call that has ended, on its way to the same answer.
            Err(running) => {
                let kept = self.store.kept_answer(changing.tenant(), call).await?;
                return Ok(Kept::again(kept.ok_or(running)?));
            }
        };
        // On its own, so that it ends with its answer kept also when the caller hangs up.
        let once = async move {
            let answered = self.once(changing.tenant(), call, (parts, bytes), handlers).await;
            drop(held);
            answered
        };
        match tokio::spawn(once.in_current_span()).await {
            Ok(answered) => answered,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Problem::new(Code::ShuttingDown, "the server is stopping").into()),
        }
    }

    async fn once(
        &self,
        tenant: TenantId,
        call: Idempotent,
        (parts, bytes): (Parts, Bytes),
        handlers: Handlers,
    ) -> Result<Response, Failure> {
        let key = call.key.clone();
        // By the machine's time, for a test tenant's clock may pass days in a call.
        let claim = self.store.claim(tenant, call, self.clock.machine_now()).await?;
        if let Claim::Answered(first) = claim {
            return Ok(Kept::again(first));
        }
        let response = handlers.run(Request::from_parts(parts, Body::from(bytes))).await;
        if !response.status().is_success() {
            self.settle(tenant, key, None).await;
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, BODY_BYTES_MAX)
            .await
            .map_err(|error| Problem::new(Code::Internal, format!("an answer: {error}")))?;
        let kept = Kept::of(&parts.headers, &bytes)?;
        self.settle(tenant, key, Some((parts.status.as_u16(), kept)))
            .await;
        Ok(Response::from_parts(parts, Body::from(bytes)))
    }

    /// The whole body, within the bounds of what its route reads.
    async fn whole(&self, tenant: TenantId, is_of_events: bool, request: Request) -> Result<Bytes, Problem> {
        let beyond = |bound: usize| {
            let detail = format!(
                "the body of this call has at most {bound} bytes as sent under an Idempotency-Key, as it arrives whole; \
                 events need no such key: their own ids tell repeats"
            );
            Problem::new(Code::TooLarge, detail)
        };
        if is_of_events {
            let arrived = self.ingest.arrived(tenant, request).await;
            return arrived.map_err(|problem| match problem.code {
                Code::TooLarge => beyond(BODY_BYTES_MAX),
                _ => problem,
            });
        }
        let too_large = || beyond(CONTROL_BODY_BYTES_MAX);
        read_within(request.into_body(), CONTROL_BODY_BYTES_MAX, too_large).await
    }

    async fn settle(&self, tenant: TenantId, key: String, answer: Option<(u16, Value)>) {
        if let Err(problem) = self.store.settle(tenant, key, answer).await {
            tracing::warn!(%problem, "an answer is not kept for repeats; its call was served");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn repeat_of(kept: Value) -> (HeaderMap, String) {
        let response = Kept::again(Answer {
            status: 200,
            body: kept,
            repeated: true,
        });
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 10_000).await.unwrap();
        (parts.headers, String::from_utf8(body.into()).unwrap())
    }

    #[tokio::test]
    async fn what_was_kept_is_answered_whichever_way_it_was_kept() {
        let text = r#"{"v":0.12345678901234567890123,"e":1e400,"d":1,"d":2}"#;
        let headers = HeaderMap::from_iter([
            (
                HeaderName::from_static("ratelimit"),
                HeaderValue::from_static("\"month-hard\";r=1"),
            ),
            (
                HeaderName::from_static("content-type"),
                HeaderValue::from_static("application/json"),
            ),
        ]);
        let (again, body) = repeat_of(Kept::of(&headers, text.as_bytes()).unwrap()).await;
        assert_eq!(body, text);
        assert_eq!(again["ratelimit"], "\"month-hard\";r=1");
        assert_eq!(again["content-type"], "application/json");
        assert_eq!(again["idempotent-replayed"], "true");
        let (again, body) = repeat_of(Kept::of(&HeaderMap::new(), b"").unwrap()).await;
        assert!(
            body.is_empty() && !again.contains_key("content-type"),
            "{again:?}"
        );
        let former = json!({"body": {"accepted": 1}, "headers": {"ratelimit": "x"}});
        for (former, limit) in [(former, true), (json!({"accepted": 1}), false)] {
            let (again, body) = repeat_of(former).await;
            assert_eq!(body, r#"{"accepted":1}"#);
            assert_eq!(again["content-type"], "application/json");
            assert_eq!(again.contains_key("ratelimit"), limit);
        }
    }

    #[test]
    fn a_key_runs_once_at_a_time_and_tenants_never_meet() {
        let running = Arc::new(Running::default());
        let held = running.hold(TenantId(1), "k").unwrap();
        let refused = running.hold(TenantId(1), "k").err().unwrap();
        assert_eq!(refused.code, Code::IdempotencyInProgress);
        assert!(running.hold(TenantId(2), "k").is_ok());
        assert!(running.hold(TenantId(1), "l").is_ok());
        drop(held);
        assert!(running.hold(TenantId(1), "k").is_ok());
    }
}
