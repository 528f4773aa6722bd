use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::problem::{Code, Problem};

use crate::Failure;

/// The id of a request, as in its answer's `x-request-id` and in the logs.
#[derive(Debug, Clone)]
pub struct RequestId(pub Arc<str>);

/// Who calls: set by the server's authentication, read by handlers as an extractor.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The tenant that the key belongs to.
    pub tenant: TenantId,
    /// The key's id, for the audit log.
    pub key_id: Arc<str>,
    /// What the key may do.
    pub scopes: Arc<BTreeSet<Scope>>,
    /// The request's id.
    pub request_id: RequestId,
}

impl Caller {
    /// An error unless the key has `scope`; `Admin` has all.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin) {
            return Ok(());
        }
        let name = serde_json::to_string(&scope).unwrap_or_default();
        Err(Problem::new(
            Code::Forbidden,
            format!("this key lacks the scope {name}"),
        ))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let missing = || {
            Problem::new(
                Code::Unauthorized,
                "send a valid API key: Authorization: Bearer <key>",
            )
        };
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| missing().into())
    }
}
