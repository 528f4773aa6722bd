use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use turnpike_domain::catalog::{LimitMode, LimitPeriod};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::quota::{Figures, Reason};
use turnpike_domain::time::Timestamp;
use turnpike_http::{Caller, ProblemBody};

use super::headers::{WITHOUT_RESET_S, seconds_to_grant, set_rate_limits};
use super::written::{push_answer, push_members};
use crate::outcome::{LimitOutcome, Outcome};
use crate::upgrade::UpgradeOption;

/// Bytes that most answers fit.
pub(super) const ANSWER_BYTES: usize = 768;
/// Headers of an answer.
const HEADERS: usize = 8;

/// The answer to a quota call. The figures describe the limit that refused, else the one with the least remaining;
/// they are null where no limit decided.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct QuotaAnswer {
    /// Whether it was granted.
    pub(super) allowed: bool,
    /// The customer.
    pub(super) customer: String,
    /// The feature.
    pub(super) feature: String,
    /// How much the limit is; null for unlimited.
    pub(super) limit: Option<Quantity>,
    /// What was used in its window.
    pub(super) used: Option<Quantity>,
    /// What is held by reservations and by calls on their way to the log.
    pub(super) reserved: Option<Quantity>,
    /// What is left below the limit; null for unlimited.
    pub(super) remaining: Option<Quantity>,
    /// What is above the limit.
    pub(super) overage: Option<Quantity>,
    /// When its window ends; null for never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) resets_at: Option<Timestamp>,
    /// Why.
    pub(super) reason: Reason,
    /// When the figures stood so.
    #[schema(value_type = String, format = DateTime)]
    pub(super) as_of: Timestamp,
    /// By how much more than the limits could be granted; 0, for one engine decides.
    #[schema(value_type = String)]
    pub(super) max_overshoot: &'static str,
    /// The value of a static feature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<String>,
    /// All limits, of the customer and of those above it.
    pub(super) limits: Vec<QuotaLimit>,
    /// For a refusal: plans and add-ons that would have allowed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upgrade_options: Option<Vec<QuotaUpgrade>>,
    /// The reservation concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reservation: Option<QuotaReservation>,
}

/// One limit as it stood.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct QuotaLimit {
    /// Whose limit it is.
    pub(super) customer: String,
    /// Its window.
    pub(super) period: LimitPeriod,
    /// What happens at it.
    pub(super) mode: LimitMode,
    /// How much; null for unlimited.
    pub(super) limit: Option<Quantity>,
    /// What was used in its window.
    pub(super) used: Quantity,
    /// What is held.
    pub(super) reserved: Quantity,
    /// What is left below it; null for unlimited.
    pub(super) remaining: Option<Quantity>,
    /// What is above it.
    pub(super) overage: Quantity,
    /// When its window ends; null for never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(super) resets_at: Option<Timestamp>,
}

/// What would have allowed a refused call.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct QuotaUpgrade {
    /// `plan` or `add_on`.
    pub(super) kind: &'static str,
    /// Its key.
    pub(super) key: String,
    /// Its current version.
    pub(super) version: u32,
    /// Whose subscription it would be for.
    pub(super) customer: String,
}

/// A reservation.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct QuotaReservation {
    /// Its id.
    pub(super) id: String,
    /// `open`, `committed`, `released` or `expired`.
    pub(super) status: &'static str,
    /// When it ends by itself, or would have.
    #[schema(value_type = String, format = DateTime)]
    pub(super) expires_at: Timestamp,
}

/// A count as a quantity. One beyond the range of quantities is shown as the greatest.
pub(super) fn quantity(parts: i128) -> Quantity {
    Quantity::from_parts(parts).unwrap_or(if parts < 0 {
        Quantity::MAX.negated()
    } else {
        Quantity::MAX
    })
}

pub(super) fn resets_at(figures: &Figures) -> Option<Timestamp> {
    (figures.resets_us != i64::MAX).then(|| Timestamp::from_micros_clamped(figures.resets_us))
}

impl From<&LimitOutcome> for QuotaLimit {
    fn from(limit: &LimitOutcome) -> Self {
        let figures = &limit.figures;
        Self {
            customer: limit.customer.as_ref().to_owned(),
            period: limit.period,
            mode: figures.mode,
            limit: figures.limit.map(quantity),
            used: quantity(figures.used()),
            reserved: quantity(figures.reserved),
            remaining: figures.remaining().map(quantity),
            overage: quantity(figures.overage()),
            resets_at: resets_at(figures),
        }
    }
}

impl From<&UpgradeOption> for QuotaUpgrade {
    fn from(option: &UpgradeOption) -> Self {
        Self {
            kind: option.kind,
            key: option.key.clone(),
            version: option.version,
            customer: option.customer.as_ref().to_owned(),
        }
    }
}

impl From<&Outcome> for QuotaAnswer {
    fn from(outcome: &Outcome) -> Self {
        let described = outcome.figures().map(|limit| &limit.figures);
        Self {
            allowed: outcome.allowed(),
            customer: outcome.customer.as_ref().to_owned(),
            feature: outcome.feature.as_ref().to_owned(),
            limit: described.and_then(|figures| figures.limit).map(quantity),
            used: described.map(|figures| quantity(figures.used())),
            reserved: described.map(|figures| quantity(figures.reserved)),
            remaining: described.and_then(Figures::remaining).map(quantity),
            overage: described.map(|figures| quantity(figures.overage())),
            resets_at: described.and_then(resets_at),
            reason: outcome.reason,
            as_of: outcome.as_of,
            max_overshoot: "0",
            value: outcome.value.clone(),
            limits: outcome.limits.iter().map(QuotaLimit::from).collect(),
            upgrade_options: (!outcome.allowed())
                .then(|| outcome.upgrade_options.iter().map(QuotaUpgrade::from).collect()),
            reservation: outcome.reservation.as_ref().map(|reservation| QuotaReservation {
                id: reservation.id.clone(),
                status: reservation.status,
                expires_at: reservation.expires_at,
            }),
        }
    }
}

/// The answer to one call: 200, or 429 for a refusal when `strict` was asked for; rate-limit headers on both.
pub(super) fn respond(outcome: &Outcome, strict: bool, caller: &Caller) -> Response<Body> {
    let mut json = Vec::with_capacity(ANSWER_BYTES);
    if outcome.allowed() || !strict {
        push_answer(outcome, &mut json);
        return finish(StatusCode::OK, "application/json", json, outcome);
    }
    let waiting = seconds_to_grant(outcome);
    let seconds = waiting.unwrap_or(WITHOUT_RESET_S);
    push_refusal(outcome, waiting, caller, &mut json);
    let mut response = finish(
        StatusCode::TOO_MANY_REQUESTS,
        "application/problem+json",
        json,
        outcome,
    );
    let seconds = HeaderValue::from(seconds);
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

/// Appends a strict refusal: a problem with the answer's own members behind its own.
fn push_refusal(outcome: &Outcome, waiting: Option<u32>, caller: &Caller, json: &mut Vec<u8>) {
    let problem = Problem::new(
        Code::QuotaRefused,
        format!("refused: {}", outcome.reason.as_str()),
    );
    let request_id = caller.request_id.0.as_ref().to_owned();
    let mut body = ProblemBody::new(&problem, Some(request_id));
    body.retryable = waiting.is_some();
    // No field can fail to be written.
    let problem = serde_json::to_string(&body).unwrap_or_default();
    json.extend_from_slice(problem.strip_suffix('}').unwrap_or_default().as_bytes());
    json.push(b',');
    push_members(outcome, json);
    json.push(b'}');
}

fn finish(status: StatusCode, kind: &'static str, json: Vec<u8>, outcome: &Outcome) -> Response<Body> {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    // With room for what all answers get.
    *response.headers_mut() = HeaderMap::with_capacity(HEADERS);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    set_rate_limits(outcome, response.headers_mut());
    response
}
