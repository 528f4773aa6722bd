use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use turnpike_domain::problem::{FieldError, Problem};

/// What a handler returns.
pub type Reply<T> = Result<T, Failure>;

/// A [`Problem`] on its way out. The server's outermost layer adds the request id.
#[derive(Debug, Clone)]
pub struct Failure(pub Problem);

impl<P: Into<Problem>> From<P> for Failure {
    fn from(problem: P) -> Self {
        Self(problem.into())
    }
}

/// A failure as RFC 9457 has it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct ProblemBody {
    /// Stable reference of the code's documentation page.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status's words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong.
    pub detail: String,
    /// The stable code.
    pub code: String,
    /// Whether the same call may succeed later.
    pub retryable: bool,
    /// The request, as it stands in the logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The fields concerned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl ProblemBody {
    /// The body of `problem` in the answer to the request `request_id`.
    pub fn new(problem: &Problem, request_id: Option<String>) -> Self {
        let status = problem.code.status();
        let title = StatusCode::from_u16(status)
            .ok()
            .and_then(|s| s.canonical_reason())
            .unwrap_or("Error");
        Self {
            kind: format!("/docs/errors/{}", problem.code.slug()),
            title: title.to_owned(),
            status,
            detail: problem.detail.clone(),
            code: problem.code.slug().to_owned(),
            retryable: problem.code.retryable(),
            request_id,
            errors: problem.fields.clone(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = ProblemBody::new(&self.0, None);
        let status = StatusCode::from_u16(body.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let json = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (status, json).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.0.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // The server's layer writes the body again with the request id, from the problem itself.
        response.extensions_mut().insert(self);
        response
    }
}
