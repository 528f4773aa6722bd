use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use serde::Deserialize;
use serde_json::value::RawValue;
use turnpike_domain::identity::Scope;
use turnpike_domain::limits::RESERVATION_TTL_S_DEFAULT;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_http::{Caller, JsonBody, MaybeJson, Params, ProblemBody, Reply, SentDecimal};

use super::answer::{QuotaAnswer, respond};
use super::quota::{StatusQuery, object, one};
use crate::Enforcer;
use crate::consume::{Asked, Consume};
use crate::outcome::Outcome;

/// A reservation to make.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReserveBody {
    /// Its id, 1 to 512 bytes: the id of the event that its commit becomes.
    id: String,
    /// The customer's key.
    customer: String,
    /// The feature's key.
    feature: String,
    /// How much is held, above 0; 1 unless said.
    #[serde(default = "one")]
    #[schema(value_type = SentDecimal)]
    amount: Quantity,
    /// For how many seconds: 1 to 86,400; 60 unless said.
    #[serde(default = "ttl")]
    #[schema(minimum = 1, maximum = 86_400)]
    ttl_s: u32,
    /// The other data of the event that its commit becomes.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    properties: Option<Box<RawValue>>,
}

const fn ttl() -> u32 {
    RESERVATION_TTL_S_DEFAULT
}

/// What of a reservation is used.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CommitBody {
    /// How much: less, the same, or more within the limits; what was reserved unless said.
    #[serde(default)]
    #[schema(value_type = Option<SentDecimal>)]
    amount: Option<Quantity>,
}

/// Runs `call` to its end even when the caller hangs up: what it wrote and what it holds must not part.
async fn detached(
    call: impl Future<Output = Result<Outcome, Problem>> + Send + 'static,
) -> Result<Outcome, Problem> {
    let ended = tokio::spawn(call).await;
    ended.unwrap_or_else(|_| Err(Problem::new(Code::ShuttingDown, "the server is stopping")))
}

/// Holds an amount for a while, durably.
#[utoipa::path(
    post, path = "/v1/quota/reservations", tag = "Quotas",
    params(StatusQuery), request_body = ReserveBody,
    responses(
        (status = 200, description = "The decision; granted means held", body = QuotaAnswer),
        (status = 404, description = "No such customer or feature", body = ProblemBody),
        (status = 409, description = "The id was used for something else, or committed", body = ProblemBody),
        (status = 422, description = "Invalid", body = ProblemBody),
        (status = 429, description = "Refused, with status=strict", body = ProblemBody),
        (status = 503, description = "Nothing was kept; try again", body = ProblemBody),
    ),
    security(("api_key" = ["check"]))
)]
pub(super) async fn reserve(
    State(enforcer): State<Arc<Enforcer>>,
    caller: Caller,
    Params(query): Params<StatusQuery>,
    JsonBody(body): JsonBody<ReserveBody>,
) -> Reply<Response<Body>> {
    caller.require(Scope::Check)?;
    let tenant = caller.tenant;
    let outcome = detached(async move {
        let asked = Asked {
            tenant,
            customer: &body.customer,
            feature: &body.feature,
            amount: body.amount,
        };
        let properties = object(body.properties.as_deref())?;
        enforcer
            .reserve(
                Consume {
                    id: &body.id,
                    asked,
                    properties,
                },
                body.ttl_s,
            )
            .await
    });
    Ok(respond(&outcome.await?, query.strict(), &caller))
}

/// Turns a reservation into usage: less, the same, or more within the limits. After its end it is decided anew.
#[utoipa::path(
    post, path = "/v1/quota/reservations/{id}/commit", tag = "Quotas",
    params(("id" = String, Path, description = "The reservation"), StatusQuery), request_body = Option<CommitBody>,
    responses(
        (status = 200, description = "The decision; granted means durable", body = QuotaAnswer),
        (status = 404, description = "No such reservation", body = ProblemBody),
        (status = 409, description = "Released before, or committed with another amount", body = ProblemBody),
        (status = 422, description = "Invalid", body = ProblemBody),
        (status = 429, description = "Refused, with status=strict", body = ProblemBody),
        (status = 503, description = "Nothing was kept; try again", body = ProblemBody),
    ),
    security(("api_key" = ["check"]))
)]
pub(super) async fn commit(
    State(enforcer): State<Arc<Enforcer>>,
    caller: Caller,
    Path(id): Path<String>,
    Params(query): Params<StatusQuery>,
    MaybeJson(body): MaybeJson<CommitBody>,
) -> Reply<Response<Body>> {
    caller.require(Scope::Check)?;
    let tenant = caller.tenant;
    let outcome = detached(async move { enforcer.commit(tenant, &id, body.amount).await });
    Ok(respond(&outcome.await?, query.strict(), &caller))
}

/// Gives a reservation back.
#[utoipa::path(
    post, path = "/v1/quota/reservations/{id}/release", tag = "Quotas",
    params(("id" = String, Path, description = "The reservation")),
    responses(
        (status = 200, description = "It is released, or had ended", body = QuotaAnswer),
        (status = 404, description = "No such reservation", body = ProblemBody),
        (status = 409, description = "Committed before", body = ProblemBody),
        (status = 503, description = "It still stands; try again", body = ProblemBody),
    ),
    security(("api_key" = ["check"]))
)]
pub(super) async fn release(
    State(enforcer): State<Arc<Enforcer>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Reply<Response<Body>> {
    caller.require(Scope::Check)?;
    let tenant = caller.tenant;
    let outcome = detached(async move { enforcer.release(tenant, &id).await });
    Ok(respond(&outcome.await?, false, &caller))
}
