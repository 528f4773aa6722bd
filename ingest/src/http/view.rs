//! Events and dead letters as they are shown.

use base64::Engine as _;
use serde::Serialize;
use serde_json::value::RawValue;
use turnpike_domain::port::history::{DeadLetter, EventStatus, EventView};
use turnpike_domain::port::intake::Known;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::record::{Record, decode};
use turnpike_domain::time::Timestamp;

/// An event as it counts now; a voided one as it counted last.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct EventBody {
    /// Position of its newest record in the log.
    position: String,
    /// How it stands.
    status: EventStatus,
    /// CloudEvents `source`.
    source: String,
    /// CloudEvents `id`.
    id: String,
    /// CloudEvents `type`.
    r#type: String,
    /// CloudEvents `subject`.
    subject: String,
    /// The time that it counts for.
    #[schema(value_type = String, format = DateTime)]
    time: Timestamp,
    /// When it arrived.
    #[schema(value_type = String, format = DateTime)]
    received: Timestamp,
    /// What meters read.
    #[schema(value_type = Object)]
    data: Box<RawValue>,
    /// The other attributes that it was sent with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    extensions: Option<Box<RawValue>>,
}

impl EventBody {
    /// The event that `known` is the newest record of; `None` when it is no event, but an open reservation, say.
    pub(crate) fn of_record(known: &Known) -> Result<Option<Self>, Problem> {
        let (status, event) = match decode(&known.record)? {
            Record::Event(event) | Record::Committed { event, .. } => (EventStatus::Accepted, event),
            Record::Amend { after, .. } => (EventStatus::Amended, after),
            Record::Void { before, .. } => (EventStatus::Voided, before),
            _ => return Ok(None),
        };
        Self::of(EventView::of(&event, status, known.position)).map(Some)
    }

    /// The event of `view`.
    pub(crate) fn of(view: EventView) -> Result<Self, Problem> {
        let extensions = Some(view.extensions).filter(|json| !json.is_empty());
        Ok(Self {
            position: view.position.0.to_string(),
            status: view.status,
            source: view.source,
            id: view.id,
            r#type: view.kind,
            subject: view.subject,
            time: view.time,
            received: view.received,
            data: raw(view.data)?,
            extensions: extensions.map(raw).transpose()?,
        })
    }
}

fn raw(json: String) -> Result<Box<RawValue>, Problem> {
    RawValue::from_string(json).map_err(|error| {
        Problem::new(
            Code::Internal,
            format!("an event of the log is not JSON: {error}"),
        )
    })
}

/// Something that could not be counted.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum DeadLetterBody {
    /// An event was refused.
    Refused {
        /// What to name it by in a replay.
        position: String,
        /// When it arrived.
        #[schema(value_type = String, format = DateTime)]
        received: Timestamp,
        /// The stable code.
        code: String,
        /// What was wrong.
        detail: String,
        /// Its id, empty where it could not be read.
        id: String,
        /// The first 4 KiB of what was sent, as text; bytes that are no UTF-8 are shown as U+FFFD.
        raw: String,
        /// The same in base64, where it is no UTF-8.
        #[serde(skip_serializing_if = "Option::is_none")]
        raw_base64: Option<String>,
        /// Whether more was sent than is kept. Such an event cannot be replayed: send it again.
        cut: bool,
    },
    /// A meter could not read its value from an accepted event, which counts for the other meters. Amend or void the event.
    Unreadable {
        /// Position of the event.
        position: String,
        /// The meter's key.
        meter: String,
        /// The event's `source`.
        source: String,
        /// The event's `id`.
        id: String,
        /// The stable code: `invalid_value`.
        code: &'static str,
        /// What was wrong.
        detail: String,
    },
}

impl From<DeadLetter> for DeadLetterBody {
    fn from(letter: DeadLetter) -> Self {
        match letter {
            DeadLetter::Refused {
                position,
                received,
                code,
                detail,
                id,
                raw,
                cut,
            } => {
                let is_text = std::str::from_utf8(&raw).is_ok();
                Self::Refused {
                    position: position.0.to_string(),
                    received,
                    code,
                    detail,
                    id,
                    raw: String::from_utf8_lossy(&raw).into_owned(),
                    raw_base64: (!is_text).then(|| base64::engine::general_purpose::STANDARD.encode(&raw)),
                    cut,
                }
            }
            DeadLetter::Unreadable {
                position,
                meter,
                source,
                id,
                detail,
            } => Self::Unreadable {
                position: position.0.to_string(),
                meter,
                source,
                id,
                code: Code::InvalidValue.slug(),
                detail,
            },
        }
    }
}
