//! Money: whole minor units of a currency.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::numeral::{self, NumeralError};
use crate::quantity::wire::decimal_text;

/// Currencies without a minor unit. Source: ISO 4217 and Stripe's list of zero-decimal currencies.
const ZERO_DECIMAL: [&str; 16] = [
    "BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF",
    "XPF",
];
/// Currencies with a minor unit of a thousandth. Source: ISO 4217.
const THREE_DECIMAL: [&str; 7] = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];

/// The codes that money is billed in. Source: ISO 4217, list one, less funds, metals, testing and "no currency"; those
/// that were replaced in 2025 and 2026 (ANG, BGN) stay, for amounts of before.
const CODES: &str = "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD \
    CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL \
    HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA \
    MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB \
    RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU \
    UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG";

/// An ISO 4217 code of a currency that money is billed in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

/// Why a text is no money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not the code of a currency.
    #[error("is not the ISO 4217 code of a currency, such as USD")]
    Currency,
    /// Not a decimal.
    #[error("is not a decimal amount")]
    Malformed,
    /// More decimals than the currency has.
    #[error("has more decimals than its currency")]
    TooPrecise,
    /// Beyond 64 bits of minor units.
    #[error("is too large")]
    Overflow,
    /// Two currencies in one sum.
    #[error("mixes two currencies")]
    Mixed,
}

impl Currency {
    /// US dollars.
    pub const USD: Self = Self(*b"USD");

    /// Reads a code, in capital letters.
    pub fn parse(code: &str) -> Result<Self, MoneyError> {
        match <[u8; 3]>::try_from(code.as_bytes()) {
            Ok(bytes) if CODES.split(' ').any(|known| known == code) => Ok(Self(bytes)),
            _ => Err(MoneyError::Currency),
        }
    }

    /// The code.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }

    /// Decimal places of an amount: 0, 2 or 3.
    pub fn places(&self) -> u32 {
        if ZERO_DECIMAL.contains(&self.code()) {
            0
        } else if THREE_DECIMAL.contains(&self.code()) {
            3
        } else {
            2
        }
    }

    /// An amount in minor units from its decimal text; fewer decimals than the currency has are fine, more are not.
    pub fn parse_amount(self, text: &str) -> Result<i64, MoneyError> {
        let read = numeral::read(text, self.places()).map_err(|error| match error {
            NumeralError::Malformed => MoneyError::Malformed,
            NumeralError::Overflow => MoneyError::Overflow,
        })?;
        if read.rounded {
            return Err(MoneyError::TooPrecise);
        }
        let minor = i64::try_from(read.parts).ok();
        // The least number of 64 bits has no opposite.
        minor
            .filter(|minor| *minor != i64::MIN)
            .ok_or(MoneyError::Overflow)
    }

    /// The decimal text of an amount in minor units, with all the currency's decimals.
    pub fn format_amount(self, minor: i64) -> String {
        let places = self.places();
        let unit = 10u64.pow(places);
        let (sign, magnitude) = (if minor < 0 { "-" } else { "" }, minor.unsigned_abs());
        if places == 0 {
            return format!("{sign}{magnitude}");
        }
        format!(
            "{sign}{}.{:0width$}",
            magnitude / unit,
            magnitude % unit,
            width = places as usize
        )
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// An amount of one currency. On the wire `{"amount": "12.34", "currency": "USD"}`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    minor: i64,
    currency: Currency,
}

impl Money {
    /// `minor` units of `currency`.
    pub const fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// Reads a decimal amount.
    pub fn parse(text: &str, currency: Currency) -> Result<Self, MoneyError> {
        Ok(Self::new(currency.parse_amount(text)?, currency))
    }

    /// The amount in minor units.
    pub const fn minor(self) -> i64 {
        self.minor
    }

    /// The currency.
    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// The sum; an error on overflow or when the currencies differ.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::Mixed);
        }
        let minor = self.minor.checked_add(other.minor).ok_or(MoneyError::Overflow)?;
        Ok(Self::new(minor, self.currency))
    }

    /// The difference; an error on overflow or when the currencies differ.
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        let minor = other.minor.checked_neg().ok_or(MoneyError::Overflow)?;
        self.checked_add(Self::new(minor, other.currency))
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.currency.format_amount(self.minor), self.currency)
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MoneyWire {
    #[serde(deserialize_with = "decimal_text")]
    amount: String,
    currency: Currency,
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let amount = self.currency.format_amount(self.minor);
        MoneyWire {
            amount,
            currency: self.currency,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = MoneyWire::deserialize(deserializer)?;
        Self::parse(&wire.amount, wire.currency).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_follow_the_decimals_of_the_currency() {
        let (usd, jpy) = (Currency::USD, Currency::parse("JPY").unwrap());
        let kwd = Currency::parse("KWD").unwrap();
        assert_eq!(usd.parse_amount("12.3"), Ok(1230));
        assert_eq!(usd.parse_amount("-0.01"), Ok(-1));
        assert_eq!(usd.parse_amount("1.2300"), Ok(123));
        assert_eq!(usd.parse_amount("1.234"), Err(MoneyError::TooPrecise));
        assert_eq!(jpy.parse_amount("45"), Ok(45));
        assert_eq!(jpy.parse_amount("45.5"), Err(MoneyError::TooPrecise));
        assert_eq!(kwd.format_amount(1_005), "1.005");
        assert_eq!(usd.format_amount(-5), "-0.05");
        assert_eq!(usd.parse_amount("1e3"), Ok(100_000));
        assert_eq!(usd.parse_amount("1.25e-0"), Ok(125));
        assert_eq!(usd.parse_amount("1e-3"), Err(MoneyError::TooPrecise));
        assert_eq!(usd.parse_amount("1e"), Err(MoneyError::Malformed));
        assert_eq!(jpy.parse_amount("9223372036854775807"), Ok(i64::MAX));
        assert_eq!(
            jpy.parse_amount("-9223372036854775808"),
            Err(MoneyError::Overflow)
        );
        assert_eq!(
            usd.parse_amount("99999999999999999999"),
            Err(MoneyError::Overflow)
        );
        for code in ["usd", "XXX", "XTS", "XAU", "US", "USDT", "", "USD ", "DEM", "Ü$"] {
            assert_eq!(Currency::parse(code), Err(MoneyError::Currency), "{code}");
        }
    }

    #[test]
    fn the_codes_are_distinct_and_those_of_other_decimals_are_among_them() {
        let codes: Vec<&str> = CODES.split(' ').collect();
        assert!(codes.is_sorted_by(|a, b| a < b) && codes.iter().all(|code| code.len() == 3));
        for code in ZERO_DECIMAL.iter().chain(&THREE_DECIMAL) {
            assert!(codes.contains(code), "{code}");
        }
    }

    proptest! {
        #[test]
        fn format_then_parse_is_the_same(minor in -i64::MAX..i64::MAX) {
            for code in ["USD", "JPY", "KWD"] {
                let currency = Currency::parse(code).unwrap();
                prop_assert_eq!(currency.parse_amount(&currency.format_amount(minor)), Ok(minor));
            }
        }
    }
}
