use super::*;
use proptest::prelude::*;

/// Whether serde reads `text` as JSON. Numbers beyond a float are JSON all the same: those it reads over.
fn serde_takes(text: &str) -> bool {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(_) => true,
        Err(error) if error.to_string().starts_with("number out of range") => {
            serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
        }
        Err(_) => false,
    }
}

fn whole(text: &str) -> Result<Value<'_>, Syntax> {
    let mut scanner = Scanner::new(text);
    let value = scanner.value()?;
    scanner.end()?;
    Ok(value)
}

#[test]
fn takes_what_is_json() {
    for (text, kind, depth) in [
        ("{}", Kind::Object, 1),
        (" [ ] ", Kind::Array, 1),
        (
            r#"{"a":{"b":[1,-0.5e+3,{"c":null}]},"d":[[],{}]}"#,
            Kind::Object,
            4,
        ),
        ("\"\\u00e9\\\"\\\\\\/\\b\\f\\n\\r\\t\"", Kind::Text, 0),
        ("-0", Kind::Number, 0),
        ("1e400", Kind::Number, 0),
        ("0.0E-0", Kind::Number, 0),
        ("true", Kind::Boolean, 0),
        ("null", Kind::Null, 0),
        ("\u{a0}", Kind::Null, 9),
    ] {
        let read = whole(text);
        if depth == 9 {
            assert!(read.is_err(), "{text}");
            continue;
        }
        let value = read.unwrap();
        assert_eq!(
            (value.kind, value.depth, value.raw),
            (kind, depth, text.trim()),
            "{text}"
        );
    }
}

#[test]
fn refuses_what_is_not() {
    for text in [
        "",
        " ",
        "{",
        "[",
        "}",
        "{]",
        "[}",
        "[1,]",
        "{\"a\":1,}",
        "{,}",
        "[,1]",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{1:1}",
        "NaN",
        "Infinity",
        "-Infinity",
        "-",
        "+1",
        "01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "tru",
        "truex",
        "nul",
        "'a'",
        "\"",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12G4\"",
        "\"\n\"",
        "\"\u{1f}\"",
        "1 2",
        "{} {}",
        "[1 2]",
        "{\"a\":1 \"b\":2}",
        "\u{feff}{}",
        "/*c*/1",
        "[1]]",
        "{\"a\":1}}",
    ] {
        assert!(whole(text).is_err(), "{text:?}");
        assert!(
            serde_json::from_str::<serde_json::Value>(text).is_err(),
            "{text:?}"
        );
    }
}

#[test]
fn tells_where_it_went_wrong() {
    assert_eq!(
        whole("[1, x]").unwrap_err(),
        Syntax {
            at: 4,
            what: "a JSON value is missing"
        }
    );
    assert_eq!(
        whole("[1,").unwrap_err(),
        Syntax {
            at: 3,
            what: "the JSON ends early"
        }
    );
}

#[test]
fn surrogates_must_be_paired() {
    for (text, lone) in [
        (r#""\ud83d\ude00""#, false),
        (r#""\ud83d""#, true),
        (r#""\ude00""#, true),
        (r#""\ud83dx""#, true),
        (r#""\ud83d\u0041""#, true),
        (r#""\ud83d\ud83d\ude00""#, true),
        (r#"{"a":["\ud83d"]}"#, true),
        (r#"{"\ud83d":1}"#, true),
        (r#"[{"a":1,"\ude00":1}]"#, true),
    ] {
        assert_eq!(whole(text).unwrap().lone_surrogate, lone, "{text}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(text).is_err(),
            lone,
            "{text}"
        );
    }
    assert_eq!(whole(r#""\ud83d\ude00""#).unwrap().text().as_deref(), Some("😀"));
    assert_eq!(whole(r#""\ud83d""#).unwrap().text(), None);
}

#[test]
fn any_depth_is_read_without_recursion() {
    for depth in [1, 63, 64, 65, 127, 128, 129, 1_000_000] {
        let text = "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(whole(&text).unwrap().depth, depth);
        assert!(whole(&text[1..]).is_err());
        let mixed = "[{\"k\":".repeat(depth) + "1" + &"}]".repeat(depth);
        assert_eq!(whole(&mixed).unwrap().depth, 2 * depth);
    }
    let wrong = "[".repeat(65) + &"{\"a\":".repeat(64) + "1" + &"}".repeat(63) + "]";
    assert!(whole(&wrong).is_err());
}

#[test]
fn special_bytes_are_found_at_every_place() {
    for special in ["\"", "\\", "\u{0}", "\u{1f}"] {
        for before in 0..20 {
            for fill in ["a", "~", "\u{7f}", "!", "#", " ", "]", "["] {
                let text = fill.repeat(before) + special + &"\"".repeat(9);
                assert_eq!(plain_bytes(text.as_bytes()), before, "{text:?}");
            }
        }
    }
    assert_eq!(
        plain_bytes("é\u{80}ÿ日本語の文字".as_bytes()),
        "é\u{80}ÿ日本語の文字".len()
    );
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn agrees_with_serde_on_what_is_json(value in json(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let read = whole(&text).unwrap();
        prop_assert_eq!(read.raw, &text);
        if let Some(string) = value.as_str() {
            let text = read.text();
            prop_assert_eq!(text.as_deref(), Some(string));
        }
    }

    #[test]
    fn agrees_with_serde_on_broken_json(value in json(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = serde_json::to_vec(&value).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let ours = whole(text).is_ok_and(|value| !value.lone_surrogate);
            prop_assert_eq!(ours, serde_takes(text), "{}", text);
        }
    }

    #[test]
    fn any_text_is_read_without_panic(text in "[\\[\\]{}\",:0-9a-z\\\\ \\-.+eE]{0,40}") {
        let ours = whole(&text).is_ok_and(|value| !value.lone_surrogate);
        prop_assert_eq!(ours, serde_takes(&text), "{}", text);
    }
}
