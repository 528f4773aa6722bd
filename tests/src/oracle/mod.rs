//! The oracle: an independent, simple model in memory, fed with exactly what was acknowledged.
//!
//! What it is: events with duplicates, conflicts, voids, amendments and late ones; all nine aggregations with filters,
//! groups, and windows in a zone; quotas (consume, reserve, commit, release, expiry) against limits of all windows and
//! modes, with those of a parent; invoices of flat, per-unit, graduated and package prices with a minimum commitment
//! and the adjustments of the next invoice. Numbers are big rationals, an event is kept as it was sent, and every
//! question is answered by going through all events. It is slow and short on purpose.
//!
//! It shares no code with the engine: no crate of the workspace is used here, which
//! `the_oracle_shares_nothing_with_the_engine` in `tests/architecture.rs` holds. The one thing that both use is `jiff`,
//! for the rules of time zones.
//!
//! What it is not: it checks no input (tests tell it only what is valid), knows no paths but members of `data`, no
//! prices in advance, trials, pauses, changes of plan, add-ons, overrides or grants, and nothing of time passing: each
//! question says when it is asked. Those rules have tests beside the crates that own them.

mod calendar;
mod decimal;
mod invoice;
mod price;
mod quota;
mod usage;

use std::collections::BTreeMap;

pub use calendar::{month_boundary, month_period};
pub use decimal::{decimal, show};
pub use invoice::{OracleAccount, OracleCharge, OracleInvoice, OracleLine, OraclePlan};
pub use price::{Bill, OraclePrice, OracleTier};
pub use quota::{Ask, Fate, OracleLimit, OracleMode, OracleQuota, QUOTA_SOURCE, Standing};
pub use usage::{OracleMeter, Row, Select};

use serde_json::Value;

/// An event as the oracle keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct OracleEvent {
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `id`.
    pub id: String,
    /// CloudEvents `type`.
    pub kind: String,
    /// CloudEvents `subject`.
    pub subject: String,
    /// Microseconds since 1970.
    pub time_us: i64,
    /// The data.
    pub data: Value,
}

impl OracleEvent {
    /// The event as a CloudEvent in JSON.
    pub fn to_json(&self) -> Value {
        let time = jiff::Timestamp::from_microsecond(self.time_us)
            .unwrap_or_default()
            .to_string();
        serde_json::json!({
            "specversion": "1.0", "source": self.source, "id": self.id, "type": self.kind, "subject": self.subject,
            "time": time, "data": self.data,
        })
    }
}

/// What the oracle says of an event that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Accepted,
    /// It was there before.
    Duplicate,
    /// Its id was there before, with other content.
    Conflict,
}

#[derive(Debug, Clone)]
struct Kept {
    first: OracleEvent,
    live: Option<OracleEvent>,
}

/// The model of one tenant.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    events: BTreeMap<(String, String), Kept>,
}

impl Oracle {
    /// Takes an event.
    pub fn send(&mut self, event: OracleEvent) -> Verdict {
        match self.events.get(&(event.source.clone(), event.id.clone())) {
            Some(kept) if kept.first == event => Verdict::Duplicate,
            Some(_) => Verdict::Conflict,
            None => {
                let kept = Kept {
                    first: event.clone(),
                    live: Some(event.clone()),
                };
                self.events.insert((event.source, event.id), kept);
                Verdict::Accepted
            }
        }
    }

    /// Takes an event back. False: there is none.
    pub fn void(&mut self, source: &str, id: &str) -> bool {
        let Some(kept) = self.events.get_mut(&(source.to_owned(), id.to_owned())) else {
            return false;
        };
        kept.live = None;
        true
    }

    /// Replaces an event's data or time. False: there is none, or it was taken back.
    pub fn amend(&mut self, source: &str, id: &str, data: Option<Value>, time_us: Option<i64>) -> bool {
        let kept = self.events.get_mut(&(source.to_owned(), id.to_owned()));
        let Some(live) = kept.and_then(|kept| kept.live.as_mut()) else {
            return false;
        };
        live.data = data.unwrap_or_else(|| live.data.clone());
        live.time_us = time_us.unwrap_or(live.time_us);
        true
    }

    /// The events that count.
    pub fn live(&self) -> impl Iterator<Item = &OracleEvent> {
        self.events.values().filter_map(|kept| kept.live.as_ref())
    }

    /// How many ids are known.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether no id is known.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}
