use axum::body::{Bytes, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use turnpike_domain::limits::CONTROL_BODY_BYTES_MAX;
use turnpike_domain::problem::{Code, Problem};

use crate::Failure;

/// The JSON body of a control request, read strictly: the right content type, a bound, and pointers to wrong fields.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        require_json(request.headers())?;
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let too_large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
            let code = if too_large {
                Code::TooLarge
            } else {
                Code::InvalidRequest
            };
            Problem::new(code, rejection.body_text())
        })?;
        if bytes.len() > CONTROL_BODY_BYTES_MAX {
            return Err(Problem::new(
                Code::TooLarge,
                format!("the body has more than {CONTROL_BODY_BYTES_MAX} bytes"),
            )
            .into());
        }
        require_object(&bytes)?;
        Ok(Self(read_json(&bytes)?))
    }
}

/// The JSON body of a control request that may be left out: then it is `T`'s default.
#[derive(Debug)]
pub struct MaybeJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for MaybeJson<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let empty = request.body().is_end_stream();
        if empty && !request.headers().contains_key(header::CONTENT_TYPE) {
            return Ok(Self(T::default()));
        }
        JsonBody::from_request(request, state)
            .await
            .map(|JsonBody(value)| Self(value))
    }
}

/// An error for valid JSON that is no object: serde would read an array as the fields of a struct in their order.
fn require_object(bytes: &[u8]) -> Result<(), Problem> {
    if bytes.trim_ascii_start().first() == Some(&b'{') {
        return Ok(());
    }
    read_json::<serde::de::IgnoredAny>(bytes)?;
    Err(Problem::new(Code::Invalid, "the body must be a JSON object"))
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let essence = given.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::new(
        Code::UnsupportedMediaType,
        format!("send application/json, not \"{essence}\""),
    ))
}

/// Reads `bytes` as JSON; syntax is 400, a wrong field is 422 with its pointer.
pub fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer(error.path());
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => Problem::invalid(pointer, inner.to_string()),
            _ => Problem::new(Code::InvalidJson, format!("the body is not valid JSON: {inner}")),
        }
    })?;
    reader.end().map_err(|error| {
        Problem::new(
            Code::InvalidJson,
            format!("the body goes on behind its JSON: {error}"),
        )
    })?;
    Ok(value)
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.extend(["/", &index.to_string()]),
            Segment::Map { key } => pointer.extend(["/", &key.replace('~', "~0").replace('/', "~1")]),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// The query string, read strictly: 422 for what cannot be.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::new(Code::Invalid, rejection.body_text()).into()),
        }
    }
}

/// The `Idempotency-Key` of a changing call, at most 255 visible characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency(pub Option<String>);

impl<S: Sync> FromRequestParts<S> for Idempotency {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let Some(value) = parts.headers.get("idempotency-key") else {
            return Ok(Self(None));
        };
        match value.to_str() {
            Ok(key) if !key.is_empty() && key.len() <= 255 => Ok(Self(Some(key.to_owned()))),
            _ => Err(Problem::new(
                Code::InvalidRequest,
                "Idempotency-Key must be 1 to 255 visible characters",
            )
            .into()),
        }
    }
}
