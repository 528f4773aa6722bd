use std::borrow::Cow;

use num_bigint::BigInt;

use crate::limits::METER_TEXT_BYTES_MAX;
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

/// One text for all spellings of a number: its plain decimal, or digits and exponent where that is longer than any text
/// that is compared.
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
        Ok((_, true)) | Err(QuantityError::Overflow | QuantityError::TooPrecise) => beyond_quantities(raw),
        Err(QuantityError::Malformed) => Cow::Borrowed(raw),
    }
}

/// The text of a number with more digits or places than a quantity has; it is not 0.
fn beyond_quantities(raw: &str) -> Cow<'_, str> {
    let (mantissa, exponent) = raw.split_once(['e', 'E']).unwrap_or((raw, "0"));
    let (sign, mantissa) = mantissa
        .strip_prefix('-')
        .map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_end_matches('0');
    let Some(exponent) = exponent_of(exponent, length(&all) - length(digits) - length(fraction)) else {
        // An exponent so long is longer than any text that is compared.
        return Cow::Borrowed(raw);
    };
    let digits = digits.trim_start_matches('0');
    let plain = i64::try_from(&exponent)
        .ok()
        .and_then(|exponent| plain(sign, digits, exponent));
    Cow::Owned(plain.unwrap_or_else(|| format!("{sign}{digits}e{exponent}")))
}

/// The exponent that `text` says, and `more`; `None` when it has more digits than any text that is compared.
fn exponent_of(text: &str, more: i64) -> Option<BigInt> {
    let unsigned = text.trim_start_matches(['+', '-']).trim_start_matches('0');
    if unsigned.len() > METER_TEXT_BYTES_MAX {
        return None;
    }
    let exponent: BigInt = text.parse().ok()?;
    Some(exponent + more)
}

/// `digits × 10^exponent` without an exponent; `None` when that is longer than any text that is compared. The digits
/// have no zeros at either end.
fn plain(sign: &str, digits: &str, exponent: i64) -> Option<String> {
    let zeros = usize::try_from(exponent.unsigned_abs())
        .ok()
        .filter(|zeros| *zeros <= METER_TEXT_BYTES_MAX)?;
    let text = if exponent >= 0 {
        format!("{sign}{digits}{}", "0".repeat(zeros))
    } else if let Some((whole, fraction)) = digits
        .len()
        .checked_sub(zeros)
        .filter(|whole| *whole > 0)
        .and_then(|whole| digits.split_at_checked(whole))
    {
        format!("{sign}{whole}.{fraction}")
    } else {
        format!("{sign}0.{digits:0>zeros$}")
    };
    (text.len() <= METER_TEXT_BYTES_MAX).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
            ("0.30000000000000004", "0.30000000000000004"),
            ("-3.0000000000000004E-1", "-0.30000000000000004"),
            ("0.00000000000000120", "0.0000000000000012"),
            ("12E-16", "0.0000000000000012"),
            ("123456789012345678901234567", "123456789012345678901234567"),
            (
                "1234567890123456789012345678.50",
                "1234567890123456789012345678.5",
            ),
            (
                "12.345678901234567890123456789e+27",
                "12345678901234567890123456789",
            ),
            ("10e29", "1000000000000000000000000000000"),
            ("-1E030", "-1000000000000000000000000000000"),
            ("1e99999999999999999999", "1e99999999999999999999"),
            ("0.10e100000000000000000000", "1e99999999999999999999"),
            ("-1e-99999999999999999999", "-1e-99999999999999999999"),
            ("1e-4611686018427387903", "1e-4611686018427387903"),
            ("0e99999999999999999999", "0"),
            ("true", "true"),
            ("false", "false"),
            ("null", ""),
            ("{}", ""),
            ("[1]", ""),
        ] {
            assert_eq!(Scalar::of(raw).dimension(), text, "{raw}");
        }
    }

    #[test]
    fn numbers_are_plain_while_that_is_no_longer_than_a_text_may_be() {
        let zeros = |count| "0".repeat(count);
        for (raw, text) in [
            ("1e2047", format!("1{}", zeros(2_047))),
            ("1e2048", "1e2048".to_owned()),
            ("-1e2046", format!("-1{}", zeros(2_046))),
            ("-1e2047", "-1e2047".to_owned()),
            ("1e-2046", format!("0.{}1", zeros(2_045))),
            ("1e-2047", "1e-2047".to_owned()),
        ] {
            assert_eq!(Scalar::of(raw).dimension(), text, "{raw}");
        }
        let endless = format!("1e{}", "9".repeat(1_000_000));
        assert_eq!(Scalar::of(&endless).dimension(), endless);
    }

    proptest! {
        /// Whatever is spelled otherwise, the text is the same, and a text is its own.
        #[test]
        fn spellings_of_a_number_have_one_text(
            digits in "[1-9][0-9]{0,40}", point in 0_usize..40, exponent in -3_000_i64..3_000, zeros in 0_usize..5,
        ) {
            let point = point.min(digits.len() - 1) + 1;
            let (whole, fraction) = digits.split_at(point);
            let shifted = exponent - length(fraction);
            let other = if fraction.is_empty() {
                format!("{whole}.0{}e{exponent}", "0".repeat(zeros))
            } else {
                format!("{whole}.{fraction}{}E{exponent}", "0".repeat(zeros))
            };
            let text = Scalar::of(&other).dimension().into_owned();
            let one = format!("{digits}e{shifted}");
            prop_assert_eq!(&text, &Scalar::of(&one).dimension());
            prop_assert_eq!(&text, &Scalar::of(&text).dimension());
        }
    }
}
