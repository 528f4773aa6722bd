//! One CloudEvent in JSON to an event of a batch.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

use turnpike_domain::event::{Attribute, EventBatch, check_kept, read_time};
use turnpike_domain::identity::{NameKey, TenantId};
use turnpike_domain::json::{Kind, Scanner, Syntax, Value};
use turnpike_domain::limits::{EVENT_BYTES_MAX, EVENT_EXTENSIONS_MAX, JSON_DEPTH_MAX};
use turnpike_domain::problem::{Code, FieldError, Problem};
use turnpike_domain::record::EventRecord;
use turnpike_domain::time::Timestamp;

/// What a drop-in path puts where its clients may leave an attribute out.
pub(crate) trait Defaults: Send + Sync {
    /// An id of our own. The event is then not protected against a resend.
    fn id(&self) -> Option<String>;

    /// The source of all events that name none.
    fn source(&self) -> Option<&str>;
}

/// Every attribute must be sent.
pub(crate) struct NoDefaults;

impl Defaults for NoDefaults {
    fn id(&self) -> Option<String> {
        None
    }

    fn source(&self) -> Option<&str> {
        None
    }
}

/// Whose events are read, and when.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'k> {
    pub(crate) key: &'k NameKey,
    pub(crate) tenant: TenantId,
    /// The tenant's clock: it bounds the future, and dates events that come without a time.
    pub(crate) now: Timestamp,
    /// Events that count for an earlier time are refused.
    pub(crate) horizon: Timestamp,
    /// When the event was received first; another than `now` only for a dead letter that is tried again.
    pub(crate) received: Timestamp,
    pub(crate) defaults: &'k dyn Defaults,
}

/// Why an event is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) problem: Problem,
    /// Its id where it could be read.
    pub(crate) id: String,
}

/// Reads events; keeps its buffers from one to the next.
#[derive(Default)]
pub(crate) struct EventReader {
    extensions: Extensions,
}

impl EventReader {
    /// Reads the value that `scanner` stands at as an event and adds it to `batch`. The outer error is broken JSON,
    /// behind which nothing can be read; the inner one refuses this event alone, and `scanner` stands behind it.
    pub(crate) fn read(
        &mut self,
        origin: &Origin<'_>,
        scanner: &mut Scanner<'_>,
        batch: &mut EventBatch,
    ) -> Result<Result<(), Refusal>, Syntax> {
        self.read_then(origin, scanner, batch, |_| Ok(()))
    }

    /// The same for an event that is all of its text.
    pub(crate) fn read_alone(
        &mut self,
        origin: &Origin<'_>,
        scanner: &mut Scanner<'_>,
        batch: &mut EventBatch,
    ) -> Result<Result<(), Refusal>, Syntax> {
        self.read_then(origin, scanner, batch, Scanner::end)
    }

    /// `behind` looks at what follows the event before anything is added.
    fn read_then<'a>(
        &mut self,
        origin: &Origin<'_>,
        scanner: &mut Scanner<'a>,
        batch: &mut EventBatch,
        behind: impl FnOnce(&mut Scanner<'a>) -> Result<(), Syntax>,
    ) -> Result<Result<(), Refusal>, Syntax> {
        if scanner.peek() != Some(b'{') {
            let kind = scanner.value()?.kind;
            behind(scanner)?;
            let detail = format!("an event must be a JSON object, not {}", kind.words());
            return Ok(Err(Refusal {
                problem: Problem::invalid("", detail),
                id: String::new(),
            }));
        }
        let start = scanner.at();
        let attributes = self.attributes(scanner)?;
        let size = scanner.since(start).len();
        behind(scanner)?;
        let refused = |problem| {
            let id = attributes.id.and_then(|id| id.text()).unwrap_or_default();
            Refusal {
                problem,
                id: cut(&id, turnpike_domain::limits::NAME_BYTES_MAX).to_owned(),
            }
        };
        if size > EVENT_BYTES_MAX {
            return Ok(Err(refused(too_large(size))));
        }
        Ok(self.accept(origin, &attributes, batch).map_err(refused))
    }

    /// The attributes of the object that `scanner` stands at; those that the engine does not read go to `extensions`.
    fn attributes<'a>(&mut self, scanner: &mut Scanner<'a>) -> Result<Attributes<'a>, Syntax> {
        let mut attributes = Attributes::default();
        self.extensions.clear();
        scanner.take(b'{');
        if scanner.take(b'}') {
            return Ok(attributes);
        }
        loop {
            let key = scanner.key()?;
            let value = scanner.value()?;
            attributes.depth = attributes.depth.max(1 + value.depth);
            self.sort(&mut attributes, &key, value);
            if scanner.take(b'}') {
                return Ok(attributes);
            }
            if !scanner.take(b',') {
                return Err(scanner.wrong("a comma or a closing brace is missing"));
            }
        }
    }

    fn sort<'a>(&mut self, attributes: &mut Attributes<'a>, key: &Value<'a>, value: Value<'a>) {
        let name = key.text();
        let place = match name.as_deref() {
            Some("id") => &mut attributes.id,
            Some("source") => &mut attributes.source,
            Some("type") => &mut attributes.kind,
            Some("subject") => &mut attributes.subject,
            Some("time") => &mut attributes.time,
            Some("specversion") => &mut attributes.specversion,
            Some("data") => &mut attributes.data,
            Some("data_base64") => &mut attributes.data_base64,
            Some(name) => {
                let added = self.extensions.add(name, &value);
                attributes.flaw = attributes.flaw.take().or(added.err());
                return;
            }
            None => {
                let flaw = || {
                    Problem::new(
                        Code::Invalid,
                        "the name of an attribute has an unpaired surrogate",
                    )
                };
                attributes.flaw.get_or_insert_with(flaw);
                return;
            }
        };
        if place.replace(value).is_some() {
            let name = name.unwrap_or_default();
            attributes.flaw.get_or_insert_with(|| twice(&name));
        }
    }

    fn accept(
        &mut self,
        origin: &Origin<'_>,
        attributes: &Attributes<'_>,
        batch: &mut EventBatch,
    ) -> Result<(), Problem> {
        if let Some(flaw) = &attributes.flaw {
            return Err(flaw.clone());
        }
        if attributes.depth > JSON_DEPTH_MAX {
            let detail = format!(
                "is nested {} levels deep, at most {JSON_DEPTH_MAX} are read",
                attributes.depth
            );
            return Err(wrong(Code::TooDeep, "", &detail));
        }
        let given_id = present(attributes.id)
            .is_none()
            .then(|| origin.defaults.id())
            .flatten();
        let given_source = present(attributes.source)
            .is_none()
            .then(|| origin.defaults.source());
        let id = match &given_id {
            Some(id) => Cow::Borrowed(id.as_str()),
            None => name(Attribute::Id, attributes.id)?,
        };
        let source = match given_source.flatten() {
            Some(source) => Cow::Borrowed(source),
            None => name(Attribute::Source, attributes.source)?,
        };
        let kind = name(Attribute::Type, attributes.kind)?;
        let subject = name(Attribute::Subject, attributes.subject)?;
        specversion(attributes.specversion)?;
        let time = time(attributes.time, origin.now)?;
        check_kept(time.unwrap_or(origin.received), origin.horizon)?;
        let record = EventRecord {
            tenant: origin.tenant.0,
            source: &source,
            id: &id,
            kind: &kind,
            subject: &subject,
            time_us: time.unwrap_or(origin.received).micros(),
            time_sent: time.is_some(),
            received_us: origin.received.micros(),
            data: data(attributes)?,
            extensions: self.extensions.finish(),
            grant: None,
        };
        batch.push(origin.key, &record);
        Ok(())
    }
}

#[derive(Default)]
struct Attributes<'a> {
    id: Option<Value<'a>>,
    source: Option<Value<'a>>,
    kind: Option<Value<'a>>,
    subject: Option<Value<'a>>,
    time: Option<Value<'a>>,
    specversion: Option<Value<'a>>,
    data: Option<Value<'a>>,
    data_base64: Option<Value<'a>>,
    /// Levels of the event, its own braces counted.
    depth: usize,
    /// The first thing wrong that shows while reading.
    flaw: Option<Problem>,
}

/// The attributes that the engine only keeps, as the text of a JSON object.
#[derive(Default)]
struct Extensions {
    json: String,
    names: String,
    ends: Vec<Range<usize>>,
}

impl Extensions {
    fn clear(&mut self) {
        self.json.clear();
        self.names.clear();
        self.ends.clear();
    }

    fn add(&mut self, name: &str, value: &Value<'_>) -> Result<(), Problem> {
        if self.ends.iter().any(|range| &self.names[range.clone()] == name) {
            return Err(twice(name));
        }
        if self.ends.len() == EVENT_EXTENSIONS_MAX {
            let detail =
                format!("has more than {EVENT_EXTENSIONS_MAX} attributes beyond those of every event");
            return Err(wrong(Code::Invalid, "", &detail));
        }
        if value.lone_surrogate {
            return Err(wrong(Code::Invalid, name, "has an unpaired surrogate"));
        }
        let start = self.names.len();
        self.names.push_str(name);
        self.ends.push(start..self.names.len());
        // CloudEvents: an attribute that is null is one that was not sent.
        if value.kind != Kind::Null {
            self.json.push(if self.json.is_empty() { '{' } else { ',' });
            let quoted = serde_json::to_string(name).unwrap_or_default();
            let _ = write!(self.json, "{quoted}:{}", value.raw);
        }
        Ok(())
    }

    fn finish(&mut self) -> &str {
        if !self.json.is_empty() {
            self.json.push('}');
        }
        &self.json
    }
}

/// A value that was sent: CloudEvents lets an absent attribute be null.
fn present(value: Option<Value<'_>>) -> Option<Value<'_>> {
    value.filter(|value| value.kind != Kind::Null)
}

fn name(attribute: Attribute, value: Option<Value<'_>>) -> Result<Cow<'_, str>, Problem> {
    let text = text(attribute.code(), attribute.name(), value)?;
    attribute.check(&text)?;
    Ok(text)
}

fn text<'a>(code: Code, attribute: &str, value: Option<Value<'a>>) -> Result<Cow<'a, str>, Problem> {
    let Some(value) = value else {
        return Err(wrong(code, attribute, "is missing"));
    };
    match value.text() {
        Some(text) => Ok(text),
        None if value.kind == Kind::Text => Err(wrong(code, attribute, "has an unpaired surrogate")),
        None => {
            let detail = format!("must be a string, not {}", value.kind.words());
            Err(wrong(code, attribute, &detail))
        }
    }
}

fn specversion(value: Option<Value<'_>>) -> Result<(), Problem> {
    let Some(value) = present(value) else {
        return Ok(());
    };
    let version = text(Code::InvalidSpecversion, "specversion", Some(value))?;
    if version == "1.0" {
        return Ok(());
    }
    let detail = format!("must be \"1.0\", not \"{}\"", cut(&version, 40));
    Err(wrong(Code::InvalidSpecversion, "specversion", &detail))
}

fn time(value: Option<Value<'_>>, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    let Some(value) = present(value) else {
        return Ok(None);
    };
    let text = text(Code::InvalidTime, "time", Some(value))?;
    read_time(&text, now).map(Some)
}

fn data<'a>(attributes: &Attributes<'a>) -> Result<&'a str, Problem> {
    if present(attributes.data_base64).is_some() {
        let detail = "is not taken: send data as a JSON object";
        return Err(wrong(Code::InvalidData, "data_base64", detail));
    }
    let Some(value) = present(attributes.data) else {
        return Ok("{}");
    };
    check_data(&value)?;
    Ok(value.raw)
}

/// An error unless `value` may be an event's `data`.
pub(crate) fn check_data(value: &Value<'_>) -> Result<(), Problem> {
    if value.kind != Kind::Object {
        let detail = format!("must be a JSON object, not {}", value.kind.words());
        return Err(wrong(Code::InvalidData, "data", &detail));
    }
    if value.lone_surrogate {
        return Err(wrong(
            Code::InvalidData,
            "data",
            "has a string with an unpaired surrogate",
        ));
    }
    Ok(())
}

/// The problem of an event of `size` bytes, or of more than are looked at.
pub(crate) fn too_large(size: usize) -> Problem {
    let detail = format!("an event has at most {EVENT_BYTES_MAX} bytes, this one has {size} or more");
    Problem::new(Code::TooLarge, detail)
}

fn twice(attribute: &str) -> Problem {
    wrong(Code::Invalid, attribute, "is there twice")
}

/// A problem with `attribute` of an event; with the event itself when that is empty.
pub(crate) fn wrong(code: Code, attribute: &str, detail: &str) -> Problem {
    let attribute = cut(attribute, 100);
    let subject = if attribute.is_empty() {
        "the event"
    } else {
        attribute
    };
    let pointer = if attribute.is_empty() {
        String::new()
    } else {
        format!("/{}", attribute.replace('~', "~0").replace('/', "~1"))
    };
    Problem {
        fields: vec![FieldError {
            pointer,
            detail: detail.to_owned(),
        }],
        ..Problem::new(code, format!("{subject} {detail}"))
    }
}

/// At most the first `bytes` of `text`, cut between characters.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
