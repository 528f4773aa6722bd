//! What replaces an event's data or time.

use turnpike_domain::event::read_time;
use turnpike_domain::json::{Kind, Scanner, Syntax, Value};
use turnpike_domain::limits::{EVENT_BYTES_MAX, JSON_DEPTH_MAX};
use turnpike_domain::port::intake::Correction;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::time::Timestamp;

use super::cloudevents::{check_data, too_large, wrong};
use super::{not_json, utf8};

/// The amendment in `body`: an object with `data`, `time`, or both, and nothing else.
pub(crate) fn read_amendment(body: &[u8], now: Timestamp) -> Result<Correction, Problem> {
    let text = utf8(body, "the body")?;
    let members = members(text).map_err(|error| not_json("the body", &error))?;
    let Some(members) = members else {
        return Err(Problem::invalid("", "send an object with data, time, or both"));
    };
    let (mut data, mut time) = (None, None);
    for (key, value) in members {
        let name = key.text().unwrap_or_default();
        let taken = match name.as_ref() {
            // As in an event, what is null was not sent.
            "data" | "time" if value.kind == Kind::Null => false,
            "data" => data.replace(new_data(&value)?).is_some(),
            "time" => time.replace(new_time(&value, now)?).is_some(),
            "id" | "source" | "type" | "subject" => {
                return Err(wrong(
                    Code::Invalid,
                    &name,
                    "of an event never changes: void it and send another",
                ));
            }
            _ => {
                return Err(wrong(
                    Code::Invalid,
                    &name,
                    "is unknown: an amendment has data, time, or both",
                ));
            }
        };
        if taken {
            return Err(wrong(Code::Invalid, &name, "is there twice"));
        }
    }
    if data.is_none() && time.is_none() {
        return Err(Problem::new(
            Code::Invalid,
            "nothing is amended: send data, time, or both",
        ));
    }
    Ok(Correction::Amend { data, time })
}

/// The members of the object that is all of `text`; `None` for another value.
fn members(text: &str) -> Result<Option<Vec<(Value<'_>, Value<'_>)>>, Syntax> {
    let mut scanner = Scanner::new(text);
    if scanner.peek() != Some(b'{') {
        scanner.value()?;
        scanner.end()?;
        return Ok(None);
    }
    scanner.take(b'{');
    let mut members = Vec::new();
    if !scanner.take(b'}') {
        loop {
            members.push((scanner.key()?, scanner.value()?));
            if scanner.take(b'}') {
                break;
            }
            if !scanner.take(b',') {
                return Err(scanner.wrong("a comma or a closing brace is missing"));
            }
        }
    }
    scanner.end()?;
    Ok(Some(members))
}

fn new_data(value: &Value<'_>) -> Result<String, Problem> {
    check_data(value)?;
    // As deep as in an event, whose own braces count.
    if value.depth >= JSON_DEPTH_MAX {
        let detail = format!("is nested too deep: with its event it may have {JSON_DEPTH_MAX} levels");
        return Err(wrong(Code::TooDeep, "data", &detail));
    }
    if value.raw.len() > EVENT_BYTES_MAX {
        return Err(too_large(value.raw.len()));
    }
    Ok(value.raw.to_owned())
}

fn new_time(value: &Value<'_>, now: Timestamp) -> Result<Timestamp, Problem> {
    match value.text() {
        Some(text) => read_time(&text, now),
        None if value.kind == Kind::Text => {
            Err(wrong(Code::InvalidTime, "time", "has an unpaired surrogate"))
        }
        None => {
            let detail = format!("must be a string, not {}", value.kind.words());
            Err(wrong(Code::InvalidTime, "time", &detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Correction, Code> {
        let now = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        read_amendment(text.as_bytes(), now).map_err(|problem| problem.code)
    }

    #[test]
    fn data_time_or_both() {
        let time = Timestamp::parse("2025-12-31T00:00:00Z").ok();
        let amend = |data: Option<&str>, time| Correction::Amend {
            data: data.map(str::to_owned),
            time,
        };
        assert_eq!(
            read(r#" {"data": {"a": 1} } "#),
            Ok(amend(Some(r#"{"a": 1}"#), None))
        );
        assert_eq!(read(r#"{"time":"2025-12-31T00:00:00Z"}"#), Ok(amend(None, time)));
        assert_eq!(read(r#"{"data":{},"time":null}"#), Ok(amend(Some("{}"), None)));
        assert_eq!(
            read(r#"{"time":"2025-12-31T00:00:00Z","data":{}}"#),
            Ok(amend(Some("{}"), time))
        );
    }

    #[test]
    fn nothing_else() {
        let deep = format!(r#"{{"data":{{"a":{}{}}}}}"#, "[".repeat(63), "]".repeat(63));
        let large = format!(r#"{{"data":{{"a":"{}"}}}}"#, "x".repeat(EVENT_BYTES_MAX));
        for (text, code) in [
            ("", Code::InvalidJson),
            ("{", Code::InvalidJson),
            ("{} {}", Code::InvalidJson),
            ("[]", Code::Invalid),
            ("{}", Code::Invalid),
            (r#"{"data":{},"data":{}}"#, Code::Invalid),
            (r#"{"data":{},"subject":"x"}"#, Code::Invalid),
            (r#"{"data":{},"x":1}"#, Code::Invalid),
            (r#"{"data":null,"time":null}"#, Code::Invalid),
            (r#"{"data":[]}"#, Code::InvalidData),
            (r#"{"data":{"a":"\ud800"}}"#, Code::InvalidData),
            (r#"{"time":"noon"}"#, Code::InvalidTime),
            (r#"{"time":"2026-01-01T00:06:00Z"}"#, Code::TimeInFuture),
            (deep.as_str(), Code::TooDeep),
            (large.as_str(), Code::TooLarge),
        ] {
            assert_eq!(read(text), Err(code), "{}", &text[..text.len().min(80)]);
        }
    }
}
