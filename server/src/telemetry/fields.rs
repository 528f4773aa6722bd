//! The fields of a span as JSON, written once when it begins: the means of `tracing-subscriber` read them again and write
//! them anew with each field that comes later.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::span::Record;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, FormattedFields};

/// Writes fields as the members of a JSON object. The last of several of one name is the one that counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JsonMembers;

/// Bytes that the fields of most spans fit.
const FIELDS_BYTES: usize = 256;

impl<'w> FormatFields<'w> for JsonMembers {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        // Handed over in one piece, for whom it is written to grows with every one.
        let mut members = Members {
            text: String::with_capacity(FIELDS_BYTES),
            is_first: true,
        };
        members.text.push('{');
        fields.record(&mut members);
        members.text.push('}');
        writer.write_str(&members.text)
    }

    fn add_fields(&self, current: &'w mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        let mut text = std::mem::take(&mut current.fields);
        if text.pop().is_none() {
            text.push('{');
        }
        let is_first = text == "{";
        let mut members = Members { text, is_first };
        fields.record(&mut members);
        members.text.push('}');
        current.fields = members.text;
        Ok(())
    }
}

/// Members on their way into an object.
struct Members {
    text: String,
    is_first: bool,
}

impl Members {
    /// Begins a member, whose value follows.
    fn name(&mut self, field: &Field) {
        let comma = if self.is_first { "\"" } else { ",\"" };
        self.is_first = false;
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.text.extend([comma, name, "\":"]);
    }

    /// Writes a member whose value is written as it is shown.
    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{value}");
    }
}

impl Visit for Members {
    fn record_f64(&mut self, field: &Field, value: f64) {
        let json = serde_json::to_string(&value).unwrap_or_default();
        self.plain(field, json);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let escaped = |byte| byte < b' ' || matches!(byte, b'"' | b'\\');
        self.name(field);
        if value.bytes().any(escaped) {
            // A text can always be written as JSON.
            let json = serde_json::to_string(value).unwrap_or_default();
            self.text.push_str(&json);
        } else {
            self.text.extend(["\"", value, "\""]);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// The span in a line of the log, by the library's own fields and by ours.
    fn spans(within: impl Fn()) -> [Value; 2] {
        let layer = || {
            tracing_subscriber::fmt::layer()
                .json()
                .with_current_span(true)
                .with_span_list(false)
        };
        let (theirs, ours) = (Lines::default(), Lines::default());
        let by_theirs = tracing_subscriber::registry().with(layer().with_writer(theirs.clone()));
        tracing::subscriber::with_default(by_theirs, &within);
        let by_ours =
            tracing_subscriber::registry().with(layer().fmt_fields(JsonMembers).with_writer(ours.clone()));
        tracing::subscriber::with_default(by_ours, &within);
        [theirs, ours].map(|lines| {
            let line: Value = serde_json::from_slice(&lines.0.lock().unwrap()).unwrap();
            line["span"].clone()
        })
    }

    #[test]
    fn a_span_reads_as_the_library_writes_it() {
        let [theirs, ours] = spans(|| {
            let span = tracing::info_span!(
                "request",
                text = "a \"quoted\" \\ line\n",
                shown = %"ü",
                debugged = ?Some(1),
                count = 7_u64,
                less = -7_i64,
                share = 0.25,
                yes = true,
                later = tracing::field::Empty,
            );
            span.record("later", 200_u16);
            span.in_scope(|| tracing::info!("said"));
        });
        assert_eq!(theirs, ours);
        assert_eq!(ours["later"], json!(200));
        assert_eq!(ours["text"], "a \"quoted\" \\ line\n");
    }

    #[test]
    fn a_span_without_fields_can_get_one() {
        let [theirs, ours] = spans(|| {
            let span = tracing::info_span!("bare", later = tracing::field::Empty);
            span.record("later", "x");
            span.in_scope(|| tracing::info!("said"));
        });
        assert_eq!((&theirs, &ours["later"]), (&ours, &json!("x")));
    }
}
