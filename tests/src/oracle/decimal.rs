use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One as _, Signed as _, Zero as _};

/// The exact value of a decimal text.
///
/// # Panics
/// Where the text is no decimal: the oracle is only asked what a test knows to be one.
pub fn decimal(text: &str) -> BigRational {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: BigInt = format!("{whole}{fraction}").parse().expect("a decimal");
    let power =
        exponent.parse::<i32>().expect("an exponent") - i32::try_from(fraction.len()).expect("a short text");
    let ten = BigRational::from(BigInt::from(10));
    BigRational::from(digits) * ten.pow(power)
}

/// The decimal text of a value, rounded half up (away from zero) at `places`, without zeros at its end.
pub fn show(value: &BigRational, places: u32) -> String {
    let scale = BigRational::from(BigInt::from(10).pow(places));
    let half = BigRational::new(BigInt::one(), BigInt::from(2));
    let rounded = (value.abs() * scale + half).floor().to_integer();
    let digits = format!("{rounded:0>width$}", width = places as usize + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places as usize);
    let fraction = fraction.trim_end_matches('0');
    let sign = if value.is_negative() && !rounded.is_zero() {
        "-"
    } else {
        ""
    };
    if fraction.is_empty() {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_shows() {
        for (text, places, out) in [
            ("1.50", 12, "1.5"),
            ("-0.005", 2, "-0.01"),
            ("1e3", 0, "1000"),
            ("25e-1", 0, "3"),
            ("-0.001", 2, "0"),
            ("0", 12, "0"),
            (
                "123456789012345678901234567890.5",
                2,
                "123456789012345678901234567890.5",
            ),
        ] {
            assert_eq!(show(&decimal(text), places), out, "{text}");
        }
    }
}
