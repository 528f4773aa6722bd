//! What every HTTP handler shares: the failure as `problem+json`, the caller, bodies, pages, rates.

mod body;
mod caller;
mod change;
mod cursor;
mod failure;
mod page;
mod rate;

pub use body::{Idempotency, JsonBody, MaybeJson, Params, told, without_body};
pub use caller::{Caller, RequestId};
pub use change::{Answered, Changing};
pub use cursor::Cursor;
pub use failure::{Failure, ProblemBody, Reply};
pub use page::{Page, PageQuery};
pub use rate::Rates;
