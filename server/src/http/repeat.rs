use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts as _, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::Instrument as _;
use turnpike_domain::identity::TenantId;
use turnpike_domain::limits::{BODY_BYTES_MAX, CONTROL_BODY_BYTES_MAX};
use turnpike_domain::port::control::{Answer, Claim, ControlStore, Idempotent};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::Clock;
use turnpike_http::{Answered, Changing, Failure, told};

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

/// Answers a repeat as the call was answered first; lets all others through.
pub(crate) async fn repeats(State(repeats): State<Arc<Repeats>>, request: Request, next: Next) -> Response {
    let outside = request
        .extensions()
        .get::<MatchedPath>()
        .is_some_and(|route| OUTSIDE.contains(&route.as_str()));
    if !outside || *request.method() != Method::POST || !request.headers().contains_key("idempotency-key") {
        return next.run(request).await;
    }
    match repeats.run(request, next).await {
        Ok(response) => response,
        Err(failure) => failure.into_response(),
    }
}

/// Headers that tell of a decision as its body does. Those of keys and tenants come later and tell of each call.
const KEPT_HEADERS: [&str; 2] = ["ratelimit-policy", "ratelimit"];

/// An answer as it is kept for repeats.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    body: Value,
    headers: BTreeMap<String, String>,
}

impl Kept {
    fn of(headers: &HeaderMap, body: &[u8]) -> Value {
        let kept = KEPT_HEADERS.iter().filter_map(|name| {
            let value = headers.get(*name)?.to_str().ok()?;
            Some(((*name).to_owned(), value.to_owned()))
        });
        let headers: BTreeMap<_, _> = kept.collect();
        json!({ "body": serde_json::from_slice::<Value>(body).unwrap_or_default(), "headers": headers })
    }

    fn again(first: Answer) -> Response {
        // Answers that were kept without headers are their body alone.
        let kept = Self::deserialize(&first.body).unwrap_or_else(|_| Self {
            body: first.body.clone(),
            headers: BTreeMap::new(),
        });
        let mut response = Answered(Answer {
            body: kept.body,
            ..first
        })
        .into_response();
        for (name, value) in kept.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// What makes a call another one under the same key: its body, and the headers that say how it is read or are a part of it.
fn fingerprint(headers: &HeaderMap, body: &[u8]) -> String {
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
    hasher.update(&[0xFF; 8]).update(body);
    hasher.finalize().to_hex().to_string()
}

impl Repeats {
    async fn run(self: Arc<Self>, request: Request, next: Next) -> Result<Response, Failure> {
        let (mut parts, body) = request.into_parts();
        let changing = Changing::from_request_parts(&mut parts, &()).await?;
        let bytes = whole(body).await?;
        let asked = fingerprint(&parts.headers, &bytes);
        let Some(call) = changing.change(self.clock.as_ref(), &asked).idempotency else {
            return Ok(next.run(Request::from_parts(parts, Body::from(bytes))).await);
        };
        let held = self.running.hold(changing.tenant(), &call.key)?;
        // On its own, so that it ends with its answer kept also when the caller hangs up.
        let once = async move {
            let answered = self.once(changing.tenant(), call, (parts, bytes), next).await;
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
        next: Next,
    ) -> Result<Response, Failure> {
        let key = call.key.clone();
        // By the machine's time, for a test tenant's clock may pass days in a call.
        let claim = self.store.claim(tenant, call, self.clock.machine_now()).await?;
        if let Claim::Answered(first) = claim {
            return Ok(Kept::again(first));
        }
        let response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
        if !response.status().is_success() {
            self.settle(tenant, key, None).await;
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, BODY_BYTES_MAX)
            .await
            .map_err(|error| Problem::new(Code::Internal, format!("an answer: {error}")))?;
        let kept = Kept::of(&parts.headers, &bytes);
        self.settle(tenant, key, Some((parts.status.as_u16(), kept)))
            .await;
        Ok(Response::from_parts(parts, Body::from(bytes)))
    }

    async fn settle(&self, tenant: TenantId, key: String, answer: Option<(u16, Value)>) {
        if let Err(problem) = self.store.settle(tenant, key, answer).await {
            tracing::warn!(%problem, "an answer is not kept for repeats; its call was served");
        }
    }
}

async fn whole(body: Body) -> Result<Bytes, Problem> {
    to_bytes(body, CONTROL_BODY_BYTES_MAX).await.map_err(|error| {
        told(&error).unwrap_or_else(|| {
            let detail = format!(
                "the body of a call with an Idempotency-Key has at most {CONTROL_BODY_BYTES_MAX} bytes and arrives whole; \
                 events need no such key: their own ids tell repeats"
            );
            Problem::new(Code::TooLarge, detail)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_without_headers_is_a_body() {
        let body = json!({"accepted": 1});
        let first = Answer {
            status: 200,
            body: body.clone(),
            repeated: true,
        };
        let again = Kept::again(first.clone());
        assert_eq!(again.headers()["idempotent-replayed"], "true");
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("ratelimit"),
            HeaderValue::from_static("\"month-hard\";r=1"),
        )]);
        let kept = Kept::of(&headers, body.to_string().as_bytes());
        let again = Kept::again(Answer { body: kept, ..first });
        assert_eq!(again.headers()["ratelimit"], "\"month-hard\";r=1");
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
