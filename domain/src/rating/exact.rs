use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Mul, Sub};

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::RatingError;
use super::decimal::{DECIMAL_PLACES, Decimal};
use crate::money::Currency;
use crate::quantity::{PLACES, Quantity};

/// Decimals after which a fraction without an end is cut when it is shown.
const SHOWN_PLACES_MAX: usize = 60;

/// An exact number: a fraction of big integers. Never rounded but by [`Exact::to_minor`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Exact(BigRational);

impl Exact {
    /// Zero.
    pub fn zero() -> Self {
        Self(BigRational::zero())
    }

    /// One.
    pub fn one() -> Self {
        Self(BigRational::one())
    }

    /// A whole number.
    pub fn whole(value: i64) -> Self {
        Self(BigRational::from_integer(value.into()))
    }

    /// `numerator` / `denominator`; `None` for a denominator of zero.
    pub fn fraction(numerator: i64, denominator: i64) -> Option<Self> {
        (denominator != 0).then(|| Self(BigRational::new(numerator.into(), denominator.into())))
    }

    /// `minor` units of `currency` in major units.
    pub fn from_minor(minor: i64, currency: Currency) -> Self {
        Self(BigRational::new(minor.into(), power_of_ten(currency.places())))
    }

    /// A hundredth of it: what a rate in per cent is multiplied by.
    #[must_use]
    pub fn percent(&self) -> Self {
        Self(&self.0 / BigInt::from(100))
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.0.is_zero()
    }

    /// The quotient, rounded to a whole number away from or towards zero; `None` for a divisor of zero.
    pub(crate) fn divided_whole(&self, divisor: &Self, up: bool) -> Option<Self> {
        if divisor.is_zero() {
            return None;
        }
        let quotient = &self.0 / &divisor.0;
        Some(Self(if up { quotient.ceil() } else { quotient.floor() }))
    }

    /// The whole minor units of `currency` nearest to this amount in major units; a half goes away from zero.
    /// An error beyond 64 bits.
    pub fn to_minor(&self, currency: Currency) -> Result<i64, RatingError> {
        let scaled = &self.0 * power_of_ten(currency.places());
        round_half_away(&scaled).to_i64().ok_or(RatingError::Overflow)
    }

    /// The nearest multiple of `step` minor units, in minor units; a half goes away from zero.
    pub fn to_minor_step(&self, currency: Currency, step: i64) -> Result<i64, RatingError> {
        let scaled = &self.0 * power_of_ten(currency.places()) / BigInt::from(step.max(1));
        let steps = round_half_away(&scaled).to_i64().ok_or(RatingError::Overflow)?;
        steps.checked_mul(step.max(1)).ok_or(RatingError::Overflow)
    }
}

fn power_of_ten(places: u32) -> BigInt {
    BigInt::from(10).pow(places)
}

fn round_half_away(value: &BigRational) -> BigInt {
    let doubled: BigInt = value.numer().abs() * 2 + value.denom();
    let magnitude: BigInt = doubled / (value.denom() * 2);
    if value.is_negative() {
        -magnitude
    } else {
        magnitude
    }
}

impl From<Decimal> for Exact {
    fn from(value: Decimal) -> Self {
        Self(BigRational::new(
            value.parts().into(),
            power_of_ten(DECIMAL_PLACES),
        ))
    }
}

impl From<Quantity> for Exact {
    fn from(value: Quantity) -> Self {
        Self(BigRational::new(value.parts().into(), power_of_ten(PLACES)))
    }
}

impl Add for &Exact {
    type Output = Exact;

    fn add(self, other: Self) -> Exact {
        Exact(&self.0 + &other.0)
    }
}

impl Sub for &Exact {
    type Output = Exact;

    fn sub(self, other: Self) -> Exact {
        Exact(&self.0 - &other.0)
    }
}

impl Mul for &Exact {
    type Output = Exact;

    fn mul(self, other: Self) -> Exact {
        Exact(&self.0 * &other.0)
    }
}

impl std::iter::Sum for Exact {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::zero(), |sum, value| &sum + &value)
    }
}

/// As a decimal with all its digits; one without an end is cut after 60 places.
impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_negative() {
            f.write_str("-")?;
        }
        let magnitude = self.0.abs();
        write!(f, "{}", magnitude.to_integer())?;
        let mut rest = magnitude.fract();
        let mut digits = String::new();
        while !rest.is_zero() && digits.len() < SHOWN_PLACES_MAX {
            rest *= BigInt::from(10);
            digits.push_str(&rest.to_integer().to_string());
            rest = rest.fract();
        }
        match digits.trim_end_matches('0') {
            "" => Ok(()),
            digits => write!(f, ".{digits}"),
        }
    }
}

impl PartialEq<i64> for Exact {
    fn eq(&self, other: &i64) -> bool {
        *self == Self::whole(*other)
    }
}

impl PartialOrd<i64> for Exact {
    fn partial_cmp(&self, other: &i64) -> Option<Ordering> {
        self.partial_cmp(&Self::whole(*other))
    }
}

impl Default for Exact {
    fn default() -> Self {
        Self::zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exact(text: &str) -> Exact {
        Decimal::parse(text).unwrap().into()
    }

    #[test]
    fn halves_go_away_from_zero() {
        let jpy = Currency::parse("JPY").unwrap();
        for (text, currency, minor) in [
            ("0.024", Currency::USD, 2),
            ("0.025", Currency::USD, 3),
            ("-0.025", Currency::USD, -3),
            ("-0.0249", Currency::USD, -2),
            ("1000.5", jpy, 1001),
            ("1000.49", jpy, 1000),
            ("17.969999999999999", Currency::USD, 1797),
        ] {
            assert_eq!(exact(text).to_minor(currency), Ok(minor), "{text}");
        }
        assert_eq!(exact("0.0145").to_minor_step(Currency::USD, 1), Ok(1));
        assert_eq!(exact("0.145").to_minor_step(Currency::USD, 10), Ok(10));
        assert_eq!(exact("0.155").to_minor_step(Currency::USD, 10), Ok(20));
        assert_eq!(
            exact("92233720368547758.08").to_minor(Currency::USD),
            Err(RatingError::Overflow)
        );
        assert_eq!(
            exact("92233720368547758.07").to_minor(Currency::USD),
            Ok(i64::MAX)
        );
    }

    #[test]
    fn shows_all_digits() {
        assert_eq!(
            (&exact("0.000000000000001") * &exact("0.1")).to_string(),
            "0.0000000000000001"
        );
        assert_eq!(exact("-1300.50").to_string(), "-1300.5");
        assert_eq!(Exact::fraction(1, 3).unwrap().to_string().len(), 62);
        assert_eq!(Exact::zero().to_string(), "0");
    }

    proptest! {
        #[test]
        fn rounding_is_the_nearest(parts in any::<i64>()) {
            let value = Exact(BigRational::new(parts.into(), 100_000.into()));
            let minor = value.to_minor(Currency::USD).unwrap();
            let error = (i128::from(minor) * 1_000 - i128::from(parts)).abs();
            prop_assert!(error <= 500);
            prop_assert_eq!(error == 500, parts % 1_000 == 500 * i64::from(parts.signum() as i32) && parts != 0);
            if error == 500 {
                prop_assert!(i128::from(minor).abs() * 1_000 > i128::from(parts).abs());
            }
        }
    }
}
