//! `POST /v1/events/{source}/{id}/void` and `…/amend`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use serde::Deserialize;
use turnpike_domain::event::check_kept;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::limits::CONTROL_BODY_BYTES_MAX;
use turnpike_domain::port::intake::Correction;
use turnpike_domain::problem::{Code, Problem};
use turnpike_http::{Caller, ProblemBody, Reply};

use super::content::{self, Media};
use super::view::EventBody;
use super::whole;
use crate::IngestState;
use crate::decode::read_amendment;

/// Which event: both percent-encoded, a slash as `%2F`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct EventPath {
    /// The event's `source`, percent-encoded.
    source: String,
    /// The event's `id`, percent-encoded.
    id: String,
}

type Named = Result<Path<EventPath>, PathRejection>;

/// What replaces an event's data or time.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it only describes what the reader of amendments takes")]
pub(crate) struct AmendInput {
    /// The new data; as it was unless sent.
    #[schema(value_type = Option<Object>)]
    data: Option<serde_json::Value>,
    /// The new time; as it was unless sent.
    #[schema(format = DateTime)]
    time: Option<String>,
}

/// Void an event.
///
/// Takes the event back: usage, quotas and invoices that are not final follow; quota that was granted for it is given
/// back. Voiding it again changes nothing. A resend of the event stays a duplicate.
#[utoipa::path(
    post, path = "/v1/events/{source}/{id}/void", tag = "Events", params(EventPath),
    responses(
        (status = 200, body = EventBody, description = "The event as it counted last"),
        (status = 404, body = ProblemBody, description = "There is no such event"),
        (status = 503, body = ProblemBody, description = "Try again later"),
    ),
    security(("api_key" = ["ingest"])),
)]
pub(crate) async fn void(
    State(state): State<IngestState>,
    caller: Caller,
    path: Named,
) -> Reply<Json<EventBody>> {
    caller.require(Scope::Ingest)?;
    let path = named(path)?;
    Ok(Json(
        correct(&state, caller.tenant, &path, Correction::Void).await?,
    ))
}

/// Amend an event.
///
/// Replaces the event's `data`, its `time`, or both; what is not sent stays. Usage, quotas and invoices that are not
/// final follow. A resend of the event as it was sent first stays a duplicate.
#[utoipa::path(
    post, path = "/v1/events/{source}/{id}/amend", tag = "Events", params(EventPath),
    request_body(content = AmendInput, content_type = "application/json"),
    responses(
        (status = 200, body = EventBody, description = "The event as it counts now"),
        (status = 404, body = ProblemBody, description = "There is no such event"),
        (status = 409, body = ProblemBody, description = "The event was voided"),
        (status = 422, body = ProblemBody, description = "The amendment is invalid"),
        (status = 503, body = ProblemBody, description = "Try again later"),
    ),
    security(("api_key" = ["ingest"])),
)]
pub(crate) async fn amend(
    State(state): State<IngestState>,
    caller: Caller,
    path: Named,
    request: Request,
) -> Reply<Json<EventBody>> {
    caller.require(Scope::Ingest)?;
    let path = named(path)?;
    let (media, encoding) = content::of(request.headers())?;
    if media != Media::Json {
        return Err(Problem::new(Code::UnsupportedMediaType, "send application/json").into());
    }
    let tenant = caller.tenant;
    let mut ticket = state.admission().ticket(tenant);
    let body = whole::read(&state, request, encoding, CONTROL_BODY_BYTES_MAX, &mut ticket).await?;
    let now = state.clock.now(tenant);
    let change = read_amendment(&body, now)?;
    if let Correction::Amend { time: Some(time), .. } = &change {
        check_kept(*time, state.horizon(now))?;
    }
    Ok(Json(correct(&state, tenant, &path, change).await?))
}

fn named(path: Named) -> Result<EventPath, Problem> {
    match path {
        Ok(Path(path)) => Ok(path),
        Err(rejection) => Err(Problem::new(Code::InvalidRequest, rejection.body_text())),
    }
}

async fn correct(
    state: &IngestState,
    tenant: TenantId,
    path: &EventPath,
    change: Correction,
) -> Result<EventBody, Problem> {
    let name = state.key.name(tenant, &path.source, &path.id);
    let known = state
        .intake
        .correct(name, change, state.clock.now(tenant))
        .await?;
    let event = known.as_ref().map(EventBody::of_record).transpose()?.flatten();
    event.ok_or_else(|| {
        let detail = format!("there is no event \"{}\" of source \"{}\"", path.id, path.source);
        Problem::new(Code::NotFound, detail)
    })
}
