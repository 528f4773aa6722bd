use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::record::EventRecord;

/// Whether two events of one name carry the same payload: type, subject, time as sent (absent is a value), and `data`
/// by meaning, where neither the order of keys nor the spelling of numbers matters.
pub fn same_meaning(a: &EventRecord<'_>, b: &EventRecord<'_>) -> bool {
    if let (Some(one), Some(other)) = (&a.grant, &b.grant) {
        return one.body_digest == other.body_digest;
    }
    let same_time = a.time_sent == b.time_sent && (!a.time_sent || a.time_us == b.time_us);
    let same_origin = a.grant.is_none() && b.grant.is_none();
    same_origin && same_time && a.kind == b.kind && a.subject == b.subject && same_json(a.data, b.data)
}

fn same_json(a: &str, b: &str) -> bool {
    let (a, b) = (a.trim(), b.trim());
    if a == b {
        return true;
    }
    match (a.as_bytes().first(), b.as_bytes().first()) {
        (Some(b'{'), Some(b'{')) => same_objects(a, b),
        (Some(b'['), Some(b'[')) => same_arrays(a, b),
        (Some(b'"'), Some(b'"')) => same_strings(a, b),
        (Some(b'-' | b'0'..=b'9'), Some(b'-' | b'0'..=b'9')) => canonical(a) == canonical(b),
        _ => false,
    }
}

fn same_objects(a: &str, b: &str) -> bool {
    type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;
    let (Ok(a), Ok(b)) = (
        serde_json::from_str::<Members<'_>>(a),
        serde_json::from_str::<Members<'_>>(b),
    ) else {
        return false;
    };
    a.len() == b.len()
        && a.iter()
            .all(|(key, one)| b.get(key).is_some_and(|two| same_json(one.get(), two.get())))
}

fn same_arrays(a: &str, b: &str) -> bool {
    let (Ok(a), Ok(b)) = (
        serde_json::from_str::<Vec<&RawValue>>(a),
        serde_json::from_str::<Vec<&RawValue>>(b),
    ) else {
        return false;
    };
    a.len() == b.len() && a.iter().zip(b).all(|(one, two)| same_json(one.get(), two.get()))
}

fn same_strings(a: &str, b: &str) -> bool {
    match (
        serde_json::from_str::<String>(a),
        serde_json::from_str::<String>(b),
    ) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// A number as (negative, digits without zeros at either end, power of ten of the last digit).
fn canonical(text: &str) -> (bool, String, i64) {
    let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], saturating_i64(&unsigned[at + 1..])),
        None => (unsigned, 0),
    };
    let fraction_digits = mantissa
        .split_once('.')
        .map_or(0, |(_, fraction)| fraction.len() as i64);
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let trimmed = digits.trim_end_matches('0');
    let power = exponent
        .saturating_sub(fraction_digits)
        .saturating_add((digits.len() - trimmed.len()) as i64);
    let trimmed = trimmed.trim_start_matches('0');
    if trimmed.is_empty() {
        (false, String::new(), 0)
    } else {
        (negative, trimmed.to_owned(), power)
    }
}

/// Exponents beyond 64 bits all count as the farthest: no quantity can be read from such a number anyway.
fn saturating_i64(text: &str) -> i64 {
    let clamp = if text.starts_with('-') { i64::MIN } else { i64::MAX };
    text.strip_prefix('+').unwrap_or(text).parse().unwrap_or(clamp)
}

#[cfg(test)]
mod tests {
    use super::same_json;

    #[test]
    fn spelling_does_not_matter() {
        for (a, b) in [
            (
                r#"{"a":1,"b":[true,null]}"#,
                r#"{ "b" : [true, null], "a": 1.0 }"#,
            ),
            (r#"{"a":100}"#, r#"{"a":1e2}"#),
            (r#"{"a":0}"#, r#"{"a":-0.00}"#),
            (r#"{"a":"é"}"#, r#"{"a":"\u00e9"}"#),
            (r#"{"\u0061":1}"#, r#"{"a":1}"#),
            ("1200e-2", "12"),
            (
                "123456789012345678901234567890.10",
                "123456789012345678901234567890.1",
            ),
        ] {
            assert!(same_json(a, b), "{a} {b}");
        }
    }

    #[test]
    fn meaning_does() {
        for (a, b) in [
            (r#"{"a":1}"#, r#"{"a":"1"}"#),
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
            ("[1,2]", "[2,1]"),
            (
                "123456789012345678901234567890.1",
                "123456789012345678901234567890.2",
            ),
            ("-1", "1"),
            ("true", "false"),
        ] {
            assert!(!same_json(a, b), "{a} {b}");
        }
    }
}
