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
    match short(text.as_bytes(), places) {
        Some(parts) => Ok(Numeral {
            parts,
            rounded: false,
        }),
        None => read_any(text, places),
    }
}

/// Digits of a number that 64 bits hold whatever they are.
const SHORT_BYTES_MAX: usize = 19;
/// Powers of ten that 64 bits hold.
const POWERS: [u64; 20] = {
    let mut powers = [1; 20];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// A short decimal without sign and exponent, as nearly all are, in parts of 10^-`places`: in 64 bits but for the last step.
/// `None` for every other text, whatever it is.
fn short(text: &[u8], places: u32) -> Option<i128> {
    if text.is_empty() || text.len() > SHORT_BYTES_MAX {
        return None;
    }
    let (mut number, mut whole) = (0_u64, None);
    for (at, byte) in text.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            number = number * 10 + u64::from(digit);
        } else if *byte == b'.' && whole.is_none() && at > 0 && at + 1 < text.len() {
            whole = Some(at);
        } else {
            return None;
        }
    }
    let behind = whole.map_or(0, |whole| text.len() - whole - 1);
    let missing = usize::try_from(places).ok()?.checked_sub(behind)?;
    // 10^19 × 10^19 is less than 2^127.
    Some(i128::from(number) * i128::from(*POWERS.get(missing)?))
}

/// The same for any text.
fn read_any(text: &str, places: u32) -> Result<Numeral, NumeralError> {
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

/// Bytes of a [`Plain`] at the most: a sign, a point, and the digits of 128 bits, or as many zeros as there are places.
const PLAIN_BYTES_MAX: usize = 48;

/// Digits that are written as one number of 64 bits, and the first number that has more.
const WORD_DIGITS: usize = 18;
const WORD: u128 = 10_u128.pow(18);

/// A plain decimal without zeros at its end, written from its last digit to its first: answers have many of them, and
/// the means of formatting cost several times as much.
pub(crate) struct Plain {
    bytes: [u8; PLAIN_BYTES_MAX],
    from: usize,
}

impl Plain {
    /// `parts` of 10^-`places`, at most 38.
    #[inline]
    pub(crate) fn new(parts: i128, places: u32) -> Self {
        let mut text = Self {
            bytes: [b'0'; PLAIN_BYTES_MAX],
            from: PLAIN_BYTES_MAX,
        };
        let (whole, rest) = divide(parts.unsigned_abs(), 10_u128.pow(places));
        if rest > 0 {
            text.fraction(rest, places);
            text.push(b'.');
        }
        match u64::try_from(whole) {
            Ok(whole) => text.word(whole),
            Err(_) => text.number(whole),
        }
        if parts < 0 {
            text.push(b'-');
        }
        text
    }

    /// A whole number.
    pub(crate) fn whole(number: u64) -> Self {
        let mut text = Self {
            bytes: [b'0'; PLAIN_BYTES_MAX],
            from: PLAIN_BYTES_MAX,
        };
        text.word(number);
        text
    }

    /// The text: digits, a point and a sign, which are ASCII.
    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.from..]
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    fn push(&mut self, byte: u8) {
        self.from -= 1;
        self.bytes[self.from] = byte;
    }

    fn fraction(&mut self, mut rest: u128, places: u32) {
        let mut missing = places;
        loop {
            let (tenth, digit) = divide(rest, 10);
            if digit != 0 {
                break;
            }
            (rest, missing) = (tenth, missing - 1);
        }
        let end = self.from;
        self.number(rest);
        // What stands before the digits is zeros already.
        self.from = end - missing as usize;
    }

    /// The digits of a number, with no zeros before them; one zero for nothing.
    fn number(&mut self, mut number: u128) {
        loop {
            let end = self.from;
            let (above, low) = divide(number, WORD);
            self.word(u64::try_from(low).unwrap_or_default());
            if above == 0 {
                return;
            }
            // What stands before the digits is zeros already.
            self.from = end - WORD_DIGITS;
            number = above;
        }
    }

    fn word(&mut self, mut number: u64) {
        while number >= 100 {
            self.two(number % 100);
            number /= 100;
        }
        if number >= 10 {
            self.two(number);
        } else {
            let [digit, ..] = number.to_le_bytes();
            self.push(b'0' + digit);
        }
    }

    fn two(&mut self, number: u64) {
        self.from -= 2;
        self.bytes[self.from..self.from + 2].copy_from_slice(&two_digits(number));
    }
}

/// The digits of a number below 100.
#[inline]
pub(crate) fn two_digits(number: u64) -> [u8; 2] {
    let [tens, ..] = (number / 10).to_le_bytes();
    let [ones, ..] = (number % 10).to_le_bytes();
    [b'0' + tens, b'0' + ones]
}

/// Quotient and rest; most numbers fit 64 bits, for which the processor has an instruction.
#[inline]
fn divide(number: u128, by: u128) -> (u128, u128) {
    if let (Ok(number), Ok(by)) = (u64::try_from(number), u64::try_from(by)) {
        return ((number / by).into(), (number % by).into());
    }
    let quotient = number / by;
    (quotient, number - quotient * by)
}

/// Writes `parts` of 10^-`places` as a plain decimal without zeros at its end.
pub(crate) fn write_plain(f: &mut fmt::Formatter<'_>, parts: i128, places: u32) -> fmt::Result {
    f.write_str(Plain::new(parts, places).as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by the library's formatting.
    fn formatted(parts: i128, places: u32) -> String {
        let unit = 10_u128.pow(places);
        let (whole, rest) = (parts.unsigned_abs() / unit, parts.unsigned_abs() % unit);
        let sign = if parts < 0 { "-" } else { "" };
        let digits = format!("{rest:0width$}", width = places as usize);
        let plain = format!("{sign}{whole}.{digits}");
        let plain = if places == 0 {
            format!("{sign}{whole}")
        } else {
            plain
        };
        if rest == 0 {
            return format!("{sign}{whole}");
        }
        plain.trim_end_matches('0').to_owned()
    }

    #[test]
    fn the_largest_and_smallest_have_room() {
        for places in [0, 12, 15, 38] {
            for parts in [0, 1, -1, 10, i128::MAX, i128::MIN, i128::MIN + 1] {
                assert_eq!(Plain::new(parts, places).as_str(), formatted(parts, places));
            }
        }
    }

    #[test]
    fn a_short_decimal_is_read_as_any_is() {
        let nines = [
            "9".repeat(18),
            "9".repeat(19),
            "9".repeat(20),
            format!("{}.9", "9".repeat(17)),
        ];
        let others = [
            "",
            ".",
            "1.",
            ".1",
            "1..2",
            "1.2.3",
            "-1",
            "+1",
            "1e3",
            " 1",
            "0",
            "00.10",
            "0.0000000000001",
        ];
        for text in nines.iter().map(String::as_str).chain(others) {
            for places in [0, 1, 12, 19, 20, 38] {
                assert_eq!(
                    read(text, places),
                    read_any(text, places),
                    "{text:?} in {places} places"
                );
            }
        }
        assert_eq!(short(b"12.5", 3), Some(12_500));
        assert_eq!(short(b"12.5", 0), None, "that would be rounded");
    }

    proptest! {
        #[test]
        fn decimals_are_read_the_same_in_both_ways(text in "[0-9]{0,20}(\\.[0-9]{0,14})?", places in 0u32..22) {
            prop_assert_eq!(read(&text, places), read_any(&text, places));
        }

        #[test]
        fn plain_decimals_are_as_the_library_writes_them(parts in any::<i128>(), shift in 0u32..127, places in 0u32..20) {
            let parts = parts >> shift;
            let plain = Plain::new(parts, places);
            prop_assert_eq!(plain.as_str(), formatted(parts, places));
        }
    }
}
