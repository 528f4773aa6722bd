use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::port::control::{Answer, Change, Idempotent};
use turnpike_domain::problem::Problem;
use turnpike_domain::time::Clock;

use crate::{Caller, Failure, Idempotency};

/// Who makes a changing call, and how a repeat of it is told: the way from a request to a [`Change`].
///
/// ```ignore
/// async fn put(State(s): State<S>, changing: Changing, Path(key): Path<String>, JsonBody(body): JsonBody<Body>)
///     -> Reply<Answered> {
///     changing.require(Scope::Admin)?;
///     let change = changing.change(s.clock.as_ref(), &body);
///     Ok(Answered(s.store.change(change, Box::new(move |state| rule(state, key, body))).await?))
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Changing {
    /// Who calls.
    pub caller: Caller,
    idempotency: Option<String>,
    /// Method, path and query.
    target: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Changing {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let Idempotency(idempotency) = Idempotency::from_request_parts(parts, state).await?;
        let target = format!(
            "{} {}",
            parts.method,
            parts.uri.path_and_query().map_or("/", |path| path.as_str())
        );
        Ok(Self {
            caller,
            idempotency,
            target,
        })
    }
}

impl Changing {
    /// An error unless the key has `scope`.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        self.caller.require(scope)
    }

    /// The tenant that calls.
    pub fn tenant(&self) -> TenantId {
        self.caller.tenant
    }

    /// The change that this call with `body` asks for, now by its tenant's clock. For a call without a body pass `&()`.
    pub fn change<B: Serialize>(&self, clock: &dyn Clock, body: &B) -> Change {
        Change {
            tenant: self.caller.tenant,
            actor: self.caller.key_id.clone(),
            request_id: self.caller.request_id.0.clone(),
            at: clock.now(self.caller.tenant),
            recorded_at: clock.machine_now(),
            idempotency: self.idempotency.as_ref().map(|key| Idempotent {
                key: key.clone(),
                request_hash: self.request_hash(body),
            }),
        }
    }

    /// Hash of method, path and body; the body as it was understood, so that spelling does not matter.
    fn request_hash<B: Serialize>(&self, body: &B) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.target.len() as u64).to_le_bytes());
        hasher.update(self.target.as_bytes());
        // What was read from JSON can be written as JSON; were it not so, all such bodies would share one hash.
        hasher.update(&serde_json::to_vec(body).unwrap_or_default());
        *hasher.finalize().as_bytes()
    }
}

/// An [`Answer`] on its way out. A repeat is marked by the header `idempotent-replayed: true`.
#[derive(Debug, Clone)]
pub struct Answered(pub Answer);

impl IntoResponse for Answered {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = if self.0.body.is_null() {
            status.into_response()
        } else {
            let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            (status, [json], self.0.body.to_string()).into_response()
        };
        if self.0.repeated {
            let name = HeaderName::from_static("idempotent-replayed");
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static("true"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RequestId;
    use serde_json::json;

    fn changing(target: &str) -> Changing {
        Changing {
            caller: Caller {
                tenant: TenantId(1),
                key_id: "k".into(),
                scopes: std::sync::Arc::default(),
                request_id: RequestId("r".into()),
            },
            idempotency: Some("once".to_owned()),
            target: target.to_owned(),
        }
    }

    #[test]
    fn target_and_body_make_the_hash() {
        let hash = |target: &str, body| changing(target).request_hash(&body);
        assert_eq!(hash("PUT /a", json!({"x": 1})), hash("PUT /a", json!({"x": 1})));
        assert_ne!(hash("PUT /a", json!({"x": 1})), hash("PUT /a", json!({"x": 2})));
        assert_ne!(hash("PUT /a", json!({"x": 1})), hash("PUT /b", json!({"x": 1})));
        assert_ne!(hash("PUT /a", json!("b")), hash("PUT /a\"b\"", json!(null)));
    }

    #[test]
    fn a_repeat_is_marked_and_nothing_has_no_body() {
        let response = Answered(Answer {
            status: 204,
            body: serde_json::Value::Null,
            repeated: true,
        })
        .into_response();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert_eq!(response.headers()["idempotent-replayed"], "true");
        assert!(!response.headers().contains_key(header::CONTENT_TYPE));
    }
}
