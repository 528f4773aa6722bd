//! What a body is said to be: its media type and its encoding.

use axum::http::{HeaderMap, header};
use turnpike_domain::problem::{Code, Problem};

use crate::decode::binary::is_binary;

/// How events stand in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    /// One event, or an array of them.
    Json,
    /// The data of one event whose attributes are in headers.
    Binary,
    /// One event a line.
    Lines,
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// The media type and encoding that `headers` declare, or 415.
pub(crate) fn of(headers: &HeaderMap) -> Result<(Media, Encoding), Problem> {
    Ok((media(headers)?, encoding(headers)?))
}

/// The same, where an event may also be in binary mode.
pub(crate) fn of_events(headers: &HeaderMap) -> Result<(Media, Encoding), Problem> {
    if !is_binary(headers) {
        return of(headers);
    }
    let untyped = !headers.contains_key(header::CONTENT_TYPE);
    if untyped || media(headers)? == Media::Json {
        return Ok((Media::Binary, encoding(headers)?));
    }
    let detail = "the data of an event with ce- headers is application/json";
    Err(unsupported(detail.to_owned()))
}

fn media(headers: &HeaderMap) -> Result<Media, Problem> {
    const TAKEN: &str = "send application/json, application/cloudevents+json, application/cloudevents-batch+json or \
                         application/x-ndjson";
    let mut given = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err(unsupported(format!("{TAKEN}, with one Content-Type header")));
    };
    let value = value.to_str().unwrap_or("");
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or("").to_ascii_lowercase();
    let media = match essence.as_str() {
        "application/json" | "application/cloudevents+json" | "application/cloudevents-batch+json" => {
            Media::Json
        }
        "application/x-ndjson" => Media::Lines,
        other => return Err(unsupported(format!("{TAKEN}, not \"{other}\""))),
    };
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let charset = value.trim().trim_matches('"').to_ascii_lowercase();
        let is_utf8 = matches!(charset.as_str(), "utf-8" | "utf8" | "us-ascii");
        if name.trim().eq_ignore_ascii_case("charset") && !is_utf8 {
            return Err(unsupported(format!("send the body as UTF-8, not \"{charset}\"")));
        }
    }
    Ok(media)
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let mut found = Encoding::Identity;
    for value in headers.get_all(header::CONTENT_ENCODING) {
        for name in value.to_str().unwrap_or("?").split(',') {
            let next = match name.trim().to_ascii_lowercase().as_str() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Encoding::Gzip,
                "zstd" => Encoding::Zstd,
                other => {
                    let detail = format!("Content-Encoding is gzip, zstd or identity, not \"{other}\"");
                    return Err(unsupported(detail));
                }
            };
            if found != Encoding::Identity {
                return Err(unsupported("one Content-Encoding at most is taken".to_owned()));
            }
            found = next;
        }
    }
    Ok(found)
}

fn unsupported(detail: String) -> Problem {
    Problem::new(Code::UnsupportedMediaType, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &'static str)]) -> Option<(Media, Encoding)> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        of(&map).ok()
    }

    #[test]
    fn takes_what_the_contract_names() {
        for (content_type, media) in [
            ("application/json", Media::Json),
            ("Application/JSON; charset=UTF-8", Media::Json),
            ("application/json;charset=\"utf-8\"", Media::Json),
            ("application/cloudevents+json; profile=x", Media::Json),
            ("application/cloudevents-batch+json", Media::Json),
            ("application/x-ndjson ; charset=us-ascii", Media::Lines),
        ] {
            let read = read(&[("content-type", content_type)]);
            assert_eq!(read, Some((media, Encoding::Identity)), "{content_type}");
        }
        for (value, encoding) in [
            ("gzip", Encoding::Gzip),
            ("GZIP", Encoding::Gzip),
            ("x-gzip", Encoding::Gzip),
            ("zstd", Encoding::Zstd),
            ("identity", Encoding::Identity),
            ("identity, gzip", Encoding::Gzip),
            ("", Encoding::Identity),
        ] {
            let read = read(&[("content-type", "application/json"), ("content-encoding", value)]);
            assert_eq!(read, Some((Media::Json, encoding)), "{value}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for headers in [
            &[][..],
            &[("content-type", "")],
            &[("content-type", "text/plain")],
            &[("content-type", "application/jsonx")],
            &[("content-type", "application/json; charset=latin1")],
            &[
                ("content-type", "application/json"),
                ("content-type", "application/json"),
            ],
            &[("content-type", "application/json"), ("content-encoding", "br")],
            &[
                ("content-type", "application/json"),
                ("content-encoding", "gzip, zstd"),
            ],
            &[
                ("content-type", "application/json"),
                ("content-encoding", "gzip, gzip"),
            ],
            &[
                ("content-type", "application/json"),
                ("content-encoding", "gzip"),
                ("content-encoding", "zstd"),
            ],
        ] {
            assert_eq!(read(headers), None, "{headers:?}");
        }
    }
}
