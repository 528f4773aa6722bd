//! `RateLimit-Policy` and `RateLimit`, as draft-ietf-httpapi-ratelimit-headers-10 names them: structured lists with one
//! item per limit; `q` and `w` are quota and window in seconds, `r` and `t` what remains and the seconds to the reset.

use std::fmt::Write as _;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use turnpike_domain::quantity::UNIT;

use crate::outcome::{LimitOutcome, Outcome};

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

fn seconds_to_reset(outcome: &Outcome, limit: &LimitOutcome) -> Option<i64> {
    let resets_us = Some(limit.figures.resets_us).filter(|us| *us != i64::MAX)?;
    Some(seconds_to(outcome, resets_us))
}

/// Whole seconds until an instant, none where it is over.
fn seconds_to(outcome: &Outcome, time_us: i64) -> i64 {
    let left_us = time_us - outcome.as_of.micros();
    (left_us.max(0) + 999_999) / 1_000_000
}

/// Adds the headers; nothing where no limit decides.
pub(super) fn set_rate_limits(outcome: &Outcome, headers: &mut HeaderMap) {
    let (mut policy, mut standing) = (String::with_capacity(64), String::with_capacity(64));
    for limit in outcome.limits.iter().take(LIMITS_MAX) {
        let Some(quota) = limit.figures.limit else {
            continue;
        };
        let remaining = limit.figures.remaining().unwrap_or_default();
        let comma = if policy.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        for (text, key, count) in [(&mut policy, 'q', quota), (&mut standing, 'r', remaining)] {
            text.push_str(comma);
            push_name(outcome, limit, text);
            let _ = write!(text, ";{key}={}", integer(count));
        }
        if let Some(seconds) = seconds_to_reset(outcome, limit) {
            let window_s = (limit.window.end.micros() - limit.window.start.micros()) / 1_000_000;
            let _ = write!(policy, ";w={window_s}");
            let _ = write!(standing, ";t={seconds}");
        }
    }
    for (header, value) in [("ratelimit-policy", policy), ("ratelimit", standing)] {
        if !value.is_empty()
            && let Ok(value) = HeaderValue::from_maybe_shared(value.into_bytes())
        {
            headers.insert(HeaderName::from_static(header), value);
        }
    }
}

/// Writes `"month-hard"`, or `"acme:month-hard"` for the limit of a customer above. Keys have no character that needs
/// escaping.
fn push_name(outcome: &Outcome, limit: &LimitOutcome, to: &mut String) {
    to.push('"');
    if limit.customer != outcome.customer {
        to.extend([&*limit.customer, ":"]);
    }
    to.extend([limit.period.as_str(), "-", limit.figures.mode.as_str(), "\""]);
}

/// Whole units of a count, cut, within what a structured field can say.
fn integer(parts: i128) -> u64 {
    u64::try_from((parts / UNIT).clamp(0, INTEGER_MAX)).unwrap_or_default()
}
