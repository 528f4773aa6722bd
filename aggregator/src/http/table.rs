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

/// A text that a spreadsheet would take for a formula gets a quote before it; numbers stay as they are.
fn inert(text: &str) -> std::borrow::Cow<'_, str> {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if formula && text.parse::<turnpike_domain::quantity::Quantity>().is_err() {
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
        assert_eq!(inert("=1+1"), "'=1+1");
        assert_eq!(inert("@x"), "'@x");
        assert_eq!(inert("-12.5"), "-12.5");
        assert_eq!(inert("a=b"), "a=b");
    }
}
