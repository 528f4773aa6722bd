use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::numeral::{self, NumeralError, write_plain};
use crate::quantity::wire::decimal_text;

/// Decimal places of a [`Decimal`].
pub(crate) const DECIMAL_PLACES: u32 = 15;
/// The largest magnitude: 18 digits before the point and 15 after it.
const PARTS_MAX: u128 = 10_u128.pow(18 + DECIMAL_PLACES) - 1;

/// A unit price, an amount or a rate of a price: a decimal with up to 18 digits before the point and 15 after it,
/// kept as parts of 10⁻¹⁵. Amounts are in major units of the price's currency.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Decimal(i128);

impl utoipa::PartialSchema for Decimal {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        numeral::schema("A decimal with up to 18 digits before the point and 15 behind it.")
    }
}

impl utoipa::ToSchema for Decimal {}

/// Why a text is no [`Decimal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Not a decimal number.
    #[error("is not a decimal number such as 0.0004")]
    Malformed,
    /// More than 18 digits before the point.
    #[error("has more than 18 digits before the point")]
    Overflow,
    /// More than 15 decimal places.
    #[error("has more than 15 decimal places")]
    TooPrecise,
}

impl Decimal {
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// The value in parts of 10⁻¹⁵.
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

    /// Whether the value has at most `places` decimals that are not zero.
    pub const fn fits(self, places: u32) -> bool {
        places >= DECIMAL_PLACES || self.0 % 10i128.pow(DECIMAL_PLACES - places) == 0
    }

    /// Reads a decimal.
    pub fn parse(text: &str) -> Result<Self, DecimalError> {
        let read = numeral::read(text, DECIMAL_PLACES).map_err(|error| match error {
            NumeralError::Malformed => DecimalError::Malformed,
            NumeralError::Overflow => DecimalError::Overflow,
        })?;
        if read.parts.unsigned_abs() > PARTS_MAX {
            return Err(DecimalError::Overflow);
        }
        if read.rounded {
            return Err(DecimalError::TooPrecise);
        }
        Ok(Self(read.parts))
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, DecimalError> {
        Self::parse(text)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_plain(f, self.0, DECIMAL_PLACES)
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Strings and numbers alike.
impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        decimal_text(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One whole unit in parts of 10⁻¹⁵.
    const ONE: i128 = 1_000_000_000_000_000;
    use proptest::prelude::*;

    #[test]
    fn reads_up_to_fifteen_places() {
        for (text, parts) in [
            ("0", 0),
            ("29.00", 29 * ONE),
            ("0.0004", 400_000_000_000),
            ("0.000000000000001", 1),
            ("-0.5", -ONE / 2),
            ("1e-05", ONE / 100_000),
            ("1.50E2", 150 * ONE),
            ("-120e-1", -12 * ONE),
            ("0e400", 0),
            ("0.000001e5", ONE / 10),
            ("007", 7 * ONE),
            (
                "999999999999999999.999999999999999",
                999_999_999_999_999_999_999_999_999_999_999,
            ),
            ("1.5000000000000000000000", ONE + ONE / 2),
        ] {
            assert_eq!(Decimal::parse(text).map(Decimal::parts), Ok(parts), "{text}");
        }
        for (text, error) in [
            ("", DecimalError::Malformed),
            ("1.", DecimalError::Malformed),
            (".5", DecimalError::Malformed),
            ("1e", DecimalError::Malformed),
            ("1e400", DecimalError::Overflow),
            ("1e-16", DecimalError::TooPrecise),
            ("NaN", DecimalError::Malformed),
            ("--1", DecimalError::Malformed),
            ("1000000000000000000", DecimalError::Overflow),
            ("0.0000000000000001", DecimalError::TooPrecise),
        ] {
            assert_eq!(Decimal::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn knows_its_places() {
        assert!(Decimal::parse("12.34").unwrap().fits(2));
        assert!(!Decimal::parse("12.345").unwrap().fits(2));
        assert!(Decimal::parse("12").unwrap().fits(0));
        assert!(Decimal::parse("0.000000000000001").unwrap().fits(15));
    }

    proptest! {
        #[test]
        fn display_then_parse_is_the_same(parts in -10i128.pow(33) + 1..10i128.pow(33)) {
            let value = Decimal(parts);
            prop_assert_eq!(Decimal::parse(&value.to_string()), Ok(value));
        }
    }
}
