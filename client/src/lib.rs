//! Quota decisions and events from a Rust service.
//!
//! [`Client`] has a plain function for each call of the API's hot paths: [`check`](Client::check),
//! [`consume`](Client::consume), [`reserve`](Client::reserve) with [`commit`](Client::commit) and
//! [`release`](Client::release), and [`send`](Client::send) for events. [`QuotaLayer`] is a tower layer that
//! decides before a service is called. All other calls are plain HTTP: the server describes them at `/docs`.
//!
//! ```no_run
//! use turnpike_client::{Ask, Client, Event};
//!
//! # async fn run() -> Result<(), turnpike_client::Error> {
//! let client = Client::new("http://127.0.0.1:8080", "choose-a-long-secret")?;
//! let decision = client.consume(&Ask::new("acme", "tokens").amount(250_u64)).await?;
//! if !decision.allowed {
//!     println!("refused: {}, again at {:?}", decision.reason.as_str(), decision.resets_at);
//! }
//! let event = Event::new("1", "gateway", "llm.request", "acme").data("tokens", "250");
//! let answer = client.send(&[event]).await?;
//! assert_eq!(answer.rejected, 0);
//! # Ok(())
//! # }
//! ```
//!
//! A call is tried again where the engine asks for it or does not answer, within one bound of time
//! ([`Client::with_timeout`]). That is safe for all of them: each carries the id under which the engine counts it once.

mod ask;
mod client;
mod decision;
mod error;
mod event;
mod layer;
mod quantity;
pub mod transport;

pub use ask::Ask;
pub use client::Client;
pub use decision::{Decision, Limit, RateLimit, Reason, Reservation, Upgrade};
pub use error::{Error, FieldError, Problem};
pub use event::{Event, EventError, EventsAnswer};
pub use layer::{Before, Quota, QuotaLayer, Standing, WhenAway};
pub use quantity::{Quantity, QuantityError};
