//! Rows as CSV and NDJSON, sent while they are made.

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use turnpike_domain::problem::{Code, Problem};

/// The media type of what [`ndjson`] writes.
pub(super) const NDJSON: &str = "application/x-ndjson";
/// The media type of what [`csv`] writes.
pub(super) const CSV: &str = "text/csv; charset=utf-8";

/// One value as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value).map_err(|error| unwritable(&error))
}

/// Rows as lines of JSON.
pub(super) fn ndjson<T: Serialize>(rows: impl Iterator<Item = T>) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut out, &row).map_err(|error| unwritable(&error))?;
        out.push(b'\n');
    }
    Ok(out)
}

/// Rows as lines of CSV.
pub(super) fn csv(rows: impl Iterator<Item = Vec<String>>) -> Result<Vec<u8>, Problem> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer
            .write_record(row.iter().map(|text| inert(text).into_owned()))
            .map_err(|error| unwritable(&error))?;
    }
    writer.into_inner().map_err(|error| unwritable(&error))
}

/// An answer whose parts are sent as they come. A failure of the first is answered as one; a later one cuts the connection, so
/// that nobody takes what was sent until then for all.
pub(super) async fn streamed(
    media: &'static str,
    head: Vec<u8>,
    parts: impl Stream<Item = Result<Vec<u8>, Problem>> + Send + 'static,
) -> Result<Response, Problem> {
    let mut parts = Box::pin(parts);
    let first = parts.try_next().await?.unwrap_or_default();
    let rest = parts.inspect_err(|problem| {
        tracing::error!(%problem, "an answer was cut off: its rows cannot be read");
    });
    let all = stream::iter([Ok(head), Ok(first)]).chain(rest);
    Ok(([(header::CONTENT_TYPE, media)], Body::from_stream(all)).into_response())
}

/// A text that a spreadsheet would take for a formula gets a quote before it: one that begins with `=`, `@`, a tab or a
/// carriage return, or with a sign and has more in it than letters, digits, `_`, `.`, `-` and spaces. All others (`-12.5`,
/// `+900`, `-m0`) stay as they are, so that keys are the same here as everywhere.
fn inert(text: &str) -> std::borrow::Cow<'_, str> {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"_.- ".contains(&byte);
    let formula = match text.as_bytes() {
        [b'=' | b'@' | b'\t' | b'\r', ..] => true,
        [b'+' | b'-', rest @ ..] => !rest.iter().copied().all(harmless),
        _ => false,
    };
    if formula {
        return format!("'{text}").into();
    }
    text.into()
}

fn unwritable(error: &impl std::fmt::Display) -> Problem {
    Problem::new(Code::Internal, format!("rows cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_made_inert() {
        for formula in [
            "=1+1",
            "@x",
            "\tx",
            "\r=x",
            "+SUM(A1)",
            "-cmd|' /C calc'!A0",
            "-1+1",
            "+é",
            "--x=y",
        ] {
            assert_eq!(inert(formula), format!("'{formula}"));
        }
        for text in [
            "", "-12.5", "+900", "-m0", "-a b", "-", "+", "a=b", "'x", "\n=x", "12",
        ] {
            assert_eq!(inert(text), text);
        }
    }
}
