use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    #[serde(rename = "a/b")]
    _value: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outer {
    _inner: Vec<Inner>,
}

/// The pointer and words of the one wrong field.
fn wrong(text: &str) -> (String, String) {
    wrong_in::<Outer>(text)
}

fn wrong_in<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> (String, String) {
    let problem = read_json::<T>(text.as_bytes()).unwrap_err();
    assert_eq!(problem.code, Code::Invalid, "{problem}");
    let [field] = &problem.fields[..] else {
        panic!("{problem:?}");
    };
    (field.pointer.clone(), field.detail.clone())
}

#[test]
fn wrong_fields_are_pointed_to() {
    let cases = [
        ("{}", "/_inner", "is missing"),
        (r#"{"_inner":[{"a/b":1},{}]}"#, "/_inner/1/a~1b", "is missing"),
        (
            r#"{"_inner":[{"a/b":"x"}]}"#,
            "/_inner/0/a~1b",
            "invalid type: string \"x\", expected a whole number in range",
        ),
        (
            r#"{"_inner":[5]}"#,
            "/_inner/0",
            "invalid type: integer `5`, expected an object",
        ),
        (
            r#"{"_inner":true}"#,
            "/_inner",
            "invalid type: boolean `true`, expected a list",
        ),
        (
            r#"{"_inner":[],"more":1}"#,
            "/more",
            "unknown field `more`, expected `_inner`",
        ),
    ];
    for (text, pointer, words) in cases {
        assert_eq!(wrong(text), (pointer.to_owned(), words.to_owned()), "{text}");
    }
}

#[test]
fn a_whole_number_is_one_however_it_is_written() {
    #[derive(Debug, Deserialize)]
    struct Numbers {
        small: Option<u32>,
        #[serde(default)]
        large: i64,
    }
    let read = |text: &str| read_json::<Numbers>(text.as_bytes());
    for (text, small, large) in [
        (r#"{"small":5.0,"large":-7.0}"#, 5, -7),
        (r#"{"small":12e2}"#, 1_200, 0),
        (
            r#"{"small":0,"large":1000000000000000.0}"#,
            0,
            1_000_000_000_000_000,
        ),
        (r#"{"small":-0.0}"#, 0, 0),
    ] {
        let numbers = read(text).unwrap();
        assert_eq!((numbers.small, numbers.large), (Some(small), large), "{text}");
    }
    for number in ["5.5", "-1.0", "4294967296.0", "1e300", "true", "\"5\"", "[]"] {
        let (pointer, _) = wrong_in::<Numbers>(&format!(r#"{{"small":{number}}}"#));
        assert_eq!(pointer, "/small", "{number}");
    }
    // Read as floats these would be others.
    for number in ["9007199254740991.0", "9007199254740993.0", "2251799813685248e0"] {
        let (pointer, _) = wrong_in::<Numbers>(&format!(r#"{{"small":0,"large":{number}}}"#));
        assert_eq!(pointer, "/large", "{number}");
    }
}

#[test]
fn broken_json_is_another_matter() {
    for text in [
        "",
        "{",
        r#"{"_inner":[]} x"#,
        r#"{"more":1 <"#,
        r#"{"more":1} x"#,
        "{\"_inner\":[\"\u{1}\"]}",
        "nul",
    ] {
        let problem = read_json::<Outer>(text.as_bytes()).unwrap_err();
        assert_eq!(problem.code, Code::InvalidJson, "{text}");
    }
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Metered,
    Boolean,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixed {
    #[serde(default)]
    _kind: Option<Kind>,
    #[serde(default)]
    _kinds: Vec<Kind>,
}

#[test]
fn a_value_that_is_none_of_the_fixed_words_is_pointed_to() {
    for (value, what) in [
        ("5", "integer `5`"),
        ("-1.5e3", "floating point `-1500.0`"),
        ("true", "boolean `true`"),
        ("[]", "sequence"),
        (r#"["metered"]"#, "sequence"),
        ("{}", "map"),
        (r#"{"metered":null}"#, "map"),
        (r#"{"metered":{}}"#, "map"),
    ] {
        let words = format!("invalid type: {what}, expected one of its words, as a string");
        assert_no_word(value, &words);
    }
    assert_no_word("1e999", "number out of range");
    assert_no_word(
        r#""other""#,
        "unknown variant `other`, expected `metered` or `boolean`",
    );
    let (pointer, words) = wrong_in::<Fixed>(r#"{"_kinds":[null]}"#);
    assert_eq!(
        (&*pointer, &*words),
        (
            "/_kinds/0",
            "invalid type: null, expected one of its words, as a string"
        )
    );
}

/// Alone and in a list, `value` is pointed to with these words.
fn assert_no_word(value: &str, words: &str) {
    for (text, pointer) in [
        (format!(r#"{{"_kind":{value}}}"#), "/_kind"),
        (format!(r#"{{"_kinds":["metered",{value}]}}"#), "/_kinds/1"),
    ] {
        let expected = (pointer.to_owned(), words.to_owned());
        assert_eq!(wrong_in::<Fixed>(&text), expected, "{text}");
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deep {
    #[serde(default)]
    _maybe: Option<Pair>,
    #[serde(default)]
    _named: std::collections::BTreeMap<String, Vec<Pair>>,
    #[serde(default)]
    _one: Box<Option<Newtype>>,
}

#[derive(Debug, Deserialize)]
struct Newtype(#[expect(dead_code, reason = "only its shape matters")] Pair);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    #[serde(default)]
    _first: u32,
    #[serde(default)]
    _second: Option<Kind>,
}

#[test]
fn a_list_is_never_taken_for_the_fields_of_an_object_in_their_order() {
    let words = "invalid type: sequence, expected an object";
    for list in ["[]", "[1]", r#"[1,"metered"]"#] {
        for (text, pointer) in [
            (list.to_owned(), ""),
            (format!(r#"{{"_maybe":{list}}}"#), "/_maybe"),
            (format!(r#"{{"_one":{list}}}"#), "/_one"),
            (
                format!(r#"{{"_named":{{"a":[{{"_first":1}},{list}]}}}}"#),
                "/_named/a/1",
            ),
        ] {
            assert_eq!(
                wrong_in::<Deep>(&text),
                (pointer.to_owned(), words.to_owned()),
                "{text}"
            );
        }
    }
    let good = r#"{"_maybe":{"_second":"metered"},"_named":{"a":[{}]},"_one":{"_first":1}}"#;
    read_json::<Deep>(good.as_bytes()).unwrap();
}

#[test]
fn valid_json_that_cannot_be_held_is_pointed_to_and_other_bytes_are_no_json() {
    let (pointer, words) = wrong_in::<Outer>(r#"{"_inner":[{"a/b":1e999}]}"#);
    assert_eq!((&*pointer, &*words), ("/_inner/0/a~1b", "number out of range"));
    for bytes in [
        &b"{\"_kind\":\"\xff\"}"[..],
        b"{\"_kind\":5,\"x\":\"\xff\"}",
        b"{\"_kind\":5 <",
        b"{\"_kind\":05}",
    ] {
        let problem = read_json::<Fixed>(bytes).unwrap_err();
        assert_eq!(problem.code, Code::InvalidJson, "{problem}");
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    _limit: Option<usize>,
    _meter: String,
}

#[tokio::test]
async fn wrong_parameters_are_pointed_to() {
    for (query, pointer) in [
        ("_limit=abc&_meter=x", "/_limit"),
        ("_limit=-1&_meter=x", "/_limit"),
        ("_limit=1&_limit=2&_meter=x", "/_limit"),
        ("_meter=x&other=1", "/other"),
        ("", "/_meter"),
    ] {
        let request = Request::builder()
            .uri(format!("/x?{query}"))
            .body(axum::body::Body::empty());
        let (mut parts, _) = request.unwrap().into_parts();
        let Failure(problem) = Params::<Asked>::from_request_parts(&mut parts, &())
            .await
            .unwrap_err();
        assert_eq!(problem.code, Code::Invalid, "{query}");
        if pointer == "/_limit" && !query.contains('2') {
            assert_eq!(problem.fields[0].detail, "must be a whole number in range");
        }
        assert_eq!(
            problem.fields.first().map(|field| field.pointer.as_str()),
            Some(pointer),
            "{problem}"
        );
    }
}

#[derive(Debug, Deserialize)]
struct Since {
    #[serde(default, deserialize_with = "optional_time")]
    from: Option<Timestamp>,
}

#[tokio::test]
async fn a_plus_that_became_a_space_is_understood() {
    let at = Timestamp::parse("2026-01-01T02:00:00+02:00").unwrap();
    for (query, from) in [
        ("from=2026-01-01T02:00:00+02:00", Some(at)),
        ("from=2026-01-01T02:00:00%2B02:00", Some(at)),
        ("from=2026-01-01T00:00:00Z", Some(at)),
        ("from=2026-01-01+00:00:00Z", Some(at)),
        ("", None),
    ] {
        let request = Request::builder().uri(format!("/x?{query}")).body(Body::empty());
        let (mut parts, _) = request.unwrap().into_parts();
        let Params(since) = Params::<Since>::from_request_parts(&mut parts, &())
            .await
            .unwrap();
        assert_eq!(since.from, from, "{query}");
    }
    for wrong in [
        "yesterday",
        "2026-01-01T02:00:00 2:00",
        "2026-01-01T02:00:00 -02:00",
    ] {
        assert!(parse_time(wrong).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn a_compressed_body_is_not_read_as_text() {
    let with = |encoding: &str| {
        let request = Request::builder()
            .header("content-type", "application/json")
            .header("content-encoding", encoding);
        request.body(axum::body::Body::from(r#"{"_inner":[]}"#)).unwrap()
    };
    assert!(
        JsonBody::<Outer>::from_request(with("identity"), &())
            .await
            .is_ok()
    );
    let Failure(problem) = JsonBody::<Outer>::from_request(with("gzip"), &())
        .await
        .unwrap_err();
    assert_eq!(problem.code, Code::UnsupportedMediaType);
}
