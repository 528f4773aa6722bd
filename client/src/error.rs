//! Why a call has no answer.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use crate::transport::may_retry;

/// Why a call has no answer. A refusal by a quota is none: it is a [`Decision`](crate::Decision).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client was made with an address or a key that cannot be used.
    #[error("{0}")]
    Config(String),
    /// The engine could not be reached, or the connection was lost.
    #[error("the engine cannot be reached: {0}")]
    Unreachable(#[source] reqwest::Error),
    /// The engine did not answer in time. What was asked may have been done: the same id makes sure.
    #[error("the engine did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The engine answered that it does not do this.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The answer is not one that the API has: something else listens there, or stands between.
    #[error("the answer, with status {status}, is not one of this API: {detail}")]
    Unreadable {
        /// Its status.
        status: StatusCode,
        /// What is wrong with it.
        detail: String,
    },
}

impl Error {
    /// The stable code of the problem: the server's `/docs/errors/{code}` explains it.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Problem(problem) => Some(&problem.code),
            _ => None,
        }
    }

    /// Whether the engine is away for now, so that nothing is known of what was asked: it cannot be reached, takes no more
    /// calls, or fails. Other errors are those of the caller, and the same call meets them again.
    pub fn is_away(&self) -> bool {
        let away = |status: StatusCode| status.is_server_error() || may_retry(status);
        match self {
            Self::Config(_) => false,
            Self::Unreachable(_) | Self::TimedOut(_) => true,
            Self::Problem(problem) => away(problem.status),
            Self::Unreadable { status, .. } => away(*status),
        }
    }

    /// When the engine asks to be called again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Problem(problem) => problem.retry_after,
            _ => None,
        }
    }

    /// The status with which the engine, or what stands before it, answered.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Problem(problem) => Some(problem.status),
            Self::Unreadable { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// A failure as the engine tells it. Source: RFC 9457.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
#[non_exhaustive]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// The stable code.
    pub code: String,
    /// What went wrong, for a person.
    pub detail: String,
    /// Whether the same call may succeed later.
    pub retryable: bool,
    /// The request, as it stands in the server's logs.
    pub request_id: Option<String>,
    /// The fields concerned.
    pub errors: Vec<FieldError>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

/// A field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct FieldError {
    /// Its JSON pointer into the body. Source: RFC 6901.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}
