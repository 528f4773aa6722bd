//! A CloudEvent in binary mode: its attributes in `ce-` headers, its data in the body.
//! Source: CloudEvents HTTP protocol binding 1.0, section 3.1.

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderValue, header};
use percent_encoding::percent_decode;
use turnpike_domain::json::Scanner;
use turnpike_domain::problem::{Code, Problem};

use super::cloudevents::wrong;
use super::{not_json, utf8};

const PREFIX: &str = "ce-";

/// Whether a request is in binary mode: it has attributes in headers, and its body is no event by its media type.
pub(crate) fn is_binary(headers: &HeaderMap) -> bool {
    let structured = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| starts_with(kind, b"application/cloudevents"));
    let named = |name: &str| headers.contains_key(name);
    !structured
        && ["ce-specversion", "ce-id", "ce-source", "ce-type"]
            .into_iter()
            .any(named)
}

fn starts_with(value: &HeaderValue, prefix: &[u8]) -> bool {
    let head = value.as_bytes().get(..prefix.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

/// Names and values of the attributes, decoded, in the order of the headers.
pub(crate) fn attributes(headers: &HeaderMap) -> Result<Vec<(String, String)>, Problem> {
    let mut attributes = Vec::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(PREFIX) else {
            continue;
        };
        if name.is_empty() || name == "data" || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let detail = format!(
                "the header {PREFIX}{name} names no attribute: letters and digits only, not \"data\""
            );
            return Err(Problem::new(Code::Invalid, detail));
        }
        let text = decoded(value)
            .ok_or_else(|| wrong(Code::Invalid, name, "is not percent-encoded UTF-8 in its header"))?;
        attributes.push((name.to_owned(), text));
    }
    Ok(attributes)
}

/// A header's value as the text of an attribute: without quotes, and percent-decoded once.
fn decoded(value: &HeaderValue) -> Option<String> {
    let bytes = value.as_bytes();
    let inner = bytes
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""));
    let plain: Cow<'_, [u8]> = inner.map_or(Cow::Borrowed(bytes), |inner| Cow::Owned(unescaped(inner)));
    let text = percent_decode(&plain).decode_utf8().ok()?;
    Some(text.into_owned())
}

/// The inside of a quoted string without its backslashes. Source: RFC 9110, section 5.6.4.
fn unescaped(inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        out.push(if byte == b'\\' {
            bytes.next().copied().unwrap_or(byte)
        } else {
            byte
        });
    }
    out
}

/// The same event in structured mode: `body`, one JSON value or nothing, becomes its `data`.
pub(crate) fn structured(attributes: &[(String, String)], body: &[u8]) -> Result<Vec<u8>, Problem> {
    let data = utf8(body, "the body")?.trim();
    if !data.is_empty() {
        // Alone it must be one value, so that nothing in it can end the event early.
        let mut scanner = Scanner::new(data);
        let read = scanner.value().and_then(|_| scanner.end());
        read.map_err(|error| not_json("the body", &error))?;
    }
    let mut event = Vec::with_capacity(data.len() + 256);
    event.push(b'{');
    for (name, text) in attributes {
        let text = serde_json::to_string(text).unwrap_or_default();
        event.extend_from_slice(format!("\"{name}\":{text},").as_bytes());
    }
    event.extend_from_slice(b"\"data\":");
    event.extend_from_slice(if data.is_empty() { b"null" } else { data.as_bytes() });
    event.push(b'}');
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn the_mode_is_told_by_media_type_and_attributes() {
        let json = ("content-type", "application/json");
        assert!(is_binary(&headers(&[json, ("ce-specversion", "1.0")])));
        assert!(is_binary(&headers(&[("ce-id", "1")])));
        assert!(!is_binary(&headers(&[json])));
        assert!(!is_binary(&headers(&[json, ("ce-extra", "1")])));
        let structured = ("content-type", "Application/CloudEvents+json");
        assert!(!is_binary(&headers(&[structured, ("ce-id", "1")])));
    }

    #[test]
    fn attributes_are_decoded_once() {
        let read = attributes(&headers(&[
            ("ce-id", "a%20b%2520c"),
            ("ce-subject", "\"Euro %E2%82%AC \\\"q\\\"\""),
            ("host", "x"),
        ]));
        let text = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            read,
            Ok(vec![text("id", "a b%20c"), text("subject", "Euro € \"q\"")])
        );
        for wrong in [("ce-id", "%ff"), ("ce-a_b", "1"), ("ce-", "1"), ("ce-data", "1")] {
            assert!(attributes(&headers(&[wrong])).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_body_cannot_end_the_event_early() {
        let attributes = [("id".to_owned(), "a\"b".to_owned())];
        let event = |body: &str| structured(&attributes, body.as_bytes());
        assert_eq!(event(" {\"a\":1}\n").unwrap(), br#"{"id":"a\"b","data":{"a":1}}"#);
        assert_eq!(event("").unwrap(), br#"{"id":"a\"b","data":null}"#);
        for wrong in [r#"{},"type":"x""#, "{}}", "{", "1 2", "}"] {
            assert_eq!(event(wrong).unwrap_err().code, Code::InvalidJson, "{wrong}");
        }
        assert!(structured(&attributes, b"\xff").is_err());
    }
}
