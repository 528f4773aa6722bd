//! How rows are written, as the caller asks for it.

use std::cmp::Reverse;

use axum::http::{HeaderMap, header};
use turnpike_domain::problem::Problem;

use crate::csv::CSV;
use crate::ndjson::NDJSON;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON document.
    Json,
    /// Comma-separated values with a header.
    Csv,
    /// A JSON object on each line.
    Ndjson,
}

impl Format {
    const ALL: [Self; 3] = [Self::Json, Self::Csv, Self::Ndjson];

    /// From `format=`, else from `Accept`, else `default`.
    ///
    /// # Errors
    /// 422 for another name.
    pub fn of(given: Option<&str>, headers: &HeaderMap, default: Self) -> Result<Self, Problem> {
        match given {
            Some("json") => Ok(Self::Json),
            Some("csv") => Ok(Self::Csv),
            Some("ndjson") => Ok(Self::Ndjson),
            Some(_) => Err(Problem::invalid("/format", "must be json, csv or ndjson")),
            None => Ok(Self::accepted(headers, default)),
        }
    }

    /// The same for an export, which is never one document: CSV unless said, and NDJSON for who accepts JSON.
    ///
    /// # Errors
    /// 422 for another name.
    pub fn of_export(given: Option<&str>, headers: &HeaderMap) -> Result<Self, Problem> {
        if given.is_some_and(|name| !matches!(name, "csv" | "ndjson")) {
            return Err(Problem::invalid("/format", "must be csv or ndjson"));
        }
        match Self::of(given, headers, Self::Csv)? {
            Self::Json => Ok(Self::Ndjson),
            format => Ok(format),
        }
    }

    /// The `Content-Type` of what is written so.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => CSV,
            Self::Ndjson => NDJSON,
        }
    }

    /// What `Accept` wants most; `default` where it says nothing of any format, or refuses all. Source: RFC 9110 12.5.1.
    fn accepted(headers: &HeaderMap, default: Self) -> Self {
        let lines = headers.get_all(header::ACCEPT).into_iter();
        let lines = lines.filter_map(|line| line.to_str().ok());
        let ranges: Vec<_> = lines
            .flat_map(|line| split_unquoted(line, ','))
            .filter_map(Range::read)
            .collect();
        // The last of equals is taken.
        let formats = Self::ALL.into_iter().rev().chain([default]);
        formats
            .max_by_key(|format| format.wish(&ranges))
            .unwrap_or(default)
    }

    /// What the most specific range of this format says.
    fn wish(self, ranges: &[Range<'_>]) -> Wish {
        let of_this = ranges.iter().enumerate().filter_map(|(at, range)| {
            let precision = range.precision(self)?;
            Some((precision, range.weight, Reverse(at)))
        });
        match of_this.max() {
            None => Wish::Unsaid,
            Some((_, 0, _)) => Wish::Refused,
            Some((precision, weight, at)) => Wish::Wanted(weight, precision, at),
        }
    }

    fn media(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Json => &[("application", "json")],
            Self::Csv => &[("text", "csv")],
            Self::Ndjson => &[("application", "x-ndjson"), ("application", "ndjson")],
        }
    }
}

/// How much a format is wanted, least first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    Refused,
    Unsaid,
    /// By weight; at the same weight what is named wins over what a `*` contains, and then what stands first.
    Wanted(u16, Precision, Reverse<usize>),
}

/// How closely a range names a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    Any,
    Type,
    Subtype,
}

/// A media range of `Accept`. Parameters other than its weight do not tell our formats apart.
#[derive(Debug)]
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// In thousandths; 0 refuses.
    weight: u16,
}

impl<'a> Range<'a> {
    /// `None` for what is no range, or has a weight that is none: it asks for nothing.
    fn read(text: &'a str) -> Option<Self> {
        let mut parts = split_unquoted(text, ';');
        let (kind, subtype) = parts.next()?.trim().split_once('/')?;
        let mut parameters = parts.filter_map(|part| part.split_once('='));
        let weight = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
        let weight = weight.map_or(Some(1_000), |(_, value)| thousandths(value.trim()))?;
        Some(Self {
            kind,
            subtype,
            weight,
        })
    }

    fn precision(&self, format: Format) -> Option<Precision> {
        if (self.kind, self.subtype) == ("*", "*") {
            return Some(Precision::Any);
        }
        let mut of_kind = format
            .media()
            .iter()
            .filter(|(kind, _)| self.kind.eq_ignore_ascii_case(kind))
            .peekable();
        of_kind.peek()?;
        if self.subtype == "*" {
            return Some(Precision::Type);
        }
        let is_named = of_kind.any(|(_, subtype)| self.subtype.eq_ignore_ascii_case(subtype));
        is_named.then_some(Precision::Subtype)
    }
}

/// A weight: 0 to 1 with at most three places. Source: RFC 9110 12.4.2.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    if !matches!(whole, "0" | "1") || places.len() > 3 || !places.bytes().all(|digit| digit.is_ascii_digit())
    {
        return None;
    }
    let weight: u16 = format!("{whole}{places:0<3}").parse().ok()?;
    (weight <= 1_000).then_some(weight)
}

/// The parts of a header's text between separators, of which those within quotes are none.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |found| {
        let is_escaped = std::mem::take(&mut escaped);
        match found {
            '\\' if quoted => escaped = !is_escaped,
            '"' if !is_escaped => quoted = !quoted,
            _ => {}
        }
        found == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn accepting(lines: &[&str]) -> HeaderMap {
        let lines = lines.iter().map(|line| HeaderValue::from_str(line).unwrap());
        lines.map(|line| (header::ACCEPT, line)).collect()
    }

    #[test]
    fn the_parameter_goes_before_the_header() {
        let csv = accepting(&["text/csv"]);
        let of = |format| Format::of(format, &csv, Format::Json);
        assert_eq!(of(None), Ok(Format::Csv));
        assert_eq!(of(Some("ndjson")), Ok(Format::Ndjson));
        assert_eq!(of(Some("json")), Ok(Format::Json));
        assert!(of(Some("xml")).is_err());
    }

    #[test]
    fn what_is_wanted_most_is_accepted() {
        use Format::{Csv, Json, Ndjson};
        for (accept, default, expected) in [
            ("", Json, Json),
            ("*/*", Json, Json),
            ("*/*", Csv, Csv),
            ("text/html, image/*;q=0.9", Csv, Csv),
            ("text/csv", Json, Csv),
            ("TEXT/CSV", Json, Csv),
            ("text/csv ; charset=utf-8", Json, Csv),
            (" ,text/csv,, ", Json, Csv),
            ("application/ndjson", Json, Ndjson),
            ("Application/X-NDJSON", Json, Ndjson),
            ("text/*", Json, Csv),
            ("application/*", Json, Json),
            // Weights.
            ("application/json;q=0.1,text/csv", Json, Csv),
            ("application/json;Q=0.1, text/csv;q=0.11", Json, Csv),
            ("text/csv;q=0.001, application/x-ndjson;q=0.01", Json, Ndjson),
            ("text/csv;q=0.9, */*", Json, Json),
            ("text/csv;q=1.000, application/json;q=0.999", Json, Csv),
            // At the same weight what is named, and then what stands first.
            ("*/*, text/csv", Json, Csv),
            ("text/csv, application/json", Json, Csv),
            ("application/json, text/csv", Csv, Json),
            // The most specific range holds.
            ("text/csv;q=0.2, text/*, application/json;q=0.5", Json, Json),
            ("application/*, application/json;q=0.1", Json, Ndjson),
            // Refused.
            ("text/csv;q=0", Json, Json),
            ("text/csv;q=0", Csv, Json),
            ("text/csv;q=0.000, */*", Csv, Json),
            ("text/csv, */*;q=0", Json, Csv),
            ("*/*;q=0", Csv, Csv),
            // Within quotes nothing is separated.
            (r#"text/csv;a="x,application/json;q=1";q=0.5"#, Json, Csv),
            (r#"text/csv;a="\";q=0,";q=0.5, text/*;q=0"#, Json, Csv),
            // No weights and no ranges.
            ("text/csv;q=2, application/x-ndjson;q=0.5", Json, Ndjson),
            ("text/csv;q=1.001", Json, Json),
            ("text/csv;q=0.1234", Json, Json),
            ("text/csv;q=-1, text/csv;q=+1, text/csv;q=", Json, Json),
            ("csv, *", Json, Json),
            ("*/csv", Json, Json),
        ] {
            let accepted = Format::accepted(&accepting(&[accept]), default);
            assert_eq!(accepted, expected, "{accept:?}, else {default:?}");
        }
        assert_eq!(Format::accepted(&HeaderMap::new(), Csv), Csv);
        let two = accepting(&["application/json;q=0.1", "text/csv"]);
        assert_eq!(Format::accepted(&two, Json), Csv, "lines are one list");
    }
}
