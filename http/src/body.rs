use std::io;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use turnpike_domain::limits::{CONTROL_BODY_BYTES_MAX, IDEMPOTENCY_KEY_CHARS_MAX};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::{TimeError, Timestamp};

use crate::Failure;
use strict::Strict;

mod strict;

pub use strict::Whole;

/// The JSON body of a control request, read strictly: the right content type, a bound, and pointers to wrong fields.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = JsonBytes::from_request(request, state).await?;
        Ok(Self(read_json(&bytes.0)?))
    }
}

/// The bytes of such a body, for what is read from them without copies.
#[derive(Debug)]
pub struct JsonBytes(Bytes);

impl JsonBytes {
    /// What they say.
    ///
    /// # Errors
    /// 400 for bad syntax, 422 for a wrong field with a pointer to it.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        read_json(&self.0)
    }
}

impl<S: Send + Sync> FromRequest<S> for JsonBytes {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        require_json(&parts.headers)?;
        require_plain(&parts.headers)?;
        Ok(Self(read_whole(body).await?))
    }
}

/// The JSON body of a control request that may be left out: then it is `T`'s default.
#[derive(Debug)]
pub struct MaybeJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for MaybeJson<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let bytes = read_whole(body).await?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(T::default()));
        }
        require_json(&parts.headers)?;
        require_plain(&parts.headers)?;
        Ok(Self(read_json(&bytes)?))
    }
}

/// The request of a call that takes no body, without what was sent as one: nothing, or an empty JSON object. Anything
/// else is refused as a field that nobody reads would be.
pub async fn without_body(request: Request) -> Result<Request, Failure> {
    #[derive(serde::Deserialize, Default)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return Ok(Request::from_parts(parts, body));
    }
    let mut sent = Request::new(body);
    sent.headers_mut().clone_from(&parts.headers);
    let MaybeJson(Nothing {}) = MaybeJson::from_request(sent, &()).await?;
    Ok(Request::from_parts(parts, Body::empty()))
}

/// All of a control request's body, within its bound.
async fn read_whole(body: Body) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(
            Code::TooLarge,
            format!("the body has more than {CONTROL_BODY_BYTES_MAX} bytes"),
        )
    };
    if body.size_hint().lower() > CONTROL_BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    read_within(body, CONTROL_BODY_BYTES_MAX, too_large).await
}

/// All bytes of a body of at most `bytes_max`; `too_large` says what is wrong with one that has more.
pub async fn read_within(
    body: Body,
    bytes_max: usize,
    too_large: impl FnOnce() -> Problem,
) -> Result<Bytes, Problem> {
    let (mut frames, mut whole, mut several) = (body, Bytes::new(), Vec::new());
    while let Some(frame) = frames.frame().await {
        let Ok(data) = frame.map_err(|error| unread(&error))?.into_data() else {
            continue;
        };
        if whole.len() + several.len() + data.len() > bytes_max {
            return Err(too_large());
        }
        if whole.is_empty() && several.is_empty() {
            whole = data;
            continue;
        }
        several.extend_from_slice(&std::mem::take(&mut whole));
        several.extend_from_slice(&data);
    }
    // Most come in one piece, which is not copied.
    Ok(if several.is_empty() { whole } else { several.into() })
}

/// Why the bytes of a body ended with an error: what a layer below put into its stream, such as that they came too slowly;
/// else that they do not come as the head says, which sending them again does not mend; else that the connection ended.
pub fn unread(error: &(dyn std::error::Error + 'static)) -> Problem {
    let ill_framed = |cause: &&io::Error| {
        matches!(
            cause.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
        )
    };
    if let Some(problem) = causes(error).find_map(|cause| cause.downcast_ref::<Problem>()) {
        return problem.clone();
    }
    let mut failures = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    match failures.find(ill_framed) {
        Some(framing) => {
            let detail = format!("the body does not come as its head says: {framing}");
            Problem::new(Code::InvalidRequest, detail)
        }
        None => Problem::new(Code::IncompleteBody, format!("the body ended early: {error}")),
    }
}

fn causes<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
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

/// Only events may come compressed.
fn require_plain(headers: &HeaderMap) -> Result<(), Problem> {
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let name = String::from_utf8_lossy(value.as_bytes());
        if !name.trim().is_empty() && !name.trim().eq_ignore_ascii_case("identity") {
            let detail = format!(
                "this body is taken without Content-Encoding, not as \"{}\"",
                name.trim()
            );
            return Err(Problem::new(Code::UnsupportedMediaType, detail));
        }
    }
    Ok(())
}

/// Reads `bytes` as JSON; syntax is 400, a wrong field is 422 with its pointer.
fn read_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    match T::deserialize(Strict(&mut reader)) {
        Ok(value) if reader.end().is_ok() => Ok(value),
        // Where something is wrong is noted in a second reading, for noting costs more than the reading.
        _ => read_noting(bytes),
    }
}

/// The same, noting the way to each field.
#[cold]
fn read_noting<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(Strict(&mut reader)).map_err(|error| {
        let pointer = pointer(error.path());
        let inner = error.into_inner();
        // What the parser calls its error is not asked: a number in the place of a fixed word is bad syntax to it.
        match broken(bytes) {
            None => wrong_field(pointer, &inner.to_string()),
            Some(error) => Problem::new(Code::InvalidJson, format!("the body is not valid JSON: {error}")),
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

/// What makes `bytes` no JSON, also behind a field that is wrong.
fn broken(bytes: &[u8]) -> Option<String> {
    // The text of strings is not looked at where nothing is kept of it.
    if let Err(error) = std::str::from_utf8(bytes) {
        return Some(error.to_string());
    }
    let whole = serde_json::from_slice::<serde::de::IgnoredAny>(bytes);
    whole.err().map(|error| error.to_string())
}

/// A field of the wrong kind, or one that is missing: that one is pointed to where it should be.
fn wrong_field(mut pointer: String, words: &str) -> Problem {
    // The place in the text tells a program's author less than the pointer does.
    let words = words.rsplit_once(" at line ").map_or(words, |(words, _)| words);
    let missing = words
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'));
    if let Some(name) = missing {
        pointer.extend(["/", &escaped(name)]);
        return Problem::invalid(pointer, "is missing");
    }
    Problem::invalid(pointer, in_plain_words(words))
}

/// The words of a parser, without the names that types have in the program.
fn in_plain_words(words: &str) -> String {
    const WHOLE: &str = "a whole number in range";
    let Some((before, expected)) = words.rsplit_once(", expected ") else {
        return words.to_owned();
    };
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" => WHOLE,
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "a map" => "an object",
        name if name.starts_with("struct ") || name.starts_with("internally tagged enum") => "an object",
        same => same,
    };
    format!("{before}, expected {expected}")
}

/// A key as a part of a pointer, as RFC 6901 has it.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.extend(["/", &index.to_string()]),
            Segment::Map { key } => pointer.extend(["/", &escaped(key)]),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// A parameter that cannot be, with a pointer to it: the words begin with its name, as `name: what is wrong`.
fn wrong_parameter(text: &str) -> Problem {
    let words = text
        .rsplit_once("query string: ")
        .map_or(text, |(_, words)| words);
    let named = words.split_once(": ").map(|(name, what)| (name, what.to_owned()));
    let repeated = words
        .strip_prefix("duplicate field `")
        .and_then(|rest| rest.strip_suffix('`'));
    let missing = words
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'));
    let found = named
        .or_else(|| Some((repeated?, "is given more than once".to_owned())))
        .or_else(|| Some((missing?, "is missing".to_owned())));
    let found = found.map(|(name, what)| (name, plain(what)));
    match found {
        Some((name, what)) => Problem::invalid(format!("/{}", escaped(name)), what),
        None => Problem::new(Code::Invalid, words),
    }
}

/// What is wanted, where the words are those of a parser.
fn plain(what: String) -> String {
    match what.as_str() {
        "invalid digit found in string"
        | "cannot parse integer from empty string"
        | "number too large to fit in target type"
        | "number too small to fit in target type" => "must be a whole number in range".to_owned(),
        "provided string was not `true` or `false`" => "must be true or false".to_owned(),
        _ => what,
    }
}

/// The query string, read strictly: 422 for what cannot be.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(wrong_parameter(&rejection.body_text()).into()),
        }
    }
}

/// A time of a query string. The `+` of an offset that was not written `%2B` has become a space, and is taken for what it was.
pub fn parse_time(text: &str) -> Result<Timestamp, TimeError> {
    Timestamp::parse(text).or_else(|error| match text.rsplit_once(' ') {
        Some((before, offset)) if offset.len() == "00:00".len() => {
            Timestamp::parse(&format!("{before}+{offset}"))
        }
        _ => Err(error),
    })
}

/// For a field of [`Params`] that is a time and may be left out, which needs `default` too.
pub fn optional_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_time(&text).map(Some).map_err(D::Error::custom)
}

/// The `Idempotency-Key` of a changing call, at most 255 visible characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency(pub Option<String>);

impl<S: Sync> FromRequestParts<S> for Idempotency {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let mut sent = parts.headers.get_all("idempotency-key").iter();
        let (first, second) = (sent.next(), sent.next());
        let visible = |key: &&str| {
            (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&key.len())
                && key.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        match (first.map(|value| value.to_str().ok().filter(visible)), second) {
            (None, _) => Ok(Self(None)),
            (Some(Some(key)), None) => Ok(Self(Some(key.to_owned()))),
            _ => Err(Problem::new(
                Code::InvalidRequest,
                format!(
                    "Idempotency-Key must be sent once, with 1 to {IDEMPOTENCY_KEY_CHARS_MAX} visible characters"
                ),
            )
            .into()),
        }
    }
}

#[cfg(test)]
mod tests;
