//! The key of a request, and what is noted where there is no valid one.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use turnpike_domain::catalog::ApiKey;
use turnpike_domain::port::control::{ApiKeys, KeyRefusal, SecurityEvent};
use turnpike_domain::problem::{Code, Problem};

/// Takes note of a security event; quick and bounded.
pub(crate) type NoteSecurity = Arc<dyn Fn(SecurityEvent) + Send + Sync>;

/// Why a key does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyFault {
    /// None was sent, or not as `Bearer`.
    Missing,
    /// One was sent that is not valid.
    Refused(KeyRefusal),
}

impl KeyFault {
    /// The answer: the same words whatever is wrong with a key, so that it tells nothing about which keys exist.
    pub(crate) fn problem(self) -> Problem {
        let detail = match self {
            Self::Missing => "send an API key: Authorization: Bearer <key>",
            Self::Refused(_) => "this API key is not valid",
        };
        Problem::new(Code::Unauthorized, detail)
    }

    /// Its name in the audit log; none for a call that does not try.
    pub(crate) const fn action(self) -> Option<&'static str> {
        match self {
            Self::Missing => None,
            Self::Refused(KeyRefusal::Unknown) => Some("security.wrong_key"),
            Self::Refused(KeyRefusal::Expired) => Some("security.expired_key"),
            Self::Refused(KeyRefusal::Revoked) => Some("security.revoked_key"),
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
    // Not `to_str`, which is for ASCII alone: a chosen key may have any printable characters.
    let (scheme, key) = std::str::from_utf8(first.as_bytes()).ok()?.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}

/// The valid key of a request.
pub(crate) fn authenticate(keys: &dyn ApiKeys, headers: &HeaderMap) -> Result<Arc<ApiKey>, KeyFault> {
    let text = bearer(headers).ok_or(KeyFault::Missing)?;
    keys.authenticate(text).map_err(KeyFault::Refused)
}

#[cfg(test)]
mod tests {
    use turnpike_domain::identity::{Scope, TenantId};
    use turnpike_domain::time::Timestamp;

    use super::*;

    struct One;

    impl ApiKeys for One {
        fn authenticate(&self, presented: &str) -> Result<Arc<ApiKey>, KeyRefusal> {
            match presented {
                "secret" => Ok(Arc::new(ApiKey {
                    id: "k1".to_owned(),
                    tenant: TenantId(1),
                    name: String::new(),
                    hash: [0; 32],
                    scopes: [Scope::Read].into(),
                    created: Timestamp::EPOCH,
                    expires: None,
                    revoked: None,
                    replaced_by: None,
                    calls_per_second: None,
                })),
                "expired" => Err(KeyRefusal::Expired),
                _ => Err(KeyRefusal::Unknown),
            }
        }

        fn keys(&self, _: TenantId) -> Vec<Arc<ApiKey>> {
            Vec::new()
        }

        fn key(&self, _: TenantId, _: &str) -> Option<Arc<ApiKey>> {
            None
        }
    }

    fn fault(values: &[&str]) -> Option<KeyFault> {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = axum::http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(header::AUTHORIZATION, value);
        }
        authenticate(&One, &headers).err()
    }

    #[test]
    fn headers_are_read_strictly() {
        assert_eq!(fault(&["Bearer secret"]), None);
        assert_eq!(fault(&["bearer  secret "]), None);
        assert_eq!(
            fault(&["Bearer ключ с пробелом"]),
            Some(KeyFault::Refused(KeyRefusal::Unknown)),
            "read as a key, though not a valid one"
        );
        let no_bearer = [
            &[][..],
            &["secret"],
            &["Basic secret"],
            &["Bearer"],
            &["Bearer "],
            &["Bearer secret", "Bearer secret"],
        ];
        for wrong in no_bearer {
            assert_eq!(fault(wrong), Some(KeyFault::Missing), "{wrong:?}");
        }
        assert_eq!(
            fault(&["Bearer secrets"]),
            Some(KeyFault::Refused(KeyRefusal::Unknown))
        );
        assert_eq!(
            fault(&["Bearer expired"]),
            Some(KeyFault::Refused(KeyRefusal::Expired))
        );
    }

    #[test]
    fn an_answer_does_not_tell_which_keys_exist() {
        let problems: Vec<_> = [KeyRefusal::Unknown, KeyRefusal::Expired, KeyRefusal::Revoked]
            .map(|refusal| KeyFault::Refused(refusal).problem())
            .into();
        assert!(problems.windows(2).all(|pair| pair[0] == pair[1]));
    }
}
