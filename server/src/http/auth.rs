//! Who calls: the API key of a request, and what follows from it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use turnpike_domain::catalog::ApiKey;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::Timestamp;

/// Finds API keys. Only hashes are kept, so the whole text of a key is what finds it; comparing hashes takes the same
/// time wherever they differ.
pub trait KeyRing: Send + Sync {
    /// The key with this text, expired and revoked ones included.
    fn find(&self, text: &str) -> Option<Arc<ApiKey>>;
}

/// An event that those who guard the installation want to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityEvent {
    /// When.
    pub at: Timestamp,
    /// The tenant and the id of the key, where a key was recognised.
    pub key: Option<(TenantId, String)>,
    /// What: `wrong_key`, `expired_key`, `revoked_key`, `missing_scope`, `suspended`.
    pub what: &'static str,
    /// Method and route template; never the query, which may hold personal data.
    pub route: String,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The request's id.
    pub request_id: String,
}

/// Keeps security events. Must not block: bounded, and what is beyond the bound is counted.
pub trait SecurityLog: Send + Sync {
    /// Keeps one.
    fn note(&self, event: SecurityEvent);
}

/// Why a key does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyFault {
    /// None was sent, or not as `Bearer`.
    Missing,
    /// No such key.
    Wrong,
    /// Past its end.
    Expired,
    /// Taken back.
    Revoked,
}

impl KeyFault {
    /// The answer: the same words for all, so that it tells nothing about which keys exist.
    pub(crate) fn problem(self) -> Problem {
        let detail = match self {
            Self::Missing => "send an API key: Authorization: Bearer <key>",
            Self::Wrong | Self::Expired | Self::Revoked => "this API key is not valid",
        };
        Problem::new(Code::Unauthorized, detail)
    }

    /// Its name among security events; none for a call that does not try.
    pub(crate) const fn security_event(self) -> Option<&'static str> {
        match self {
            Self::Missing => None,
            Self::Wrong => Some("wrong_key"),
            Self::Expired => Some("expired_key"),
            Self::Revoked => Some("revoked_key"),
        }
    }
}

/// The text of the key in `headers`: one `Authorization` header with the scheme `Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (first, second) = (all.next()?, all.next());
    if second.is_some() {
        return None;
    }
    let (scheme, key) = first.to_str().ok()?.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}

/// The valid key of a request at `now`; for a fault also the key, where it is one of ours.
pub(crate) fn authenticate(
    ring: &dyn KeyRing,
    headers: &HeaderMap,
    now: impl Fn(TenantId) -> Timestamp,
) -> Result<Arc<ApiKey>, (KeyFault, Option<Arc<ApiKey>>)> {
    let text = bearer(headers).ok_or((KeyFault::Missing, None))?;
    let key = ring.find(text).ok_or((KeyFault::Wrong, None))?;
    if key.revoked.is_some_and(|at| at <= now(key.tenant)) {
        return Err((KeyFault::Revoked, Some(key)));
    }
    if key.expires.is_some_and(|at| at <= now(key.tenant)) {
        return Err((KeyFault::Expired, Some(key)));
    }
    Ok(key)
}

/// Every scope.
pub const ALL_SCOPES: [Scope; 5] = [
    Scope::Ingest,
    Scope::Check,
    Scope::Read,
    Scope::Billing,
    Scope::Admin,
];

#[cfg(test)]
mod tests {
    use super::*;

    struct One(ApiKey);

    impl KeyRing for One {
        fn find(&self, text: &str) -> Option<Arc<ApiKey>> {
            (text == "secret").then(|| Arc::new(self.0.clone()))
        }
    }

    fn key() -> ApiKey {
        ApiKey {
            id: "k1".to_owned(),
            tenant: TenantId(1),
            name: String::new(),
            hash: [0; 32],
            scopes: [Scope::Read].into(),
            created: Timestamp::EPOCH,
            expires: None,
            revoked: None,
            calls_per_second: None,
        }
    }

    fn headers(values: &[&str]) -> HeaderMap {
        let pairs = values
            .iter()
            .map(|value| (header::AUTHORIZATION, value.parse().unwrap()));
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    }

    fn outcome(ring: &dyn KeyRing, values: &[&str]) -> Option<KeyFault> {
        let now = |_| Timestamp::from_minute(100);
        authenticate(ring, &headers(values), now)
            .err()
            .map(|(fault, _)| fault)
    }

    #[test]
    fn headers_are_read_strictly() {
        let ring = One(key());
        assert_eq!(outcome(&ring, &["Bearer secret"]), None);
        assert_eq!(outcome(&ring, &["bearer  secret "]), None);
        for wrong in [
            &[][..],
            &["secret"],
            &["Basic secret"],
            &["Bearer"],
            &["Bearer "],
            &["Bearer secret", "Bearer secret"],
        ] {
            assert_eq!(outcome(&ring, wrong), Some(KeyFault::Missing), "{wrong:?}");
        }
        assert_eq!(outcome(&ring, &["Bearer secrets"]), Some(KeyFault::Wrong));
        assert_eq!(outcome(&ring, &["Bearer Secret"]), Some(KeyFault::Wrong));
    }

    #[test]
    fn keys_end() {
        let at = |minute| Some(Timestamp::from_minute(minute));
        for (expires, revoked, expected) in [
            (at(101), at(101), None),
            (at(100), None, Some(KeyFault::Expired)),
            (None, at(100), Some(KeyFault::Revoked)),
            (at(99), at(99), Some(KeyFault::Revoked)),
        ] {
            let ring = One(ApiKey {
                expires,
                revoked,
                ..key()
            });
            assert_eq!(outcome(&ring, &["Bearer secret"]), expected);
        }
    }

    #[test]
    fn an_answer_does_not_tell_which_keys_exist() {
        assert_eq!(KeyFault::Wrong.problem(), KeyFault::Expired.problem());
        assert_eq!(KeyFault::Wrong.problem(), KeyFault::Revoked.problem());
    }
}
