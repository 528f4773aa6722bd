//! Exact decimal quantities.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::numeral::{self, NumeralError, Plain, write_plain};

/// Decimal places of a [`Quantity`].
pub(crate) const PLACES: u32 = 12;
/// One whole unit in parts of 10⁻¹².
pub const UNIT: i128 = 1_000_000_000_000;
/// How decimals are written, as a pattern for descriptions.
pub const DECIMAL_PATTERN: &str = numeral::PATTERN;
/// The largest magnitude: 26 digits before the point and 12 after it.
const PARTS_MAX: i128 = 100_000_000_000_000_000_000_000_000_000_000_000_000 - 1;

/// Appends a whole number: the same text as of `Display`, for a fraction of what formatting costs.
pub fn push_whole(number: u64, text: &mut Vec<u8>) {
    text.extend_from_slice(Plain::whole(number).as_bytes());
}

/// A decimal with up to 26 digits before the point and 12 after it, kept as parts of 10⁻¹².
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Quantity(i128);

impl utoipa::PartialSchema for Quantity {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        numeral::schema("A decimal with up to 26 digits before the point and 12 behind it.")
    }
}

impl utoipa::ToSchema for Quantity {}

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

    /// Appends the decimal as answers have it: the same text as of `Display`, for a fraction of what formatting costs.
    pub fn push_to(self, text: &mut Vec<u8>) {
        text.extend_from_slice(Plain::new(self.0, PLACES).as_bytes());
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
        let read = numeral::read(text, PLACES)?;
        Ok((Self::from_parts(read.parts)?, read.rounded))
    }
}

impl From<NumeralError> for QuantityError {
    fn from(error: NumeralError) -> Self {
        match error {
            NumeralError::Malformed => Self::Malformed,
            NumeralError::Overflow => Self::Overflow,
        }
    }
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

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Plain::new(self.0, PLACES).as_str())
    }
}

/// Strings and JSON numbers alike; a number that JSON made a float is read through its shortest spelling.
impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = wire::decimal(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Reading decimals from strings or numbers on the wire.
pub mod wire {
    use std::borrow::Cow;
    use std::fmt;

    use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

    /// By this name `serde_json` hands out a value as it was written, so that no number passes through a float.
    const AS_WRITTEN: &str = "$serde_json::private::RawValue";
    /// Significant digits that every float keeps.
    const FLOAT_DIGITS: usize = 15;

    /// Whether a number that is written as `text` means the same behind a float.
    pub fn survives_float(text: &str) -> bool {
        let (mantissa, _) = text.split_once(['e', 'E']).unwrap_or((text, ""));
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        digits.trim_matches('0').len() <= FLOAT_DIGITS
    }

    /// A string, number or boolean, as it was written.
    pub(crate) enum Written<'de> {
        /// A string.
        Text(Cow<'de, str>),
        /// The digits of a number.
        Number(Cow<'de, str>),
        /// `true` or `false`.
        Bool(bool),
    }

    /// The text of a decimal, as [`decimal_text`] reads it, or none for null.
    pub(crate) fn decimal_text_or_none<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<String>, D::Error> {
        #[derive(serde::Deserialize)]
        struct Decimal(#[serde(deserialize_with = "decimal_text")] String);
        Ok(<Option<Decimal> as serde::Deserialize>::deserialize(deserializer)?.map(|Decimal(text)| text))
    }

    /// The text of a decimal given as a string or as a number, as [`written`] reads it.
    pub(crate) fn decimal_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        decimal(deserializer).map(Cow::into_owned)
    }

    /// The same, where it stands if it can be had there.
    pub(super) fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        const DECIMAL: &str = "a decimal, as a string or a number";
        match written(deserializer, DECIMAL)? {
            Written::Text(text) | Written::Number(text) => Ok(text),
            Written::Bool(_) => Err(D::Error::custom(format_args!("must be {DECIMAL}"))),
        }
    }

    /// A string, number or boolean; `wanted` says what it should be. A number is taken as it was written; where a format
    /// has made a float of it (TOML does), one with more digits than floats keep is refused.
    pub(crate) fn written<'de, D: Deserializer<'de>>(
        deserializer: D,
        wanted: &'static str,
    ) -> Result<Written<'de>, D::Error> {
        deserializer.deserialize_newtype_struct(AS_WRITTEN, Wanted(wanted))
    }

    /// Reads what is written. Holds the words for what it should be.
    struct Wanted(&'static str);

    impl<'de> Visitor<'de> for Wanted {
        type Value = Written<'de>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_bool<E: Error>(self, value: bool) -> Result<Written<'de>, E> {
            Ok(Written::Bool(value))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Written<'de>, E> {
            Ok(Written::Text(text.to_owned().into()))
        }

        fn visit_i64<E: Error>(self, value: i64) -> Result<Written<'de>, E> {
            Ok(Written::Number(value.to_string().into()))
        }

        fn visit_u64<E: Error>(self, value: u64) -> Result<Written<'de>, E> {
            Ok(Written::Number(value.to_string().into()))
        }

        fn visit_f64<E: Error>(self, value: f64) -> Result<Written<'de>, E> {
            let text = value.to_string();
            if !value.is_finite() {
                Err(E::custom("is not a finite number"))
            } else if survives_float(&text) {
                Ok(Written::Number(text.into()))
            } else {
                Err(E::custom(
                    "has more digits than a number here keeps: send it as a string",
                ))
            }
        }

        fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Written<'de>, D::Error> {
            inner.deserialize_any(self)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Written<'de>, A::Error> {
            let unexpected = || A::Error::custom(format_args!("must be {}", self.0));
            if map.next_key_seed(Text)?.is_none_or(|name| name != AS_WRITTEN) {
                return Err(unexpected());
            }
            of_json(map.next_value_seed(Text)?)
                .map_err(A::Error::custom)?
                .ok_or_else(unexpected)
        }
    }

    /// What a piece of JSON is, none for what is neither text, number nor boolean.
    fn of_json(written: Cow<'_, str>) -> serde_json::Result<Option<Written<'_>>> {
        Ok(match written.as_bytes() {
            [b'"', plain @ .., b'"'] if !plain.contains(&b'\\') => Some(Written::Text(match written {
                Cow::Borrowed(text) => text[1..text.len() - 1].into(),
                Cow::Owned(text) => text[1..text.len() - 1].to_owned().into(),
            })),
            [b'"', ..] => Some(Written::Text(serde_json::from_str::<String>(&written)?.into())),
            [b'-' | b'0'..=b'9', ..] => Some(Written::Number(written)),
            b"true" => Some(Written::Bool(true)),
            b"false" => Some(Written::Bool(false)),
            _ => None,
        })
    }

    /// Reads a text, where it stands if it can be had there.
    struct Text;

    impl<'de> DeserializeSeed<'de> for Text {
        type Value = Cow<'de, str>;

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
            deserializer.deserialize_str(self)
        }
    }

    impl<'de> Visitor<'de> for Text {
        type Value = Cow<'de, str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
            Ok(text.into())
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Cow<'de, str>, E> {
            Ok(text.to_owned().into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whole_numbers_are_as_the_library_writes_them() {
        for number in [0, 9, 10, 99, 100, 12_345, u64::MAX - 1, u64::MAX] {
            let mut text = b"w=".to_vec();
            push_whole(number, &mut text);
            assert_eq!(text, format!("w={number}").as_bytes());
        }
    }

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
