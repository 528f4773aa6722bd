use crate::limits::{EVENT_FUTURE_US_MAX, NAME_BYTES_MAX};
use crate::problem::{Code, FieldError, Problem};
use crate::time::{TimeError, Timestamp};

/// The attributes that every event must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// CloudEvents `id`.
    Id,
    /// CloudEvents `source`.
    Source,
    /// CloudEvents `type`.
    Type,
    /// CloudEvents `subject`.
    Subject,
}

impl Attribute {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Source => "source",
            Self::Type => "type",
            Self::Subject => "subject",
        }
    }

    /// The code of an event in which it is wrong.
    pub const fn code(self) -> Code {
        match self {
            Self::Id => Code::InvalidId,
            Self::Source => Code::InvalidSource,
            Self::Type => Code::InvalidType,
            Self::Subject => Code::InvalidSubject,
        }
    }

    /// Whether `text` may be its value: any text of 1 to 512 bytes. Control characters, NUL and separators are allowed,
    /// because nothing that the engine builds from an attribute is joined without lengths.
    pub const fn allows(self, text: &str) -> bool {
        !text.is_empty() && text.len() <= NAME_BYTES_MAX
    }

    /// `text`, or the problem with it.
    pub fn check(self, text: &str) -> Result<(), Problem> {
        if self.allows(text) {
            return Ok(());
        }
        let detail = format!("must be 1 to {NAME_BYTES_MAX} bytes of text, not {}", text.len());
        Err(problem(self.code(), self.name(), &detail))
    }
}

/// An event's time from its text: RFC 3339, from 1970 on, at most 5 minutes ahead of `now`.
pub fn read_time(text: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    let time = Timestamp::parse(text)
        .map_err(|error: TimeError| problem(Code::InvalidTime, "time", &error.to_string()))?;
    check_time(time, now)?;
    Ok(time)
}

/// An error when `time` lies more than 5 minutes ahead of `now`.
fn check_time(time: Timestamp, now: Timestamp) -> Result<(), Problem> {
    if time.micros() - now.micros() <= EVENT_FUTURE_US_MAX {
        return Ok(());
    }
    let detail = format!("lies more than 5 minutes ahead of the server's clock, which says {now}");
    Err(problem(Code::TimeInFuture, "time", &detail))
}

/// An error when `time` lies before the horizon of retention.
pub fn check_kept(time: Timestamp, horizon: Timestamp) -> Result<(), Problem> {
    if time >= horizon {
        return Ok(());
    }
    let detail =
        format!("lies before {horizon}, where raw events are no longer kept (engine.retention_days)");
    Err(problem(Code::TooOld, "time", &detail))
}

fn problem(code: Code, attribute: &str, detail: &str) -> Problem {
    Problem {
        fields: vec![FieldError {
            pointer: format!("/{attribute}"),
            detail: detail.to_owned(),
        }],
        ..Problem::new(code, format!("{attribute} {detail}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_in_bytes_and_free_in_characters() {
        for text in ["a", "\0", "a\u{1}b", "é", " ", &"x".repeat(512), &"é".repeat(256)] {
            assert_eq!(Attribute::Id.check(text), Ok(()), "{text:?}");
        }
        for text in ["", &"x".repeat(513), &"é".repeat(257)] {
            let problem = Attribute::Source.check(text).unwrap_err();
            assert_eq!(problem.code, Code::InvalidSource);
            assert_eq!(problem.fields[0].pointer, "/source");
        }
    }

    #[test]
    fn times_end_five_minutes_ahead() {
        let now = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        assert!(read_time("2026-01-01T00:05:00Z", now).is_ok());
        let ahead = read_time("2026-01-01T00:05:00.000001Z", now).unwrap_err();
        assert_eq!(ahead.code, Code::TimeInFuture);
        assert!(read_time("1970-01-01T00:00:00Z", now).is_ok());
        for text in ["1969-12-31T23:59:59.999999Z", "yesterday", ""] {
            assert_eq!(
                read_time(text, now).unwrap_err().code,
                Code::InvalidTime,
                "{text}"
            );
        }
    }
}
