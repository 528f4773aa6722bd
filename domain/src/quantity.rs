//! Exact decimal quantities.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Decimal places of a [`Quantity`].
pub(crate) const PLACES: u32 = 12;
/// One whole unit in parts of 10⁻¹².
pub const UNIT: i128 = 1_000_000_000_000;
/// The largest magnitude: 26 digits before the point and 12 after it.
const PARTS_MAX: i128 = 100_000_000_000_000_000_000_000_000_000_000_000_000 - 1;
/// Exponents beyond this cannot give a value in range, however long the digits are.
const EXPONENT_MAX: i64 = 2_000_000;

/// A decimal with up to 26 digits before the point and 12 after it, kept as parts of 10⁻¹².
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Quantity(i128);

/// Why a text is no quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a decimal number.
    #[error("is not a decimal number")]
    Malformed,
    /// More than 26 digits before the point.
    #[error("has more than 26 digits before the point")]
    Overflow,
    /// More than 12 decimal places.
    #[error("has more than 12 decimal places")]
    TooPrecise,
}

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self(0);
    /// One.
    pub const ONE: Self = Self(UNIT);
    /// The largest quantity.
    pub const MAX: Self = Self(PARTS_MAX);

    /// A quantity of `parts` × 10⁻¹², or an overflow error.
    pub const fn from_parts(parts: i128) -> Result<Self, QuantityError> {
        if parts > PARTS_MAX || parts < -PARTS_MAX {
            return Err(QuantityError::Overflow);
        }
        Ok(Self(parts))
    }

    /// A whole number.
    pub const fn from_units(units: i64) -> Self {
        Self(units as i128 * UNIT)
    }

    /// The value in parts of 10⁻¹².
    pub const fn parts(self) -> i128 {
        self.0
    }

    /// Whether the value is below zero.
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// Whether the value is zero.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, or `None` on overflow.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0
            .checked_add(other.0)
            .and_then(|parts| Self::from_parts(parts).ok())
    }

    /// The difference, or `None` on overflow.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0
            .checked_sub(other.0)
            .and_then(|parts| Self::from_parts(parts).ok())
    }

    /// The value with its sign turned.
    #[must_use]
    pub const fn negated(self) -> Self {
        Self(-self.0)
    }

    /// Reads a decimal as a caller wrote it in a string: at most 12 places.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        match Self::parse_rounding(text)? {
            (value, false) => Ok(value),
            (_, true) => Err(QuantityError::TooPrecise),
        }
    }

    /// Reads a JSON number; more than 12 places are rounded half up (away from zero), told by the flag.
    pub(crate) fn parse_rounding(text: &str) -> Result<(Self, bool), QuantityError> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (digits, exponent) = split_exponent(unsigned)?;
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return Err(QuantityError::Malformed),
            Some(pair) => pair,
            None => (digits, ""),
        };
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
            return Err(QuantityError::Malformed);
        }
        let (parts, rounded) = scale(whole, fraction, exponent)?;
        let value = Self::from_parts(if negative { -parts } else { parts })?;
        Ok((value, rounded))
    }
}

pub(crate) fn split_exponent(text: &str) -> Result<(&str, i64), QuantityError> {
    let Some(at) = text.find(['e', 'E']) else {
        return Ok((text, 0));
    };
    let exponent = &text[at + 1..];
    let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::Malformed);
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

/// The parts of 10⁻¹² of `whole.fraction × 10^exponent`, and whether digits were rounded away.
#[expect(
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a text in memory fits 63 bits, and is one again"
)]
fn scale(whole: &str, fraction: &str, exponent: i64) -> Result<(i128, bool), QuantityError> {
    let digits = || whole.bytes().chain(fraction.bytes());
    // The number of leading digits that are kept as whole parts of 10⁻¹².
    let kept = length(whole) + exponent + i64::from(PLACES);
    let mut parts: i128 = 0;
    for (at, digit) in digits().enumerate() {
        let (at, digit) = (at as i64, i128::from(digit - b'0'));
        if at < kept {
            parts = parts
                .checked_mul(10)
                .and_then(|p| p.checked_add(digit))
                .ok_or(QuantityError::Overflow)?;
            if parts > PARTS_MAX {
                return Err(QuantityError::Overflow);
            }
        } else {
            let lost = digits().skip(at as usize).any(|d| d != b'0');
            let up = at == kept && digit >= 5;
            return Ok((parts + i128::from(up), lost));
        }
    }
    let missing = kept - length(whole) - length(fraction);
    if parts == 0 {
        return Ok((0, false));
    }
    let factor = u32::try_from(missing).ok().and_then(|m| 10i128.checked_pow(m));
    let parts = factor
        .and_then(|f| parts.checked_mul(f))
        .ok_or(QuantityError::Overflow)?;
    Ok((parts, false))
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

impl From<u32> for Quantity {
    fn from(units: u32) -> Self {
        Self(i128::from(units) * UNIT)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_plain(f, self.0, PLACES)
    }
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

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Strings and JSON numbers alike; a number that JSON made a float is read through its shortest spelling.
impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::quantity::wire::decimal_text(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Reading decimals from strings or numbers on the wire.
pub mod wire {
    use std::fmt;

    use serde::de::{Deserializer, Error, MapAccess, Visitor};

    /// By this name `serde_json` hands out a value as it was written, so that no number passes through a float.
    const AS_WRITTEN: &str = "$serde_json::private::RawValue";
    /// Significant digits that every float keeps.
    const FLOAT_DIGITS: usize = 15;

    fn significant_digits(text: &str) -> usize {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        digits.trim_matches('0').len()
    }

    /// The text of a decimal, as [`decimal_text`] reads it, or none for null.
    pub(crate) fn decimal_text_or_none<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<String>, D::Error> {
        #[derive(serde::Deserialize)]
        struct Text(#[serde(deserialize_with = "decimal_text")] String);
        Ok(<Option<Text> as serde::Deserialize>::deserialize(deserializer)?.map(|Text(text)| text))
    }

    /// The text of a decimal given as a string or as a number. A number is taken as it was written; where a format has
    /// made a float of it (TOML does), one with more digits than floats keep is refused.
    pub(crate) fn decimal_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = String;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal, as a string or a number")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
                Ok(text.to_owned())
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<String, E> {
                Ok(value.to_string())
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<String, E> {
                Ok(value.to_string())
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<String, E> {
                let text = value.to_string();
                if !value.is_finite() {
                    Err(E::custom("is not a finite number"))
                } else if significant_digits(&text) > FLOAT_DIGITS {
                    Err(E::custom(
                        "has more digits than a number here keeps: send it as a string",
                    ))
                } else {
                    Ok(text)
                }
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<String, D::Error> {
                inner.deserialize_any(Self)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<String, A::Error> {
                let unexpected = || A::Error::custom("must be a decimal, as a string or a number");
                if map.next_key::<String>()?.as_deref() != Some(AS_WRITTEN) {
                    return Err(unexpected());
                }
                let written: String = map.next_value()?;
                match written.as_bytes().first() {
                    Some(b'"') => serde_json::from_str(&written).map_err(A::Error::custom),
                    Some(b'-' | b'0'..=b'9') => Ok(written),
                    _ => Err(unexpected()),
                }
            }
        }
        deserializer.deserialize_newtype_struct(AS_WRITTEN, Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_numbers_are_taken_as_they_were_written() {
        for (json, text) in [
            (
                "12345678901234567890.123456789012",
                "12345678901234567890.123456789012",
            ),
            ("\"12.50\"", "12.5"),
            ("\"\\u0031\"", "1"),
            ("1e3", "1000"),
            ("0.1", "0.1"),
            ("-7", "-7"),
        ] {
            assert_eq!(
                serde_json::from_str::<Quantity>(json).unwrap().to_string(),
                text,
                "{json}"
            );
            let value: serde_json::Value = serde_json::from_str(json).unwrap();
            if text.len() < 16 {
                assert_eq!(
                    serde_json::from_value::<Quantity>(value).unwrap().to_string(),
                    text,
                    "{json}"
                );
            }
        }
        for json in [
            "1.0000000000000000001",
            "1e999",
            "true",
            "null",
            "[1]",
            "{}",
            "{\"a\":1}",
            "\"\"",
        ] {
            assert!(serde_json::from_str::<Quantity>(json).is_err(), "{json}");
        }
        assert_eq!(serde_json::from_str::<Option<Quantity>>("null").unwrap(), None);
    }

    #[test]
    fn reads_what_the_contract_allows() {
        for (text, parts) in [
            ("0", 0),
            ("-0", 0),
            ("1", UNIT),
            ("0.000000000001", 1),
            ("-12.5", -12 * UNIT - UNIT / 2),
            ("1e3", 1_000 * UNIT),
            ("25E-1", 2 * UNIT + UNIT / 2),
            ("0e999999999999999999999", 0),
            ("1.50", UNIT + UNIT / 2),
            ("99999999999999999999999999.999999999999", PARTS_MAX),
        ] {
            assert_eq!(Quantity::parse(text).map(Quantity::parts), Ok(parts), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        use QuantityError::{Malformed, Overflow, TooPrecise};
        for (text, error) in [
            ("", Malformed),
            ("-", Malformed),
            ("+1", Malformed),
            (".5", Malformed),
            ("1.", Malformed),
            ("1e", Malformed),
            ("NaN", Malformed),
            ("Infinity", Malformed),
            ("1,5", Malformed),
            (" 1", Malformed),
            ("1e40", Overflow),
            ("100000000000000000000000000", Overflow),
            ("99999999999999999999999999.9999999999995", Overflow),
            ("0.0000000000001", TooPrecise),
        ] {
            let read = Quantity::parse_rounding(text).and_then(|_| Quantity::parse(text));
            assert_eq!(read, Err(error), "{text}");
        }
    }

    #[test]
    fn rounds_json_numbers_half_up() {
        for (text, out, rounded) in [
            ("0.0000000000005", "0.000000000001", true),
            ("-0.0000000000005", "-0.000000000001", true),
            ("0.00000000000049", "0", true),
            ("1.0000000000000", "1", false),
            ("1e-13", "0", true),
            ("5e-13", "0.000000000001", true),
            ("12345e-14", "0.000000000123", true),
        ] {
            let (value, was) = Quantity::parse_rounding(text).unwrap();
            assert_eq!((value.to_string().as_str(), was), (out, rounded), "{text}");
        }
    }

    proptest! {
        #[test]
        fn display_then_parse_is_the_same(parts in -PARTS_MAX..=PARTS_MAX) {
            let value = Quantity::from_parts(parts).unwrap();
            prop_assert_eq!(Quantity::parse(&value.to_string()), Ok(value));
        }
    }
}
