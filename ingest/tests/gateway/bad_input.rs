//! What is wrong is refused with a code and a pointer, and leaves a dead letter.

use axum::body::Body;
use axum::http::Request;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::rig::{Gateway, event_with};

/// An event whose `attribute` is replaced by this JSON text; an empty text leaves it out.
fn with(attribute: &str, text: &str) -> String {
    let mut event = event_with("x");
    let fields = event.as_object_mut().unwrap();
    fields.remove(attribute);
    let rest = serde_json::to_string(fields).unwrap();
    match text {
        "" => rest,
        text => format!("{{\"{attribute}\":{text},{}", &rest[1..]),
    }
}

/// Events that are refused, with the code and the pointer.
type Table = Vec<(String, &'static str, &'static str)>;

fn names(table: &mut Table) {
    let long = format!("\"{}\"", "x".repeat(513));
    let wide = format!("\"{}\"", "é".repeat(257));
    for (pointer, code) in [
        ("/id", "invalid_id"),
        ("/source", "invalid_source"),
        ("/type", "invalid_type"),
        ("/subject", "invalid_subject"),
    ] {
        let texts = [
            "",
            "null",
            "7",
            "true",
            "[]",
            "{}",
            "\"\"",
            &long,
            &wide,
            r#""\ud800""#,
            r#""a\udc00""#,
        ];
        table.extend(texts.map(|text| (with(&pointer[1..], text), code, pointer)));
    }
}

fn times(table: &mut Table) {
    let invalid = [
        "7",
        "true",
        "{}",
        "\"\"",
        "\"noon\"",
        "\"2026-02-30T00:00:00Z\"",
        "\"2026-01-01\"",
        "\"2026-01-01T00:00:00\"",
        "\"1969-12-31T23:59:59Z\"",
        "\"0000-01-01T00:00:00Z\"",
        "1767225600",
        r#""\ud800""#,
        "\"10000-01-01T00:00:00Z\"",
    ];
    table.extend(invalid.map(|text| (with("time", text), "invalid_time", "/time")));
    let ahead = [
        "\"2026-03-01T12:05:00.000001Z\"",
        "\"9999-12-31T23:59:59Z\"",
        "\"2026-03-01T12:00:01-01:00\"",
    ];
    table.extend(ahead.map(|text| (with("time", text), "time_in_future", "/time")));
}

fn payloads(table: &mut Table) {
    let data = [
        "7",
        "\"x\"",
        "[]",
        "[{}]",
        "true",
        r#"{"a":"\ud800"}"#,
        r#"{"\udfff":1}"#,
        r#"{"a":[{"b":"\ud800\ud800"}]}"#,
    ];
    table.extend(data.map(|text| (with("data", text), "invalid_data", "/data")));
    table.push((with("data_base64", "\"aGk=\""), "invalid_data", "/data_base64"));
    let versions = ["\"0.3\"", "\"1\"", "1.0", "\"\"", "{}"];
    table.extend(versions.map(|text| (with("specversion", text), "invalid_specversion", "/specversion")));
    for levels in [63, 100_000] {
        let nested = format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        table.push((with("data", &nested), "too_deep", ""));
        table.push((with("x", &nested), "too_deep", ""));
    }
}

fn shapes(table: &mut Table) {
    for (pointer, text) in [
        ("/id", "\"x\""),
        ("/data", "{}"),
        ("/time", "null"),
        ("/trace", "1,\"trace\":2"),
    ] {
        let twice = format!(
            "{{\"{}\":{text},{}",
            &pointer[1..],
            &event_with("x").to_string()[1..]
        );
        table.push((twice, "invalid", pointer));
    }
    table.push((with("trace", r#""\ud800""#), "invalid", "/trace"));
    table.push((with("a~/b", r#""\ud800""#), "invalid", "/a~0~1b"));
    let mut many = event_with("x");
    for at in 0..65 {
        many[format!("e{at}")] = json!(1);
    }
    table.push((many.to_string(), "invalid", ""));
    let scalars = ["5", "\"x\"", "null", "true", "-1.5e3"];
    table.extend(scalars.map(|text| (text.to_owned(), "invalid", "")));
}

fn table() -> Table {
    let mut table = Vec::new();
    for part in [names, times, payloads, shapes] {
        part(&mut table);
    }
    table
}

/// The same events alone, in an array, and as lines.
#[tokio::test]
async fn a_bad_envelope_is_refused_with_its_pointer() {
    for (event, code, pointer) in table() {
        let gateway = Gateway::new();
        let answer = gateway.json(event.clone()).await;
        let shown = &event[..event.floor_char_boundary(200)];
        assert_eq!((answer.status.as_u16(), answer.code()), (422, code), "{shown}");
        assert_eq!(answer.pointer(), pointer, "{shown}");

        let good = event_with("good");
        let array = format!("[{good},{event},{good}]");
        let lines = format!("{good}\r\n{event}\n{good}");
        for answer in [gateway.json(array).await, gateway.lines(lines).await] {
            let counts = answer.counts();
            assert_eq!((counts.0 + counts.1, counts.2, counts.3), (2, 0, 1), "{shown}");
            let error = &answer.json["errors"][0];
            assert_eq!(
                (error["index"].as_u64(), error["code"].as_str()),
                (Some(1), Some(code)),
                "{shown}"
            );
        }
        let letters = gateway.letters();
        assert_eq!(letters.len(), 3, "{shown}");
        for letter in letters {
            assert_eq!(
                (letter.code.as_str(), letter.cut),
                (code, event.len() > 4096),
                "{shown}"
            );
            assert_eq!(letter.raw, &event.as_bytes()[..event.len().min(4096)], "{shown}");
        }
        assert_eq!(gateway.events(), 1);
    }
}

#[tokio::test]
async fn what_is_not_json_is_400_or_one_bad_line() {
    let event = event_with("x").to_string();
    let broken: Vec<Vec<u8>> = [
        "{",
        "}",
        "{\"id\":}",
        "NaN",
        "{\"id\":\"x\",}",
        "{'id':'x'}",
        "undefined",
        "{\"a\":1 \"b\":2}",
        "\u{feff}{}",
        "{\"data\":{\"v\":NaN}}",
        "{\"data\":{\"v\":Infinity}}",
        "{\"data\":{\"v\":-}}",
        "{\"data\":{\"v\":01}}",
        "{\"data\":{\"v\":\"\u{1}\"}}",
        "{\"data\":{\"v\":\"\\x\"}}",
        "tru",
        "{}{}",
        "{} []",
        "// c",
        "\"",
        "[1",
    ]
    .into_iter()
    .map(|text| text.as_bytes().to_vec())
    .chain([
        [event.as_bytes(), b"x"].concat(),
        event.as_bytes()[..event.len() - 1].to_vec(),
        b"{\"id\":\"\xff\"}".to_vec(),
        b"\xc3\x28".to_vec(),
        b"{\"id\":\"\xed\xa0\x80\"}".to_vec(),
        "{\"a\":".repeat(100_000).into_bytes(),
    ])
    .collect();
    for body in broken {
        let gateway = Gateway::new();
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let answer = gateway.json(body.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (400, "invalid_json"),
            "{shown}"
        );
        assert_eq!(gateway.letters()[0].raw, body[..body.len().min(4096)]);
        let lines = [event.as_bytes(), b"\n", &body, b"\n", event.as_bytes()].concat();
        let answer = gateway.lines(lines).await;
        assert_eq!(answer.counts(), (1, 1, 0, 1), "{shown}");
        assert_eq!(answer.json["errors"][0]["code"], "invalid_json");
        let array = [b"[", event.as_bytes(), b",", &body, b"]"].concat();
        let answer = gateway.json(array).await;
        assert_eq!(answer.status.as_u16(), 400, "{shown}");
        assert_eq!(gateway.events(), 1);
    }
}

#[tokio::test]
async fn extreme_but_valid_json_is_taken() {
    let gateway = Gateway::new();
    let nested = format!("{{\"a\":{}{}}}", "[".repeat(62), "]".repeat(62));
    for (at, data) in [
        "{\"v\":1e400}",
        "{\"v\":-1e-400}",
        "{\"v\":1e40}",
        "{\"v\":-5}",
        "{}",
        "null",
        "{\"v\":null}",
        "{\"v\":123456789012345678901234567890.123456789012345678901234567890}",
        "{\"v\":\"NaN\"}",
        "{\"\":0}",
        r#"{"v":"\ud83d\ude00"}"#,
        "{\"v\":\"\u{7f}\u{2028}\"}",
        &nested,
    ]
    .into_iter()
    .enumerate()
    {
        let event = with("data", data).replace("\"id\":\"x\"", &format!("\"id\":\"{at}\""));
        assert_eq!(gateway.json(event).await.counts(), (1, 0, 0, 0), "{data}");
    }
    let ahead = with("time", "\"2026-03-01T12:05:00Z\"");
    assert_eq!(gateway.json(ahead).await.counts(), (1, 0, 0, 0));
    let first = with("time", "\"1970-01-01T00:00:00Z\"").replace("\"id\":\"x\"", "\"id\":\"y\"");
    assert_eq!(gateway.json(first).await.counts(), (1, 0, 0, 0));
}

#[tokio::test]
async fn an_event_has_at_most_one_mebibyte() {
    let gateway = Gateway::new();
    let sized = |bytes: usize, id: &str| {
        let empty = with("data", "{\"v\":\"\"}").replace("\"id\":\"x\"", &format!("\"id\":\"{id}\""));
        with(
            "data",
            &format!("{{\"v\":\"{}\"}}", "x".repeat(bytes - empty.len())),
        )
        .replace("\"id\":\"x\"", &format!("\"id\":\"{id}\""))
    };
    let (largest, larger) = (sized(1 << 20, "a"), sized((1 << 20) + 1, "b"));
    assert_eq!((largest.len(), larger.len()), (1 << 20, (1 << 20) + 1));
    assert_eq!(gateway.json(largest.clone()).await.counts(), (1, 0, 0, 0));
    let answer = gateway.json(larger.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (413, "too_large"));
    let ten = sized(10 << 20, "c");
    for body in [
        format!("[{largest},{larger},{ten}]"),
        format!("{largest}\n{larger}\n{ten}"),
    ] {
        let answer = if body.starts_with('[') {
            gateway.json(body).await
        } else {
            gateway.lines(body).await
        };
        assert_eq!(answer.counts(), (0, 1, 0, 2));
        assert_eq!(answer.json["errors"][1]["code"], "too_large");
    }
    assert!(
        gateway
            .letters()
            .iter()
            .all(|letter| letter.cut && letter.raw.len() == 4096)
    );
}

#[tokio::test]
async fn headers_and_parameters_are_read_strictly() {
    let gateway = Gateway::new();
    let event = event_with("a").to_string();
    for content_type in [
        "",
        "text/plain",
        "application/xml",
        "application/json; charset=utf-16",
        "*/*",
    ] {
        let answer = gateway.post("/v1/events", content_type, event.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (415, "unsupported_media_type"),
            "{content_type}"
        );
    }
    let bare = Request::post("/v1/events")
        .body(Body::from(event.clone()))
        .unwrap();
    assert_eq!(gateway.call(bare).await.status.as_u16(), 415);
    for encoding in ["br", "deflate", "gzip, gzip", "zstd,gzip", "\u{ff}"] {
        let request = Request::post("/v1/events").header("content-type", "application/json");
        let request = request
            .header("content-encoding", encoding.as_bytes())
            .body(Body::from(event.clone()))
            .unwrap();
        assert_eq!(
            gateway.call(request).await.code(),
            "unsupported_media_type",
            "{encoding}"
        );
    }
    for query in [
        "atomic=yes",
        "atomic",
        "atomc=true",
        "wait=never",
        "atomic=true&atomic=false",
    ] {
        let answer = gateway
            .post(&format!("/v1/events?{query}"), "application/json", event.clone())
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (422, "invalid"),
            "{query}"
        );
    }
    assert_eq!((gateway.events(), gateway.letters().len()), (0, 0));
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever comes is answered, and never with a 5xx.
    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300), form in 0usize..3, encoding in 0usize..3) {
        let path = ["/v1/events", "/v1/events?atomic=true", "/v1/events?atomic=false"][form];
        let content_type = ["application/json", "application/x-ndjson"][bytes.len() % 2];
        let request = Request::post(path).header("content-type", content_type);
        let request = match encoding {
            0 => request,
            1 => request.header("content-encoding", "gzip"),
            _ => request.header("content-encoding", "zstd"),
        };
        let answer = block(Gateway::new().call(request.body(Body::from(bytes)).unwrap()));
        prop_assert!(matches!(answer.status.as_u16(), 200 | 400 | 422), "{answer:?}");
    }

    /// One byte of a good body is replaced: it is taken, or refused, but never half taken.
    #[test]
    fn a_flipped_byte_is_answered(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut body = json!([event_with("a"), event_with("b")]).to_string().into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        let gateway = Gateway::new();
        let answer = block(gateway.json(body));
        match answer.status.as_u16() {
            200 => {
                let counts = answer.counts();
                prop_assert_eq!(counts.0 + counts.1 + counts.2 + counts.3, 2);
                prop_assert_eq!(gateway.events() as u64, counts.0);
            }
            status => {
                prop_assert_eq!(status, 400);
                prop_assert_eq!(gateway.events(), 0);
            }
        }
    }

    /// What is sent is what is kept, for any attributes.
    #[test]
    fn any_text_survives(id in ".{1,60}", source in ".{1,60}", kind in ".{1,60}", subject in ".{1,60}", value in ".{0,60}") {
        let event = json!({"id": id, "source": source, "type": kind, "subject": subject, "data": {"v": value}, "ext": value});
        let gateway = Gateway::new();
        let sent = block(gateway.lines(event.to_string()));
        prop_assert_eq!(sent.counts(), (1, 0, 0, 0));
        let listed = block(gateway.get("/v1/events"));
        let kept: &Value = &listed.json["data"][0];
        for name in ["id", "source", "type", "subject", "data"] {
            prop_assert_eq!(&kept[name], &event[name]);
        }
        prop_assert_eq!(&kept["extensions"]["ext"], &event["ext"]);
    }
}
