use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::limits::{JSON_DEPTH_MAX, QUOTA_BATCH_MAX};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_http::{Caller, JsonBytes, Params, ProblemBody, Reply, SentDecimal};

use super::answer::{ANSWER_BYTES, QuotaAnswer, respond};
use super::written::push_answer;
use crate::Enforcer;
use crate::consume::{Asked, Consume};

/// How refusals are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum StatusMode {
    /// 200 with `allowed: false`.
    #[default]
    Answer,
    /// 429.
    Strict,
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct StatusQuery {
    /// `strict`: a refusal is 429 with `Retry-After`: the seconds to the reset of the limit that refused, or to the
    /// recurrence of a grant that raises it enough, where that comes first. Where no waiting helps, `retryable` is false.
    #[serde(default)]
    #[param(inline)]
    status: StatusMode,
}

impl StatusQuery {
    pub(super) fn strict(&self) -> bool {
        self.status == StatusMode::Strict
    }
}

/// A question.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckBody<'a> {
    /// The customer's key.
    #[serde(borrow)]
    #[schema(value_type = String)]
    customer: Cow<'a, str>,
    /// The feature's key.
    #[serde(borrow)]
    #[schema(value_type = String)]
    feature: Cow<'a, str>,
    /// How much; 1 unless said, 0 to see the figures.
    #[serde(default = "one")]
    #[schema(value_type = SentDecimal)]
    amount: Quantity,
}

impl CheckBody<'_> {
    fn asked(&self, tenant: TenantId) -> Asked<'_> {
        Asked {
            tenant,
            customer: &self.customer,
            feature: &self.feature,
            amount: self.amount,
        }
    }
}

/// A consume.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConsumeBody<'a> {
    /// Its id, 1 to 512 bytes: the id of the event that it becomes. The same call again answers as it did first.
    #[serde(borrow)]
    #[schema(value_type = String)]
    id: Cow<'a, str>,
    /// The customer's key.
    #[serde(borrow)]
    #[schema(value_type = String)]
    customer: Cow<'a, str>,
    /// The feature's key.
    #[serde(borrow)]
    #[schema(value_type = String)]
    feature: Cow<'a, str>,
    /// How much, above 0; 1 unless said.
    #[serde(default = "one")]
    #[schema(value_type = SentDecimal)]
    amount: Quantity,
    /// The event's other data.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>)]
    properties: Option<&'a RawValue>,
}

pub(super) const fn one() -> Quantity {
    Quantity::ONE
}

/// The text of `properties`, which must be an object that is not nested too deeply.
pub(super) fn object(properties: Option<&RawValue>) -> Result<&str, Problem> {
    let text = properties.map_or("{}", RawValue::get).trim();
    if !text.starts_with('{') {
        return Err(Problem::invalid("/properties", "must be a JSON object"));
    }
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > JSON_DEPTH_MAX {
        return Err(Problem::new(
            Code::TooDeep,
            format!("/properties is nested deeper than {JSON_DEPTH_MAX} levels"),
        ));
    }
    Ok(text)
}

/// Whether a customer may do this now; nothing is consumed.
#[utoipa::path(
    post, path = "/v1/quota/check", tag = "Quotas",
    params(StatusQuery), request_body = CheckBody,
    responses(
        (status = 200, description = "The decision", body = QuotaAnswer),
        (status = 404, description = "No such customer or feature", body = ProblemBody),
        (status = 422, description = "Invalid", body = ProblemBody),
        (status = 429, description = "Refused, with status=strict", body = ProblemBody),
    ),
    security(("api_key" = ["check"]))
)]
pub(super) async fn check(
    State(enforcer): State<Arc<Enforcer>>,
    caller: Caller,
    Params(query): Params<StatusQuery>,
    body: JsonBytes,
) -> Reply<Response<Body>> {
    caller.require(Scope::Check)?;
    let body: CheckBody<'_> = body.read()?;
    let outcome = enforcer.check(body.asked(caller.tenant)).await?;
    Ok(respond(&outcome, query.strict(), &caller))
}

/// Decides and records usage in one durable step, once per id.
#[utoipa::path(
    post, path = "/v1/quota/consume", tag = "Quotas",
    params(StatusQuery), request_body = ConsumeBody,
    responses(
        (status = 200, description = "The decision; granted means durable", body = QuotaAnswer),
        (status = 404, description = "No such customer or feature", body = ProblemBody),
        (status = 409, description = "The id was used for something else", body = ProblemBody),
        (status = 422, description = "Invalid, or the feature's meter would not count it", body = ProblemBody),
        (status = 429, description = "Refused, with status=strict", body = ProblemBody),
        (status = 503, description = "Nothing was kept; try again", body = ProblemBody),
    ),
    security(("api_key" = ["check"]))
)]
pub(super) async fn consume(
    State(enforcer): State<Arc<Enforcer>>,
    caller: Caller,
    Params(query): Params<StatusQuery>,
    body: JsonBytes,
) -> Reply<Response<Body>> {
    caller.require(Scope::Check)?;
    let body: ConsumeBody<'_> = body.read()?;
    let asked = Asked {
        tenant: caller.tenant,
        customer: &body.customer,
        feature: &body.feature,
        amount: body.amount,
    };
    let properties = object(body.properties)?;
    let outcome = enforcer
        .consume(Consume {
            id: &body.id,
            asked,
            properties,
        })
        .await?;
    Ok(respond(&outcome, query.strict(), &caller))
}

/// Several checks.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchBody<'a> {
    /// At most 1,000.
    #[serde(borrow)]
    checks: Vec<CheckBody<'a>>,
}

/// The results of a batch, in the order of its checks.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "it only describes what is written")]
pub(super) struct BatchAnswer {
    /// One for each check.
    results: Vec<BatchResult>,
}

/// The answer to one check, or its error.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it only describes what is written")]
pub(super) enum BatchResult {
    /// The decision.
    Answer(Box<QuotaAnswer>),
    /// Why there is none.
    Failed {
        /// The problem.
        error: ProblemBody,
    },
}

/// Many checks at once; each is decided for itself.
#[utoipa::path(
    post, path = "/v1/quota/batch", tag = "Quotas", request_body = BatchBody,
    responses(
        (status = 200, description = "The decisions, in order", body = BatchAnswer),
        (status = 422, description = "Invalid", body = ProblemBody),
    ),
    security(("api_key" = ["check"]))
)]
pub(super) async fn batch(
    State(enforcer): State<Arc<Enforcer>>,
    caller: Caller,
    body: JsonBytes,
) -> Reply<Response<Body>> {
    caller.require(Scope::Check)?;
    let body: BatchBody<'_> = body.read()?;
    if body.checks.len() > QUOTA_BATCH_MAX {
        return Err(Problem::invalid("/checks", format!("has more than {QUOTA_BATCH_MAX} checks")).into());
    }
    let mut json = Vec::with_capacity(ANSWER_BYTES * body.checks.len());
    json.extend_from_slice(br#"{"results":["#);
    for (at, check) in body.checks.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        match enforcer.check(check.asked(caller.tenant)).await {
            Ok(outcome) => push_answer(&outcome, &mut json),
            Err(problem) => push_failure(&problem, &mut json),
        }
    }
    json.extend_from_slice(b"]}");
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

/// Appends the error of one check.
fn push_failure(problem: &Problem, json: &mut Vec<u8>) {
    json.extend_from_slice(br#"{"error":"#);
    // No field can fail to be written.
    json.extend(serde_json::to_vec(&ProblemBody::new(problem, None)).unwrap_or_default());
    json.push(b'}');
}
