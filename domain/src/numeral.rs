//! Decimals as texts: the one way in which any of them is read. A sign, digits, a point with digits behind it, and an
//! exponent (`1e-05`, as some encoders of JSON write small numbers); nothing else.

use std::fmt;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

/// What is read, as a pattern for descriptions.
pub(crate) const PATTERN: &str = r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$";

/// A decimal as answers have it, for descriptions; calls may send a number too.
pub(crate) fn schema(description: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(PATTERN))
        .description(Some(description))
        .into()
}

/// Exponents beyond this cannot give a value in range, however long the digits are.
const EXPONENT_MAX: i64 = 2_000_000;

/// Why a text is no decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NumeralError {
    /// It is spelled in another way.
    Malformed,
    /// It has more than 127 bits.
    Overflow,
}

/// A decimal in whole parts of a power of ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numeral {
    /// The parts, rounded half up (away from zero).
    pub(crate) parts: i128,
    /// Whether digits were rounded away.
    pub(crate) rounded: bool,
}

/// Reads `text` in parts of 10^-`places`.
pub(crate) fn read(text: &str, places: u32) -> Result<Numeral, NumeralError> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (digits, exponent) = split_exponent(unsigned)?;
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, "")) => return Err(NumeralError::Malformed),
        Some(pair) => pair,
        None => (digits, ""),
    };
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return Err(NumeralError::Malformed);
    }
    let read = scale(whole, fraction, exponent + i64::from(places))?;
    let parts = if negative { -read.parts } else { read.parts };
    Ok(Numeral { parts, ..read })
}

fn split_exponent(text: &str) -> Result<(&str, i64), NumeralError> {
    let Some(at) = text.find(['e', 'E']) else {
        return Ok((text, 0));
    };
    let exponent = &text[at + 1..];
    let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NumeralError::Malformed);
    }
    let magnitude = unsigned.parse::<i64>().unwrap_or(EXPONENT_MAX).min(EXPONENT_MAX);
    Ok((
        &text[..at],
        if exponent.starts_with('-') {
            -magnitude
        } else {
            magnitude
        },
    ))
}

/// The bytes of a text: beyond 63 bits there is no memory for one.
pub(crate) fn length(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}

/// The whole parts of `whole.fraction × 10^shift`.
#[expect(
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a text in memory fits 63 bits, and is one again"
)]
fn scale(whole: &str, fraction: &str, shift: i64) -> Result<Numeral, NumeralError> {
    let digits = || whole.bytes().chain(fraction.bytes());
    // The number of leading digits that are kept.
    let kept = length(whole) + shift;
    let mut parts: i128 = 0;
    for (at, digit) in digits().enumerate() {
        let (at, digit) = (at as i64, i128::from(digit - b'0'));
        if at < kept {
            parts = parts
                .checked_mul(10)
                .and_then(|p| p.checked_add(digit))
                .ok_or(NumeralError::Overflow)?;
        } else {
            let rounded = digits().skip(at as usize).any(|d| d != b'0');
            let up = at == kept && digit >= 5;
            let parts = parts.checked_add(i128::from(up));
            let parts = parts.ok_or(NumeralError::Overflow)?;
            return Ok(Numeral { parts, rounded });
        }
    }
    let missing = kept - length(whole) - length(fraction);
    let rounded = false;
    if parts == 0 {
        return Ok(Numeral { parts, rounded });
    }
    let factor = u32::try_from(missing).ok().and_then(|m| 10i128.checked_pow(m));
    let parts = factor
        .and_then(|f| parts.checked_mul(f))
        .ok_or(NumeralError::Overflow)?;
    Ok(Numeral { parts, rounded })
}

/// Writes `parts` of 10^-`places` as a plain decimal without zeros at its end.
pub(crate) fn write_plain(f: &mut fmt::Formatter<'_>, parts: i128, places: u32) -> fmt::Result {
    let unit = 10_u128.pow(places);
    let (whole, rest) = (parts.unsigned_abs() / unit, parts.unsigned_abs() % unit);
    if parts < 0 {
        f.write_str("-")?;
    }
    if rest == 0 {
        return write!(f, "{whole}");
    }
    let digits = format!("{rest:0width$}", width = places as usize);
    write!(f, "{whole}.{}", digits.trim_end_matches('0'))
}
