//! Limits of calls per second, of keys and of tenants, and the headers that tell them.

use std::fmt::Write as _;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use turnpike_domain::catalog::{ApiKey, Tenant};
use turnpike_domain::problem::{Code, Problem};
use turnpike_http::Rates;

use crate::config::LimitsConfig;

const SECOND_US: u64 = 1_000_000;

/// Takes calls from the limits of their key and tenant.
pub(crate) struct CallLimits {
    config: LimitsConfig,
    by_key: Rates<String>,
    by_tenant: Rates<u32>,
}

/// A limit after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit {
    whose: &'static str,
    per_second: u32,
    left: u32,
    /// Seconds until more is left.
    wait_s: u32,
}

/// The limits that a call was taken from: of its key, of its tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standing([Option<Limit>; 2]);

impl CallLimits {
    pub(crate) fn new(config: LimitsConfig) -> Self {
        Self {
            config,
            by_key: Rates::new(),
            by_tenant: Rates::new(),
        }
    }

    /// Takes one call at `now_us`, and notes in `standing` what is left; a problem when a limit is reached.
    pub(crate) fn take(
        &self,
        (key, tenant): (&ApiKey, &Tenant),
        now_us: u64,
        standing: &mut Standing,
    ) -> Result<(), Problem> {
        let per_second = key.calls_per_second.unwrap_or(self.config.key_calls_per_second);
        if per_second > 0 {
            let taken = self.by_key.take(&key.id, per_second, SECOND_US, now_us);
            standing.note(0, "key", per_second, taken)?;
        }
        let per_second = tenant
            .calls_per_second
            .unwrap_or(self.config.tenant_calls_per_second);
        if per_second > 0 {
            let taken = self.by_tenant.take(&key.tenant.0, per_second, SECOND_US, now_us);
            standing.note(1, "tenant", per_second, taken)?;
        }
        Ok(())
    }
}

impl Standing {
    fn note(
        &mut self,
        at: usize,
        whose: &'static str,
        per_second: u32,
        taken: Result<u32, u32>,
    ) -> Result<(), Problem> {
        self.0[at] = Some(Limit {
            whose,
            per_second,
            left: taken.unwrap_or(0),
            wait_s: taken.err().unwrap_or(1),
        });
        let Err(wait_s) = taken else { return Ok(()) };
        metrics::counter!("turnpike_calls_limited_total", "limit" => whose).increment(1);
        Err(Problem {
            retry_after_s: Some(wait_s),
            ..Problem::new(
                Code::RateLimited,
                format!("more than {per_second} calls per second of this {whose}"),
            )
        })
    }

    /// Adds `RateLimit-Policy` and `RateLimit` beside those that a handler set: both are lists.
    /// Source: draft-ietf-httpapi-ratelimit-headers-10.
    pub(crate) fn set_headers(self, headers: &mut HeaderMap) {
        if self == Self::default() {
            return;
        }
        let (mut policy, mut standing) = (String::new(), String::new());
        for limit in self.0.into_iter().flatten() {
            let comma = if policy.is_empty() { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(policy, "{comma}\"{}\";q={};w=1", limit.whose, limit.per_second);
            let _ = write!(
                standing,
                "{comma}\"{}\";r={};t={}",
                limit.whose, limit.left, limit.wait_s
            );
        }
        for (name, value) in [("ratelimit-policy", policy), ("ratelimit", standing)] {
            if let Ok(value) = HeaderValue::from_str(&value)
                && !value.is_empty()
            {
                headers.append(HeaderName::from_static(name), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_stands_in_the_headers() {
        let mut headers = HeaderMap::new();
        Standing::default().set_headers(&mut headers);
        assert!(headers.is_empty(), "without a limit there is nothing to tell");
        let mut standing = Standing::default();
        standing.note(0, "key", 10, Ok(9)).unwrap();
        let refused = standing.note(1, "tenant", 5, Err(3)).unwrap_err();
        assert_eq!(
            (refused.code, refused.retry_after_s),
            (Code::RateLimited, Some(3))
        );
        standing.set_headers(&mut headers);
        assert_eq!(
            headers["ratelimit-policy"],
            "\"key\";q=10;w=1, \"tenant\";q=5;w=1"
        );
        assert_eq!(headers["ratelimit"], "\"key\";r=9;t=1, \"tenant\";r=0;t=3");
    }
}
