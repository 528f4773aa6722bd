//! `RateLimit-Policy` and `RateLimit`, as draft-ietf-httpapi-ratelimit-headers-10 names them: structured lists with one
//! item per limit; `q` and `w` are quota and window in seconds, `r` and `t` what remains and the seconds to the reset.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use turnpike_domain::quantity::{UNIT, push_whole};

use crate::outcome::{LimitOutcome, Outcome};

static POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static STANDING: HeaderName = HeaderName::from_static("ratelimit");

/// The greatest integer of a structured field (RFC 9651).
const INTEGER_MAX: i128 = 999_999_999_999_999;
/// Limits that are told in headers; the body tells all.
const LIMITS_MAX: usize = 16;
/// Seconds that a 429 names where no waiting ends the refusal, for each names some: a time in which a plan may be changed.
pub(super) const WITHOUT_RESET_S: u32 = 3_600;

/// Seconds after which a refused call may be granted; `None` where no waiting helps: somebody has to change something first,
/// or ask for less.
pub(super) fn seconds_to_grant(outcome: &Outcome) -> Option<u32> {
    let granted = seconds_to(outcome, outcome.granted_at_us?);
    // A commit beyond an open reservation counts in the windows that held it, until that ends.
    let open = outcome.reservation.iter().filter(|one| one.status == "open");
    let ends = open.map(|one| seconds_to(outcome, one.expires_at.micros()));
    Some(u32::try_from(ends.fold(granted.max(1), i64::max)).unwrap_or(u32::MAX))
}

fn seconds_to_reset(outcome: &Outcome, limit: &LimitOutcome) -> Option<u64> {
    let resets_us = Some(limit.figures.resets_us).filter(|us| *us != i64::MAX)?;
    Some(seconds_to(outcome, resets_us).unsigned_abs())
}

/// Whole seconds until an instant, none where it is over.
fn seconds_to(outcome: &Outcome, time_us: i64) -> i64 {
    let left_us = time_us - outcome.as_of.micros();
    (left_us.max(0) + 999_999) / 1_000_000
}

/// Adds the headers; nothing where no limit decides.
pub(super) fn set_rate_limits(outcome: &Outcome, headers: &mut HeaderMap) {
    let (mut policy, mut standing) = (Vec::with_capacity(64), Vec::with_capacity(64));
    for limit in outcome.limits.iter().take(LIMITS_MAX) {
        let Some(quota) = limit.figures.limit else {
            continue;
        };
        let remaining = limit.figures.remaining().unwrap_or_default();
        let comma = if policy.is_empty() { "" } else { ", " };
        for (text, key, count) in [(&mut policy, ";q=", quota), (&mut standing, ";r=", remaining)] {
            text.extend_from_slice(comma.as_bytes());
            push_name(outcome, limit, text);
            push_parameter(key, integer(count), text);
        }
        if let Some(seconds) = seconds_to_reset(outcome, limit) {
            let window_us = limit.window.end.micros() - limit.window.start.micros();
            push_parameter(";w=", window_us.unsigned_abs() / 1_000_000, &mut policy);
            push_parameter(";t=", seconds, &mut standing);
        }
    }
    for (header, value) in [(&POLICY, policy), (&STANDING, standing)] {
        if !value.is_empty()
            && let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value))
        {
            headers.insert(header, value);
        }
    }
}

fn push_parameter(key: &str, number: u64, to: &mut Vec<u8>) {
    to.extend_from_slice(key.as_bytes());
    push_whole(number, to);
}

/// Writes `"month-hard"`, or `"acme:month-hard"` for the limit of a customer above. Keys have no character that needs
/// escaping.
fn push_name(outcome: &Outcome, limit: &LimitOutcome, to: &mut Vec<u8>) {
    to.push(b'"');
    if limit.customer != outcome.customer {
        to.extend_from_slice(limit.customer.as_bytes());
        to.push(b':');
    }
    to.extend_from_slice(limit.period.as_str().as_bytes());
    to.push(b'-');
    to.extend_from_slice(limit.figures.mode.as_str().as_bytes());
    to.push(b'"');
}

/// Whole units of a count, cut, within what a structured field can say.
fn integer(parts: i128) -> u64 {
    u64::try_from((parts / UNIT).clamp(0, INTEGER_MAX)).unwrap_or_default()
}
