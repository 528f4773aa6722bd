//! `POST /api/v1/events` as OpenMeter's clients call it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use turnpike_domain::identity::Scope;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::Randomness;
use turnpike_http::{Caller, ProblemBody, Reply};

use super::content::{self, Media};
use super::whole::Whole;
use super::{OpenMeterEventInput, answer};
use crate::IngestState;
use crate::decode::Form;
use crate::decode::cloudevents::Defaults;

/// The source of events that come here without one.
const SOURCE: &str = "turnpike:openmeter";

/// Says how many events of a request were given an id by the server: sent again, they count again.
const UNPROTECTED: &str = "turnpike-events-without-id";

/// Ids for events that come without one.
struct OpenMeterDefaults {
    randomness: Arc<dyn Randomness>,
    /// The idempotency key of the call: ids are made from it, so that a repeat makes the same ones.
    key: Option<String>,
    made: Arc<AtomicU64>,
}

impl Defaults for OpenMeterDefaults {
    fn id(&self) -> Option<String> {
        let made = self.made.fetch_add(1, Ordering::Relaxed);
        Some(match &self.key {
            Some(key) => format!("{key}#{made}"),
            None => self.randomness.new_id(),
        })
    }

    fn source(&self) -> Option<&str> {
        Some(SOURCE)
    }
}

/// Send events as OpenMeter's clients do.
///
/// Takes one CloudEvent or an array. An event without `source` gets `turnpike:openmeter`; one without `id` gets an id
/// and is not protected against a resend, and the header `turnpike-events-without-id` says how many there were; with an
/// `Idempotency-Key` ids are made from the key, and a resend with it counts once. The answer has no body, so nothing is
/// refused silently: one invalid event refuses all with 422, and a conflict is 409 (the others are then taken).
#[utoipa::path(
    post, path = "/api/v1/events", tag = "OpenMeter",
    request_body(content(
        (OpenMeterEventInput = "application/cloudevents+json"),
        (Vec<OpenMeterEventInput> = "application/cloudevents-batch+json"),
        (OpenMeterEventInput = "application/json"),
    ), description = "One event or an array of events"),
    responses(
        (status = 204, description = "All are durable and counted"),
        (status = 400, body = ProblemBody, description = "The body cannot be read"),
        (status = 409, body = ProblemBody, description = "Events conflict with earlier ones, of an array those that `errors` names; the others were taken"),
        (status = 415, body = ProblemBody, description = "The content type or encoding is not taken"),
        (status = 422, body = ProblemBody, description = "An event is invalid; none was taken"),
        (status = 503, body = ProblemBody, description = "Try again later"),
    ),
    security(("api_key" = ["ingest"])),
)]
pub(crate) async fn send(
    State(state): State<IngestState>,
    caller: Caller,
    request: Request,
) -> Reply<Response> {
    caller.require(Scope::Ingest)?;
    let (media, encoding) = content::of(request.headers())?;
    if media != Media::Json {
        let detail =
            "send application/cloudevents+json, application/cloudevents-batch+json or application/json";
        return Err(Problem::new(Code::UnsupportedMediaType, detail).into());
    }
    let made = Arc::new(AtomicU64::new(0));
    let key = request.headers().get("idempotency-key");
    let key = key.and_then(|key| key.to_str().ok()).map(str::to_owned);
    let protected = key.is_some();
    let defaults = OpenMeterDefaults {
        randomness: Arc::clone(&state.randomness),
        key,
        made: Arc::clone(&made),
    };
    let whole = Whole {
        state: &state,
        tenant: caller.tenant,
        media,
        encoding,
        atomic: true,
    };
    let (form, piece, outcomes) = whole.take(request, defaults).await?;
    if form == Form::Single {
        answer::single(&piece, &outcomes)?;
    }
    answer::conflicts(&piece, &outcomes)?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    let made = made.load(Ordering::Relaxed);
    if made > 0 && !protected {
        response
            .headers_mut()
            .insert(UNPROTECTED, HeaderValue::from(made));
    }
    Ok(response)
}
