//! `POST /v1/events`.

use axum::Json;
use axum::extract::{Request, State};
use serde::Deserialize;
use turnpike_domain::identity::Scope;
use turnpike_http::{Caller, Params, ProblemBody, Reply};

use super::answer::{self, IngestAnswer};
use super::content::{self, Media};
use super::whole::Whole;
use super::{EventInput, stream};
use crate::IngestState;
use crate::decode::Form;
use crate::decode::cloudevents::NoDefaults;

/// How events are to be taken.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SendQuery {
    /// All or nothing: one invalid event refuses them all with 422, and a failure keeps none of them. Validity only: a
    /// duplicate or a conflict refuses nothing.
    #[serde(default)]
    atomic: bool,
    /// What to wait for before the answer. `counted` is what this server always waits for.
    #[serde(default, rename = "wait")]
    #[param(inline)]
    _wait: Option<Wait>,
}

/// What an answer waits for.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum Wait {
    /// The events are durable, decided and counted.
    Counted,
}

/// Send events.
///
/// Takes one CloudEvent, an array of them, or a stream with one on each line (`application/x-ndjson`); with
/// `Content-Encoding: gzip` or `zstd` where wanted. One event may also come in CloudEvents' binary mode: its attributes
/// in headers (`ce-id`, `ce-source`, `ce-type`, `ce-subject`, …), and the body is its `data`. When the answer comes, accepted events are durable, deduplicated
/// and counted. An event is named by its `source` and `id`: sending it again is a duplicate and counts once, so any
/// request may be repeated. A compressed stream may have 64 MiB after decompression, and beyond that 1,000 times the bytes
/// that were sent; else 413. After an error in the middle of a stream, `detail` says what had been counted by then:
/// send the whole stream again.
#[utoipa::path(
    post, path = "/v1/events", tag = "Events",
    params(
        SendQuery,
        ("ce-id" = Option<String>, Header, description = "Binary mode: the event's `id`; the body is its `data`"),
        ("ce-source" = Option<String>, Header, description = "Binary mode: `source`"),
        ("ce-type" = Option<String>, Header, description = "Binary mode: `type`"),
        ("ce-subject" = Option<String>, Header, description = "Binary mode: `subject`"),
        ("ce-time" = Option<String>, Header, description = "Binary mode: `time`, RFC 3339; the time of receipt unless sent"),
        ("ce-specversion" = Option<String>, Header, pattern = r"^1\.0$", description = "Binary mode: `1.0`"),
        ("Content-Encoding" = Option<String>, Header, description = "`gzip` or `zstd`"),
    ),
    request_body(content(
        (EventInput = "application/json"),
        (EventInput = "application/cloudevents+json"),
        (Vec<EventInput> = "application/cloudevents-batch+json"),
        (EventInput = "application/x-ndjson"),
    ), description = "One event, an array of events, or one event on each line"),
    responses(
        (status = 200, body = IngestAnswer, description = "What became of the events"),
        (status = 400, body = ProblemBody, description = "The body cannot be read"),
        (status = 409, body = ProblemBody, description = "One bare event that conflicts with an earlier one"),
        (status = 413, body = ProblemBody, description = "The body is too large, or far larger after decompression than before"),
        (status = 415, body = ProblemBody, description = "The content type or encoding is not taken"),
        (status = 422, body = ProblemBody, description = "One bare event, or an atomic request, is invalid"),
        (status = 429, body = ProblemBody, description = "Too many bytes in flight for this tenant"),
        (status = 503, body = ProblemBody, description = "Try again later"),
    ),
    security(("api_key" = ["ingest"])),
)]
pub(crate) async fn send(
    State(state): State<IngestState>,
    caller: Caller,
    Params(query): Params<SendQuery>,
    request: Request,
) -> Reply<Json<IngestAnswer>> {
    caller.require(Scope::Ingest)?;
    let (media, encoding) = content::of_events(request.headers())?;
    let tenant = caller.tenant;
    if media == Media::Lines && !query.atomic {
        return Ok(Json(
            stream::take(&state, tenant, request.into_body(), encoding).await?,
        ));
    }
    let whole = Whole {
        state: &state,
        tenant,
        media,
        encoding,
        atomic: query.atomic,
    };
    let (form, piece, outcomes) = whole.take(request, NoDefaults).await?;
    if form == Form::Single {
        answer::single(&piece, &outcomes)?;
    }
    Ok(Json(IngestAnswer::of(&piece, &outcomes)))
}
