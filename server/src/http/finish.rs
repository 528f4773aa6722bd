use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use turnpike_domain::problem::{Code, Problem};
use turnpike_http::{Failure, ProblemBody, RequestId};

/// What an answer gets on its way out: every failure as `problem+json` with the request's id, and the headers of all. Behind
/// one that `is_last` the connection ends.
pub(crate) async fn finish(
    response: Response,
    (id, method): (&RequestId, &Method),
    is_last: bool,
) -> Response {
    let mut response = if is_failure(&response) {
        told(response, id, method).await
    } else {
        response
    };
    finish_headers(&mut response, id, is_last);
    response
}

/// Whether an answer is none yet that a client is told: it goes through [`told`] first.
pub(crate) fn is_failure(response: &Response) -> bool {
    response.status().is_client_error() || response.status().is_server_error()
}

/// What a client is told of a failure.
pub(crate) async fn told(response: Response, id: &RequestId, method: &Method) -> Response {
    if *method == Method::OPTIONS && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        return options(&response);
    }
    problem(response, id).await
}

/// The headers of all answers. A connection ends behind one that `is_last`, and behind a 408, which waits for no more.
/// Source: RFC 9110, section 15.5.9, and RFC 9112, section 9.6.
pub(crate) fn finish_headers(response: &mut Response, id: &RequestId, is_last: bool) {
    let is_last = is_last || response.status() == StatusCode::REQUEST_TIMEOUT;
    set_headers(response.headers_mut(), id);
    if is_last {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
}

/// `OPTIONS` of a path that exists: which methods there are.
fn options(response: &Response) -> Response {
    let mut answer = StatusCode::NO_CONTENT.into_response();
    if let Some(allow) = response.headers().get(header::ALLOW) {
        answer.headers_mut().insert(header::ALLOW, allow.clone());
    }
    answer
}

/// The problem of a failure.
async fn problem(mut response: Response, id: &RequestId) -> Response {
    let status = response.status();
    if let Some(Failure(problem)) = response.extensions_mut().remove::<Failure>() {
        if let Some(internal) = &problem.internal {
            tracing::error!(request_id = %id.0, code = problem.code.slug(), internal, "a call met a failure of what it stands on");
        }
        return with_body(response, &ProblemBody::new(&problem, Some(id.0.to_string())));
    }
    let kind = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    if !kind.is_empty() && !kind.starts_with("text/plain") {
        return response;
    }
    // What the router itself, or an extractor of its, refused: plain words, or none at all.
    let (parts, body) = response.into_parts();
    let words = to_bytes(body, 4_096).await.unwrap_or_default();
    let problem = from_status(status, String::from_utf8_lossy(&words).trim());
    let mut body = ProblemBody::new(&problem, Some(id.0.to_string()));
    body.status = status.as_u16();
    with_body(Response::from_parts(parts, Body::empty()), &body)
}

fn from_status(status: StatusCode, words: &str) -> Problem {
    let (code, plain) = match status {
        StatusCode::NOT_FOUND => (Code::NotFound, "there is nothing at this path"),
        StatusCode::METHOD_NOT_ALLOWED => (
            Code::MethodNotAllowed,
            "this path does not take this method; Allow names those it takes",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => (Code::TooLarge, "the body is too large"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            (Code::UnsupportedMediaType, "this content type is not taken here")
        }
        StatusCode::UNPROCESSABLE_ENTITY => (Code::Invalid, "the request is invalid"),
        StatusCode::SERVICE_UNAVAILABLE => (Code::Unavailable, "not ready"),
        other if other.is_server_error() => (
            Code::Internal,
            "the server failed; the request id finds it in its log",
        ),
        _ => (Code::InvalidRequest, "the request cannot be read"),
    };
    Problem::new(code, if words.is_empty() { plain } else { words })
}

fn with_body(response: Response, body: &ProblemBody) -> Response {
    let json = serde_json::to_vec(body).unwrap_or_default();
    let (mut parts, _) = response.into_parts();
    parts.headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    parts.headers.remove(header::CONTENT_LENGTH);
    if parts.status == StatusCode::UNAUTHORIZED {
        parts.headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"turnpike\""),
        );
    }
    Response::from_parts(parts, Body::from(json))
}

fn set_headers(headers: &mut HeaderMap, id: &RequestId) {
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.insert("x-request-id", value);
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    let html = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if html {
        // Pages carry their own styles and load nothing.
        let policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
        headers
            .entry(header::CONTENT_SECURITY_POLICY)
            .or_insert(HeaderValue::from_static(policy));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> RequestId {
        RequestId("r-1".into())
    }

    async fn body(response: Response) -> serde_json::Value {
        serde_json::from_slice(&to_bytes(response.into_body(), 100_000).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_failure_gets_its_request_id() {
        let failure = Failure(Problem::invalid("/limit", "must be 1 to 1000"));
        let response = finish(failure.into_response(), (&id(), &Method::GET), false).await;
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers()["x-request-id"], "r-1");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        insta::assert_json_snapshot!(body(response).await, @r#"
        {
          "type": "/docs/errors/invalid",
          "title": "Unprocessable Entity",
          "status": 422,
          "detail": "/limit must be 1 to 1000",
          "code": "invalid",
          "retryable": false,
          "request_id": "r-1",
          "errors": [
            {
              "pointer": "/limit",
              "detail": "must be 1 to 1000"
            }
          ]
        }
        "#);
    }

    #[tokio::test]
    async fn what_the_router_refuses_is_a_problem_too() {
        for (status, words, code, detail) in [
            (404, "", "not_found", "there is nothing at this path"),
            (
                405,
                "",
                "method_not_allowed",
                "this path does not take this method; Allow names those it takes",
            ),
            (
                400,
                "Invalid URL: not UTF-8",
                "invalid_request",
                "Invalid URL: not UTF-8",
            ),
            (413, "length limit exceeded", "too_large", "length limit exceeded"),
            (
                415,
                "",
                "unsupported_media_type",
                "this content type is not taken here",
            ),
            (
                500,
                "",
                "internal",
                "the server failed; the request id finds it in its log",
            ),
        ] {
            let plain = (StatusCode::from_u16(status).unwrap(), words).into_response();
            let answer = finish(plain, (&id(), &Method::GET), false).await;
            assert_eq!(answer.status(), status);
            let body = body(answer).await;
            assert_eq!(
                (&body["code"], &body["detail"], &body["status"]),
                (&code.into(), &detail.into(), &status.into())
            );
            assert_eq!(body["request_id"], "r-1");
        }
    }

    #[tokio::test]
    async fn other_answers_stay() {
        let json = ([(header::CONTENT_TYPE, "application/json")], "{\"a\":1}").into_response();
        let answer = finish(json, (&id(), &Method::GET), false).await;
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert_eq!(body(answer).await["a"], 1);
        let refused = (
            StatusCode::NOT_FOUND,
            [(header::CONTENT_TYPE, "application/json")],
            "{\"a\":2}",
        )
            .into_response();
        assert_eq!(
            body(finish(refused, (&id(), &Method::GET), false).await).await["a"],
            2
        );
    }

    #[tokio::test]
    async fn the_last_answer_of_a_connection_says_so() {
        for (status, is_last, expected) in [
            (200, false, None),
            (200, true, Some("close")),
            (408, false, Some("close")),
        ] {
            let plain = StatusCode::from_u16(status).unwrap().into_response();
            let answer = finish(plain, (&id(), &Method::GET), is_last).await;
            let told = answer.headers().get("connection");
            assert_eq!(told.map(|value| value.to_str().unwrap()), expected, "{status}");
        }
    }

    #[tokio::test]
    async fn options_tells_the_methods() {
        let refused = (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET,HEAD")]).into_response();
        let answer = finish(refused, (&id(), &Method::OPTIONS), false).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["allow"]),
            (204, &HeaderValue::from_static("GET,HEAD"))
        );
    }
}
