use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, counter};
use turnpike_domain::identity::{NameKey, TenantId};
use turnpike_domain::invariant::{Invariant, VIOLATIONS};
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::history::History;
use turnpike_domain::port::intake::{Intake, Outcome, Rejection};
use turnpike_domain::problem::Problem;
use turnpike_domain::time::{Clock, Randomness, Timestamp};

use crate::IngestOptions;
use turnpike_http::Rates;

use crate::admission::Admission;
use crate::decode::cloudevents::{Defaults, Origin};
use crate::decode::{Kept, Piece, Refusals};

const DAY_US: i64 = 86_400_000_000;

/// What the gateway is made from.
pub struct IngestParts {
    /// The way into the log.
    pub intake: Arc<dyn Intake>,
    /// Looking at what was sent.
    pub history: Arc<dyn History>,
    /// Who and what there is.
    pub directory: Arc<dyn Directory>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Identifiers, for clients that send none.
    pub randomness: Arc<dyn Randomness>,
    /// The secret of names and payload hashes.
    pub key: NameKey,
    /// What an operator may set.
    pub options: IngestOptions,
}

/// What the gateway's handlers share. Cheap to clone.
#[derive(Clone)]
pub struct IngestState(Arc<Inner>);

pub(crate) struct Inner {
    parts: IngestParts,
    pub(crate) admission: Arc<Admission>,
    /// Dead letters of a tenant that may be kept.
    letters: Rates<TenantId>,
    pub(crate) counters: Counters,
}

/// Handles of the metrics of the hot path, looked up once.
pub(crate) struct Counters {
    accepted: Counter,
    duplicates: Counter,
    conflicts: Counter,
    rejected: Counter,
    pub(crate) bytes: Counter,
    letters_kept: Counter,
    letters_over_rate: Counter,
    letters_failed: Counter,
}

impl Counters {
    fn new() -> Self {
        let events = |outcome| counter!("turnpike_ingest_events_total", "outcome" => outcome);
        let letters = |result| counter!("turnpike_ingest_dead_letters_total", "result" => result);
        Self {
            accepted: events("accepted"),
            duplicates: events("duplicate"),
            conflicts: events("conflict"),
            rejected: events("rejected"),
            bytes: counter!("turnpike_ingest_bytes_total"),
            letters_kept: letters("kept"),
            letters_over_rate: letters("over_rate"),
            letters_failed: letters("failed"),
        }
    }
}

impl IngestState {
    /// A gateway made from `parts`. Install the metrics recorder first: handles of metrics are taken here.
    pub fn new(parts: IngestParts) -> Self {
        let options = &parts.options;
        Self(Arc::new(Inner {
            admission: Admission::new(options.in_flight_bytes_max),
            letters: Rates::new(),
            counters: Counters::new(),
            parts,
        }))
    }

    /// Where the events of a request of `tenant` come from that arrives now.
    pub(crate) fn origin<'k>(&'k self, tenant: TenantId, defaults: &'k dyn Defaults) -> Origin<'k> {
        let now = self.clock.now(tenant);
        Origin {
            key: &self.key,
            tenant,
            now,
            horizon: self.horizon(now),
            received: now,
            defaults,
        }
    }

    /// The time before which events are refused, on a clock that shows `now`.
    pub(crate) fn horizon(&self, now: Timestamp) -> Timestamp {
        match i64::from(self.0.parts.options.retention_days) {
            0 => Timestamp::from_micros_clamped(i64::MIN),
            days => now.plus_micros(-days * DAY_US),
        }
    }

    /// Whether one more refused event of `tenant` is kept.
    pub(crate) fn may_keep(&self, tenant: TenantId) -> bool {
        let options = &self.0.parts.options;
        let burst = u64::from(options.dead_letters_burst);
        // So many microseconds fill the bucket; never, where none are kept per second.
        let window_us = (burst * 1_000_000).checked_div(options.dead_letters_per_s.into());
        let kept = window_us.is_some_and(|window_us| {
            let (count, now_us) = (options.dead_letters_burst, self.clock.monotonic_us());
            self.0.letters.take(&tenant, count, window_us, now_us).is_ok()
        });
        if !kept {
            self.0.counters.letters_over_rate.increment(1);
        }
        kept
    }

    pub(crate) fn idle(&self) -> Duration {
        Duration::from_secs(self.0.parts.options.body_idle_s_max)
    }

    pub(crate) fn admission(&self) -> &Arc<Admission> {
        &self.0.admission
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Sends a piece on its way and waits until it is durable: the outcomes of its good events, in order. Its refused
    /// events become dead letters at the same time.
    pub(crate) async fn settle(&self, tenant: TenantId, piece: &mut Piece) -> Result<Vec<Outcome>, Problem> {
        let submit = async {
            if piece.batch.is_empty() {
                return Ok(Vec::new());
            }
            self.intake.submit(Arc::clone(&piece.batch)).await
        };
        let outcomes = if piece.refused.is_empty() {
            submit.await?
        } else {
            let refused = &mut piece.refused;
            futures_util::join!(submit, self.bury(tenant, refused)).0?
        };
        self.count(&outcomes, piece.refused.len());
        Ok(outcomes)
    }

    /// Keeps refused events as dead letters. That it fails is counted and logged, and changes no answer: the caller is
    /// told of each refusal anyway.
    pub(crate) async fn bury(&self, tenant: TenantId, refused: &mut Refusals) {
        let only_counted = refused.only_counted() as u64;
        self.0.counters.letters_over_rate.increment(only_counted);
        let received = self.clock.now(tenant);
        let letters: Vec<Rejection> = refused
            .first_mut()
            .iter_mut()
            .filter_map(|refused| {
                let kept = refused.kept.take()?;
                Some(rejection(
                    tenant,
                    received,
                    &refused.problem,
                    refused.id.clone(),
                    kept,
                ))
            })
            .collect();
        self.keep(letters).await;
    }

    /// Keeps a body that cannot be read at all as one dead letter.
    pub(crate) async fn bury_body(&self, tenant: TenantId, problem: &Problem, body: &[u8]) {
        self.count(&[], 1);
        if self.may_keep(tenant) {
            let received = self.clock.now(tenant);
            let kept = Kept::new(body, false);
            let letter = rejection(tenant, received, problem, String::new(), kept);
            self.keep(vec![letter]).await;
        }
    }

    async fn keep(&self, letters: Vec<Rejection>) {
        if letters.is_empty() {
            return;
        }
        let count = letters.len() as u64;
        match self.intake.reject(letters).await {
            Ok(_) => self.0.counters.letters_kept.increment(count),
            Err(problem) => {
                self.0.counters.letters_failed.increment(count);
                metrics::counter!(VIOLATIONS, "invariant" => Invariant::ReasonKept.name()).increment(count);
                tracing::warn!(count, %problem, "refused events could not be kept as dead letters");
            }
        }
    }

    /// Counts what became of events.
    pub(crate) fn count(&self, outcomes: &[Outcome], rejected: usize) {
        let counters = &self.0.counters;
        let of =
            |wanted: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| wanted(outcome)).count() as u64;
        counters
            .accepted
            .increment(of(|outcome| matches!(outcome, Outcome::Accepted(_))));
        counters
            .duplicates
            .increment(of(|outcome| matches!(outcome, Outcome::Duplicate(_))));
        counters
            .conflicts
            .increment(of(|outcome| matches!(outcome, Outcome::Conflict(_))));
        counters.rejected.increment(rejected as u64);
    }
}

fn rejection(tenant: TenantId, received: Timestamp, problem: &Problem, id: String, kept: Kept) -> Rejection {
    Rejection {
        tenant,
        received,
        code: problem.code.slug().to_owned(),
        detail: problem.detail.clone(),
        id,
        raw: kept.raw,
        cut: kept.cut,
    }
}

impl std::ops::Deref for IngestState {
    type Target = IngestParts;

    fn deref(&self) -> &IngestParts {
        &self.0.parts
    }
}
