//! Answers that are sent while they are made.

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use turnpike_domain::problem::{Code, Problem};

/// One value as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value)
        .map_err(|error| Problem::new(Code::Internal, format!("rows cannot be written: {error}")))
}

/// What is held back of an answer that has no word for a value that cannot be told, so that a short one is refused whole,
/// wherever that stands.
pub(super) const HELD_BYTES: usize = 64 * 1024;

/// An answer whose parts are sent as they come. A failure of the first, or within the first `held_bytes`, is answered as one; a
/// later one cuts the connection, so that nobody takes what was sent until then for all.
pub(super) async fn streamed(
    media: &'static str,
    head: Vec<u8>,
    parts: impl Stream<Item = Result<Vec<u8>, Problem>> + Send + 'static,
    held_bytes: usize,
) -> Result<Response, Problem> {
    let mut parts = Box::pin(parts);
    let mut first = Vec::new();
    while let Some(part) = parts.try_next().await? {
        first.extend(part);
        if first.len() >= held_bytes {
            break;
        }
    }
    let rest = parts.inspect_err(|problem| {
        tracing::error!(%problem, "an answer was cut off: its rows cannot be read");
    });
    let all = stream::iter([Ok(head), Ok(first)]).chain(rest);
    Ok(([(header::CONTENT_TYPE, media)], Body::from_stream(all)).into_response())
}
