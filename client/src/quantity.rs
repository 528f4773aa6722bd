//! Exact decimals, as answers have them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const PLACES: usize = 12;
const UNIT: i128 = 10_i128.pow(12);
/// 26 digits before the point and 12 behind it.
const PARTS_MAX: i128 = 10_i128.pow(38) - 1;

/// A decimal with up to 26 digits before the point and 12 behind it, kept as parts of 10⁻¹²: what the engine counts in.
///
/// ```
/// use turnpike_client::Quantity;
///
/// let tokens: Quantity = "0.25".parse()?;
/// assert_eq!(tokens.parts(), 250_000_000_000);
/// assert_eq!(Quantity::from(3_u64).to_string(), "3");
/// # Ok::<(), turnpike_client::QuantityError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Quantity(i128);

/// A text is no decimal with up to 26 digits before the point and 12 behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a decimal with up to 26 digits before the point and 12 behind it")]
pub struct QuantityError;

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self(0);
    /// One.
    pub const ONE: Self = Self(UNIT);

    /// `parts` × 10⁻¹²; an error beyond 26 digits before the point.
    pub const fn from_parts(parts: i128) -> Result<Self, QuantityError> {
        if parts > PARTS_MAX || parts < -PARTS_MAX {
            return Err(QuantityError);
        }
        Ok(Self(parts))
    }

    /// The value in parts of 10⁻¹².
    pub const fn parts(self) -> i128 {
        self.0
    }
}

impl From<u64> for Quantity {
    fn from(units: u64) -> Self {
        // 20 digits at the most.
        Self(i128::from(units) * UNIT)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let plain = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = plain.split_once('.').unwrap_or((plain, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > PLACES {
            return Err(QuantityError);
        }
        let whole: i128 = whole.parse().map_err(|_| QuantityError)?;
        let fraction: i128 = format!("{fraction:0<PLACES$}")
            .parse()
            .map_err(|_| QuantityError)?;
        let parts = whole
            .checked_mul(UNIT)
            .and_then(|parts| parts.checked_add(fraction))
            .ok_or(QuantityError)?;
        Self::from_parts(if plain.len() < text.len() { -parts } else { parts })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let parts = self.0.unsigned_abs();
        let (whole, fraction) = (parts / UNIT.unsigned_abs(), parts % UNIT.unsigned_abs());
        if fraction == 0 {
            return write!(f, "{sign}{whole}");
        }
        let fraction = format!("{fraction:0PLACES$}");
        write!(f, "{sign}{whole}.{}", fraction.trim_end_matches('0'))
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|error| serde::de::Error::custom(format!("\"{text}\" {error}")))
    }
}
