use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::numeral::length;
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

/// A number as (negative, digits without zeros at either end, power of ten of the last digit, in decimal).
fn canonical(text: &str) -> (bool, String, String) {
    let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], &unsigned[at + 1..]),
        None => (unsigned, "0"),
    };
    let fraction_digits = mantissa
        .split_once('.')
        .map_or(0, |(_, fraction)| length(fraction));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let trimmed = digits.trim_end_matches('0');
    let power = plus(exponent, length(&digits) - length(trimmed) - fraction_digits);
    let trimmed = trimmed.trim_start_matches('0');
    if trimmed.is_empty() {
        (false, String::new(), String::new())
    } else {
        (negative, trimmed.to_owned(), power)
    }
}

/// The exponent that `text` says, of any length, and `step`, which counts digits of a text: in decimal, without zeros before it.
/// In time linear in the text, for it may be as long as an event.
fn plus(text: &str, step: i64) -> String {
    let sum = text.parse::<i128>().ok();
    if let Some(sum) = sum.and_then(|exponent| exponent.checked_add(step.into())) {
        return sum.to_string();
    }
    // So far from 0 that no step leads to the other side.
    let (sign, step) = if text.starts_with('-') {
        ("-", -step)
    } else {
        ("", step)
    };
    let mut carry = step;
    let mut ascending = Vec::with_capacity(text.len());
    for digit in text.bytes().rev().filter(u8::is_ascii_digit) {
        carry += i64::from(digit - b'0');
        // The remainder of a division by ten is a digit.
        ascending.push(b'0' + u8::try_from(carry.rem_euclid(10)).unwrap_or_default());
        carry = carry.div_euclid(10);
    }
    let digits: String = ascending.iter().rev().map(|digit| char::from(*digit)).collect();
    let digits = format!("{carry}{digits}");
    format!("{sign}{}", digits.trim_start_matches('0'))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::record::GrantRecord;
    use proptest::prelude::*;

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
            (r#"{"a":9,"a":1}"#, r#"{"a":1}"#),
            ("1200e-2", "12"),
            ("0e400", "0"),
            ("1e+2", "1E2"),
            ("0.1e9223372036854775808", "1e9223372036854775807"),
            ("10e9223372036854775807", "1e9223372036854775808"),
            ("10e-9223372036854775809", "1e-9223372036854775808"),
            // At both sides of 127 bits, and far beyond, where a digit is carried through all of them.
            (
                "0.1e170141183460469231731687303715884105728",
                "1e170141183460469231731687303715884105727",
            ),
            (
                "1000e-170141183460469231731687303715884105730",
                "1e-170141183460469231731687303715884105727",
            ),
            (
                "10e99999999999999999999999999999999999999999999999999",
                "1e100000000000000000000000000000000000000000000000000",
            ),
            (
                "0.01E+0100000000000000000000000000000000000000000000000001",
                "1e99999999999999999999999999999999999999999999999999",
            ),
            (
                "0.01e-99999999999999999999999999999999999999999999999998",
                "1e-100000000000000000000000000000000000000000000000000",
            ),
            ("0e100000000000000000000000000000000000000000000000000", "-0"),
            (
                "123456789012345678901234567890.10",
                "123456789012345678901234567890.1",
            ),
        ] {
            assert!(same_json(a, b), "{a} {b}");
            assert!(same_json(b, a), "{b} {a}");
        }
    }

    #[test]
    fn meaning_does() {
        for (a, b) in [
            (r#"{"a":1}"#, r#"{"a":"1"}"#),
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
            (r#"{"a":1}"#, r#"{"A":1}"#),
            (r#"{"a":1,"a":9}"#, r#"{"a":1}"#),
            ("[1,2]", "[2,1]"),
            ("[]", "{}"),
            ("[1]", "[1,1]"),
            (
                "123456789012345678901234567890.1",
                "123456789012345678901234567890.2",
            ),
            ("-1", "1"),
            ("1e2", "1e3"),
            (r#"{"a":1e9223372036854775807}"#, r#"{"a":1e9223372036854775808}"#),
            ("1e-9223372036854775808", "1e-9223372036854775809"),
            ("1e9223372036854775808", "1e-9223372036854775808"),
            (
                "1e100000000000000000000000000000000000000000000000000",
                "1e100000000000000000000000000000000000000000000000001",
            ),
            (
                "1e100000000000000000000000000000000000000000000000000",
                "1e-100000000000000000000000000000000000000000000000000",
            ),
            (
                "10e100000000000000000000000000000000000000000000000000",
                "1e100000000000000000000000000000000000000000000000000",
            ),
            ("10", "1"),
            ("true", "false"),
            ("null", "0"),
            ("\"true\"", "true"),
        ] {
            assert!(!same_json(a, b), "{a} {b}");
            assert!(!same_json(b, a), "{b} {a}");
        }
    }

    fn event(time_us: i64, time_sent: bool, body_digest: Option<u64>) -> EventRecord<'static> {
        let grant = |body_digest| GrantRecord {
            customer: "c",
            feature: "f",
            amount: 1,
            reason: "r",
            body_digest,
        };
        EventRecord {
            tenant: 1,
            source: "s",
            id: "i",
            kind: "k",
            subject: "u",
            time_us,
            time_sent,
            received_us: 0,
            data: "{}",
            extensions: "",
            grant: body_digest.map(grant),
        }
    }

    #[test]
    fn a_time_is_compared_as_it_was_sent() {
        assert!(same_meaning(&event(1, true, None), &event(1, true, None)));
        assert!(same_meaning(&event(1, false, None), &event(2, false, None)));
        assert!(!same_meaning(&event(1, true, None), &event(2, true, None)));
        assert!(!same_meaning(&event(1, true, None), &event(1, false, None)));
        let other_subject = EventRecord {
            subject: "v",
            ..event(1, true, None)
        };
        let other_kind = EventRecord {
            kind: "v",
            ..event(1, true, None)
        };
        assert!(!same_meaning(&event(1, true, None), &other_subject));
        assert!(!same_meaning(&event(1, true, None), &other_kind));
    }

    #[test]
    fn a_grant_is_compared_by_the_body_of_its_request() {
        assert!(same_meaning(&event(1, true, Some(7)), &event(2, true, Some(7))));
        assert!(!same_meaning(&event(1, true, Some(7)), &event(1, true, Some(8))));
        assert!(!same_meaning(&event(1, true, Some(7)), &event(1, true, None)));
    }

    #[derive(Debug, Clone, PartialEq)]
    enum Json {
        Word(&'static str),
        /// Digits × 10^power.
        Number(i64, i32),
        Text(String),
        Array(Vec<Json>),
        Object(BTreeMap<String, Json>),
    }

    fn json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            prop::sample::select(&["true", "false", "null"][..]).prop_map(Json::Word),
            (-1_000i64..1_000, -3i32..4).prop_map(|(digits, power)| Json::Number(digits, power)),
            "[a-c\u{e9}\"\u{1F600}]{0,3}".prop_map(Json::Text),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
                prop::collection::btree_map("[a-c\u{e9}]{0,2}", inner, 0..4).prop_map(Json::Object),
            ]
        })
    }

    /// Writes a value; `way` chooses among spellings that mean the same.
    fn spell(json: &Json, way: &mut impl FnMut() -> u32, out: &mut String) {
        let space = |way: u32, out: &mut String| out.push_str(["", " ", "\n\t"][way as usize % 3]);
        space(way(), out);
        match json {
            Json::Word(word) => out.push_str(word),
            Json::Number(digits, power) => {
                // A zero takes no more zeros: 00 is no JSON number.
                let shift = if *digits == 0 { 0 } else { way() % 4 };
                let zeros = "0".repeat(shift as usize);
                let exponent = power - shift as i32;
                let letter = ["e", "E"][way() as usize % 2];
                let _ = write!(
                    out,
                    "{digits}{zeros}{}{letter}{exponent}",
                    ["", ".0", ".000"][way() as usize % 3]
                );
            }
            Json::Text(text) => spell_text(text, way, out),
            Json::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    spell(item, way, out);
                }
                out.push(']');
            }
            Json::Object(members) => {
                let mut order: Vec<_> = members.iter().collect();
                let start = way() as usize % order.len().max(1);
                order.rotate_left(start);
                out.push('{');
                for (at, (key, item)) in order.into_iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    spell_text(key, way, out);
                    out.push(':');
                    spell(item, way, out);
                }
                out.push('}');
            }
        }
        space(way(), out);
    }

    fn spell_text(text: &str, way: &mut impl FnMut() -> u32, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            if c == '"' || way().is_multiple_of(2) {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            } else {
                out.push(c);
            }
        }
        out.push('"');
    }

    fn spelled(json: &Json, seed: u32) -> String {
        let mut state = seed;
        let mut text = String::new();
        let mut way = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        spell(json, &mut way, &mut text);
        text
    }

    /// The value with its numbers in one form only.
    fn plain(json: &Json) -> Json {
        match json {
            Json::Number(0, _) => Json::Number(0, 0),
            Json::Number(digits, power) if digits % 10 == 0 => plain(&Json::Number(digits / 10, power + 1)),
            Json::Array(items) => Json::Array(items.iter().map(plain).collect()),
            Json::Object(members) => Json::Object(
                members
                    .iter()
                    .map(|(key, item)| (key.clone(), plain(item)))
                    .collect(),
            ),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn every_spelling_means_the_same(value in json(), one in any::<u32>(), two in any::<u32>()) {
            let (a, b) = (spelled(&value, one), spelled(&value, two));
            prop_assert!(same_json(&a, &b), "{a} {b}");
        }

        #[test]
        fn equal_means_equal(a in json(), b in json(), one in any::<u32>(), two in any::<u32>()) {
            prop_assert_eq!(same_json(&spelled(&a, one), &spelled(&b, two)), plain(&a) == plain(&b));
        }
    }
}
