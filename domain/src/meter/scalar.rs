use std::borrow::Cow;

use crate::numeral::length;
use crate::quantity::{Quantity, QuantityError};

/// A JSON value as its text in `data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar<'a> {
    /// A string, quotes and escapes still in place.
    Text(&'a str),
    /// A number as it was spelled.
    Number(&'a str),
    True,
    False,
    Null,
    /// An object or array.
    Nested,
}

impl<'a> Scalar<'a> {
    /// `raw` is valid JSON without space around it.
    pub(super) fn of(raw: &'a str) -> Self {
        match raw.as_bytes().first() {
            Some(b'"') => Self::Text(raw),
            Some(b't') => Self::True,
            Some(b'f') => Self::False,
            Some(b'n') | None => Self::Null,
            Some(b'{' | b'[') => Self::Nested,
            Some(_) => Self::Number(raw),
        }
    }

    /// The text that groups, filters and their values are compared by: a string itself, a number by its meaning
    /// (`200`, `2e2` and `200.0` are one), `true`, `false`; nothing for null, objects and arrays.
    pub(super) fn dimension(self) -> Cow<'a, str> {
        match self {
            Self::Text(raw) => unquoted(raw),
            Self::Number(raw) => number_text(raw),
            Self::True => Cow::Borrowed("true"),
            Self::False => Cow::Borrowed("false"),
            Self::Null | Self::Nested => Cow::Borrowed(""),
        }
    }
}

/// The content of a JSON string. Valid JSON cannot fail here; were it not valid, the text itself is taken.
pub(super) fn unquoted(raw: &str) -> Cow<'_, str> {
    let inner = raw
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(raw);
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    serde_json::from_str::<String>(raw).map_or(Cow::Borrowed(inner), Cow::Owned)
}

/// One text for all spellings of a number: a plain decimal within a quantity's range and places, else digits and exponent.
pub(super) fn number_text(raw: &str) -> Cow<'_, str> {
    match Quantity::parse_rounding(raw) {
        Ok((value, false)) => {
            let text = value.to_string();
            if text == raw {
                Cow::Borrowed(raw)
            } else {
                Cow::Owned(text)
            }
        }
        Ok((_, true)) | Err(QuantityError::Overflow | QuantityError::TooPrecise) => {
            Cow::Owned(scientific(raw))
        }
        Err(QuantityError::Malformed) => Cow::Borrowed(raw),
    }
}

/// `digits e exponent`, without zeros at either end of the digits.
fn scientific(raw: &str) -> String {
    let (mantissa, exponent) = raw.split_once(['e', 'E']).unwrap_or((raw, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(i64::MAX / 2);
    let (sign, mantissa) = mantissa
        .strip_prefix('-')
        .map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let trimmed = digits.trim_end_matches('0');
    let exponent = exponent
        .saturating_sub(length(fraction))
        .saturating_add(length(&digits) - length(trimmed));
    format!("{sign}{}e{exponent}", trimmed.trim_start_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_are_compared_by_meaning() {
        for (raw, text) in [
            (r#""ok""#, "ok"),
            (r#""a\"\u00e9""#, "a\"é"),
            ("200", "200"),
            ("2e2", "200"),
            ("200.0", "200"),
            ("-0", "0"),
            ("1e40", "1e40"),
            ("10e39", "1e40"),
            ("0.00000000000000120", "12e-16"),
            ("12E-16", "12e-16"),
            ("true", "true"),
            ("false", "false"),
            ("null", ""),
            ("{}", ""),
            ("[1]", ""),
        ] {
            assert_eq!(Scalar::of(raw).dimension(), text, "{raw}");
        }
    }
}
