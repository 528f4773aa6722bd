use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts as _, MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use turnpike_domain::limits::{BODY_BYTES_MAX, CONTROL_BODY_BYTES_MAX};
use turnpike_domain::port::control::{ControlStore, Decision};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::Clock;
use turnpike_http::{Answered, Changing, Failure};

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
];

/// Keeps the answers to changing calls with an `Idempotency-Key` whose effect is not in the control store. The answer
/// is kept after the effect: a crash in between leaves a call that runs again, which the ids of events and reservations
/// make harmless.
pub(crate) struct Repeats {
    /// Where answers are kept.
    pub store: Arc<dyn ControlStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
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

impl Repeats {
    async fn run(&self, request: Request, next: Next) -> Result<Response, Failure> {
        let (mut parts, body) = request.into_parts();
        let changing = Changing::from_request_parts(&mut parts, &()).await?;
        let bytes = to_bytes(body, CONTROL_BODY_BYTES_MAX).await.map_err(|error| {
            let detail = format!(
                "the body of a call with an Idempotency-Key has at most {CONTROL_BODY_BYTES_MAX} bytes and arrives whole ({error}); \
                 events need no such key: their own ids tell repeats"
            );
            Problem::new(Code::TooLarge, detail)
        })?;
        let asked = blake3::hash(&bytes).to_hex().to_string();
        // A decision that refuses keeps nothing: it only shows whether the call is a repeat.
        let change = changing.change(self.clock.as_ref(), &asked);
        let new = || Problem::new(Code::NotFound, "no such call before");
        match self.store.change(change, Box::new(move |_| Err(new()))).await {
            Ok(first) => return Ok(Answered(first).into_response()),
            Err(problem) if problem == new() => {}
            Err(problem) => return Err(problem.into()),
        }
        let response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
        if !response.status().is_success() {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, BODY_BYTES_MAX)
            .await
            .map_err(|error| Problem::new(Code::Internal, format!("an answer: {error}")))?;
        let decision = Decision {
            status: parts.status.as_u16(),
            ..Decision::unchanged(serde_json::from_slice(&bytes).unwrap_or(Value::Null))
        };
        let change = changing.change(self.clock.as_ref(), &asked);
        if let Err(problem) = self.store.change(change, Box::new(move |_| Ok(decision))).await {
            tracing::warn!(%problem, "an answer is not kept for repeats; its call was served");
        }
        Ok(Response::from_parts(parts, Body::from(bytes)))
    }
}
