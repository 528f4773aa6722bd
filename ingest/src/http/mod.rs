//! What callers see.

mod answer;
mod body;
mod content;
pub(crate) mod corrections;
pub(crate) mod dead_letters;
pub(crate) mod events;
pub(crate) mod listing;
pub(crate) mod openmeter;
mod stream;
mod view;
mod whole;

pub use answer::{EventError, IngestAnswer};

/// A CloudEvent 1.0 as it is sent. Attributes that are not listed are kept with the event.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it only describes what the reader of events takes")]
pub(crate) struct EventInput {
    /// With `source` the event's identity: 1 to 512 bytes.
    #[schema(min_length = 1, max_length = 512, example = "req-7f3a")]
    id: String,
    /// Who sends it: 1 to 512 bytes.
    #[schema(min_length = 1, max_length = 512, example = "api-gateway")]
    source: String,
    /// What happened: meters read events by their type. 1 to 512 bytes.
    #[schema(min_length = 1, max_length = 512, example = "llm.request")]
    r#type: String,
    /// Whose usage it is: 1 to 512 bytes.
    #[schema(min_length = 1, max_length = 512, example = "acme")]
    subject: String,
    /// When it happened, RFC 3339, at most 5 minutes ahead; the time of receipt unless sent. Digits finer than a microsecond are
    /// cut, and a second of 60 (`23:59:60`) is taken as 59: times that are the same then are equal, so an event sent again with
    /// other finer digits is a duplicate.
    #[schema(format = DateTime, example = "2026-01-01T00:00:00Z")]
    time: Option<String>,
    /// "1.0" where it is sent.
    #[schema(pattern = r"^1\.0$", example = "1.0")]
    specversion: Option<String>,
    /// What meters read; `{}` unless sent.
    #[schema(value_type = Option<Object>)]
    data: Option<serde_json::Value>,
}

/// A CloudEvent 1.0 as OpenMeter's clients send it: what they may leave out is filled in.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it only describes what the reader of events takes")]
pub(crate) struct OpenMeterEventInput {
    /// 1 to 512 bytes. Made by the server unless sent: the event is then not protected against a resend.
    #[schema(min_length = 1, max_length = 512, example = "req-7f3a")]
    id: Option<String>,
    /// 1 to 512 bytes; `turnpike:openmeter` unless sent.
    #[schema(min_length = 1, max_length = 512, example = "api-gateway")]
    source: Option<String>,
    /// What happened: meters read events by their type. 1 to 512 bytes.
    #[schema(min_length = 1, max_length = 512, example = "prompt")]
    r#type: String,
    /// Whose usage it is: 1 to 512 bytes.
    #[schema(min_length = 1, max_length = 512, example = "customer-1")]
    subject: String,
    /// When it happened, RFC 3339, at most 5 minutes ahead; the time of receipt unless sent. Digits finer than a microsecond are
    /// cut, and a second of 60 (`23:59:60`) is taken as 59: times that are the same then are equal, so an event sent again with
    /// other finer digits is a duplicate.
    #[schema(format = DateTime, example = "2026-01-01T00:00:00Z")]
    time: Option<String>,
    /// "1.0" where it is sent.
    #[schema(pattern = r"^1\.0$", example = "1.0")]
    specversion: Option<String>,
    /// What meters read; `{}` unless sent.
    #[schema(value_type = Option<Object>)]
    data: Option<serde_json::Value>,
}
