//! The one table of error codes, and the failure that an operation tells its caller.

use serde::Serialize;

macro_rules! codes {
    ($( $(#[doc = $doc:literal])+ $name:ident = $slug:literal, $status:literal, $retryable:literal; )+) => {
        /// A stable code of a failure: its HTTP status, and whether a retry of the same call can help.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $( $(#[doc = $doc])+ $name, )+ }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )+ ];

            /// The code as it stands on the wire.
            pub const fn slug(self) -> &'static str { match self { $( Self::$name => $slug, )+ } }

            /// The HTTP status.
            pub const fn status(self) -> u16 { match self { $( Self::$name => $status, )+ } }

            /// Whether the same call may succeed later.
            pub const fn retryable(self) -> bool { match self { $( Self::$name => $retryable, )+ } }

            /// What the code means, and what to do: the text of its documentation page.
            pub const fn meaning(self) -> &'static str { match self { $( Self::$name => concat!($($doc, "\n",)+), )+ } }
        }
    };
}

codes! {
    /// The body is not JSON, or is cut short.
    InvalidJson = "invalid_json", 400, false;
    /// The request cannot be read: a parameter, header or encoding is broken.
    InvalidRequest = "invalid_request", 400, false;
    /// The connection ended, or failed, before the body did: send the whole call again.
    IncompleteBody = "incomplete_body", 400, true;
    /// No valid API key was sent: `Authorization: Bearer <key>`.
    Unauthorized = "unauthorized", 401, false;
    /// The key is valid but lacks the scope that this call needs.
    Forbidden = "forbidden", 403, false;
    /// The tenant is suspended.
    TenantSuspended = "tenant_suspended", 403, false;
    /// There is nothing at this path or under this key.
    NotFound = "not_found", 404, false;
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", 405, false;
    /// The body arrived too slowly: send it again, in smaller parts if the line is slow.
    RequestTimeout = "request_timeout", 408, true;
    /// The same id was sent before with another payload; the first one stands.
    EventConflict = "event_conflict", 409, false;
    /// The event was voided and takes no further amendments.
    EventVoided = "event_voided", 409, false;
    /// The same idempotency key was used with another request.
    IdempotencyConflict = "idempotency_conflict", 409, false;
    /// A call with the same idempotency key is still running.
    IdempotencyInProgress = "idempotency_in_progress", 409, true;
    /// The key is taken by something else.
    AlreadyExists = "already_exists", 409, false;
    /// A definition that never changes was sent with other content: make another key.
    Immutable = "immutable", 409, false;
    /// The catalog is at another version than was expected: look at the difference again.
    CatalogChanged = "catalog_changed", 409, false;
    /// Something else still refers to this.
    InUse = "in_use", 409, false;
    /// The state does not allow this step.
    IllegalTransition = "illegal_transition", 409, false;
    /// The reservation is closed: committed, released or expired.
    ReservationClosed = "reservation_closed", 409, false;
    /// The body is larger than allowed.
    TooLarge = "too_large", 413, false;
    /// The request's target is longer than allowed: send what is long in the body.
    UriTooLong = "uri_too_long", 414, false;
    /// The content type or encoding is not one that this path takes.
    UnsupportedMediaType = "unsupported_media_type", 415, false;
    /// The request can be read but is invalid; `errors` points to the fields.
    Invalid = "invalid", 422, false;
    /// `id` must be 1 to 512 bytes of text.
    InvalidId = "invalid_id", 422, false;
    /// `source` must be 1 to 512 bytes of text.
    InvalidSource = "invalid_source", 422, false;
    /// `type` must be 1 to 512 bytes of text.
    InvalidType = "invalid_type", 422, false;
    /// `subject` must be 1 to 512 bytes of text.
    InvalidSubject = "invalid_subject", 422, false;
    /// `time` must be RFC 3339, from 1970 on.
    InvalidTime = "invalid_time", 422, false;
    /// `time` lies more than 5 minutes ahead of the server's clock.
    TimeInFuture = "time_in_future", 422, true;
    /// `time` lies before the horizon of retention.
    TooOld = "too_old", 422, false;
    /// `data` must be a JSON object.
    InvalidData = "invalid_data", 422, false;
    /// `specversion` must be "1.0" where it is sent.
    InvalidSpecversion = "invalid_specversion", 422, false;
    /// A meter cannot read its value from the event.
    InvalidValue = "invalid_value", 422, false;
    /// A number is beyond 26 digits before the point.
    Overflow = "overflow", 422, false;
    /// The fees leave less than one minor unit for the seller: ask for a larger gross amount or smaller fees.
    AmountTooSmall = "amount_too_small", 422, false;
    /// JSON is nested deeper than 64 levels.
    TooDeep = "too_deep", 422, false;
    /// The head of the request has more bytes or headers than allowed.
    HeadTooLarge = "head_too_large", 431, false;
    /// A quota refused the call and `status=strict` was asked for.
    QuotaRefused = "quota_refused", 429, true;
    /// Too many calls of this key or tenant in a second, or too many calls without a valid key or connections at once from
    /// this address: wait for the seconds in `Retry-After`.
    RateLimited = "rate_limited", 429, true;
    /// A bounded queue or memory is full; what found no room was not kept. Of a stream of lines `detail` counts what was.
    Overloaded = "overloaded", 503, true;
    /// The disk is nearly full; intake stops until there is space.
    StorageFull = "storage_full", 503, true;
    /// The log can no longer be written safely; the process must be restarted.
    StoragePoisoned = "storage_poisoned", 503, true;
    /// A part that the call needs is not ready or not reachable.
    Unavailable = "unavailable", 503, true;
    /// The server is shutting down.
    ShuttingDown = "shutting_down", 503, true;
    /// A part of what is stored is not what was written; `detail` and `errors` name it where they can, and the server's log names
    /// the place. The same call will not succeed before it is mended: the one who runs the server looks with `turnpike doctor`
    /// and `turnpike verify`, and restores a backup.
    Damaged = "damaged", 500, false;
    /// A defect of the server. It is logged with the request id.
    Internal = "internal", 500, true;
}

/// A field that is wrong, by JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// RFC 6901 pointer into the body.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

/// A failure as its caller is told: a code, words, and the fields concerned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}{}", code.slug(), behind(internal.as_deref()))]
pub struct Problem {
    /// The code.
    pub code: Code,
    /// What went wrong, for a person.
    pub detail: String,
    /// The fields concerned.
    pub fields: Vec<FieldError>,
    /// When to try again, in seconds, where a retry helps.
    pub retry_after_s: Option<u32>,
    /// What belongs into the server's log and on its terminal only: names of files, words of a library.
    pub internal: Option<Box<str>>,
}

/// What is internal, behind what everybody is told.
fn behind(internal: Option<&str>) -> String {
    internal.map_or_else(String::new, |internal| format!(" ({internal})"))
}

impl Problem {
    /// A failure without fields; a code that a retry can help gets one second.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let retry_after_s = (code.retryable() && matches!(code.status(), 429 | 503)).then_some(1);
        Self {
            code,
            detail: detail.into(),
            fields: Vec::new(),
            retry_after_s,
            internal: None,
        }
    }

    /// What went wrong, in the words for the one who runs the server.
    pub fn for_operator(&self) -> &str {
        self.internal.as_deref().unwrap_or(&self.detail)
    }

    /// Adds what only the server's log and terminal tell.
    #[must_use]
    pub fn because(self, internal: impl Into<Box<str>>) -> Self {
        Self {
            internal: Some(internal.into()),
            ..self
        }
    }

    /// A request that can be read but whose field at `pointer` is invalid.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let field = FieldError {
            pointer: pointer.into(),
            detail: detail.into(),
        };
        let detail = format!("{} {}", field.pointer, field.detail)
            .trim_start()
            .to_owned();
        Self {
            fields: vec![field],
            ..Self::new(Code::Invalid, detail)
        }
    }

    /// Nothing of kind `what` under `key`.
    pub fn not_found(what: &str, key: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no {what} \"{key}\""))
    }
}
