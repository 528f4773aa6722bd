//! Rows as CSV and NDJSON.

use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use turnpike_domain::problem::{Code, Problem};

pub(super) fn ndjson<T: Serialize>(rows: &[T]) -> Result<Response, Problem> {
    let mut out = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut out, row).map_err(|error| unwritable(&error))?;
        out.push(b'\n');
    }
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], out).into_response())
}

pub(super) fn csv(head: &[String], rows: impl Iterator<Item = Vec<String>>) -> Result<Response, Problem> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(head).map_err(|error| unwritable(&error))?;
    for row in rows {
        writer
            .write_record(row.iter().map(|text| inert(text).into_owned()))
            .map_err(|error| unwritable(&error))?;
    }
    let out = writer.into_inner().map_err(|error| unwritable(&error))?;
    Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], out).into_response())
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
