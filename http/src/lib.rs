//! What every HTTP handler shares: the failure as `problem+json`, the caller, bodies, pages, rates.

// A cast that could change a number is written otherwise, or says why it cannot.
#![cfg_attr(
    not(test),
    warn(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )
)]

mod body;
mod caller;
mod change;
mod csv;
mod cursor;
mod decimal;
mod failure;
mod format;
mod ndjson;
mod page;
mod rate;

pub use body::{
    Idempotency, JsonBody, JsonBytes, MaybeJson, Params, Whole, optional_time, parse_time, read_within,
    unread, without_body,
};
pub use caller::{Caller, RequestId};
pub use change::{Answered, Changing};
pub use csv::csv;
pub use cursor::Cursor;
pub use decimal::SentDecimal;
pub use failure::{Failure, ProblemBody, Reply};
pub use format::Format;
pub use ndjson::ndjson;
pub use page::{Page, PageQuery};
pub use rate::Rates;
