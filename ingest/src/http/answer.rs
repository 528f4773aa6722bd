//! What became of the events of a request.

use serde::Serialize;
use turnpike_domain::limits::EVENT_ERRORS_LISTED_MAX;
use turnpike_domain::port::intake::Outcome;
use turnpike_domain::problem::{Code, FieldError, Problem};

use crate::decode::{Piece, Refusals};

/// How many events were taken, and what was wrong with the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct IngestAnswer {
    /// New events: durable and counted.
    pub accepted: u64,
    /// Events that were sent before, with the same payload.
    pub duplicates: u64,
    /// Events whose id was sent before with another payload; the first one stands.
    pub conflicts: u64,
    /// Events that are invalid.
    pub rejected: u64,
    /// The first 1,000 conflicts and rejected events, in the order of the request.
    pub errors: Vec<EventError>,
    /// How many more there were than are listed; absent when all are.
    #[serde(skip_serializing_if = "is_zero")]
    pub errors_omitted: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What was wrong with one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct EventError {
    /// Its place in the request, from 0. In a stream blank lines are not counted.
    pub index: u64,
    /// Its id, empty where it could not be read.
    pub id: String,
    /// The stable code.
    pub code: &'static str,
    /// What was wrong.
    pub detail: String,
}

impl IngestAnswer {
    /// What became of `piece`, whose good events had these `outcomes`.
    pub(crate) fn of(piece: &Piece, outcomes: &[Outcome]) -> Self {
        let mut answer = Self::default();
        for outcome in outcomes {
            match outcome {
                Outcome::Accepted(_) => answer.accepted += 1,
                Outcome::Duplicate(_) => answer.duplicates += 1,
                Outcome::Conflict(_) => answer.conflicts += 1,
            }
        }
        answer.rejected = piece.refused.len() as u64;
        if answer.conflicts + answer.rejected > 0 {
            answer.list(errors(piece, outcomes));
        }
        answer
    }

    /// Adds what came behind.
    pub(crate) fn join(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.conflicts += other.conflicts;
        self.rejected += other.rejected;
        self.list(other.errors);
    }

    /// Lists `errors`, the first of those that are counted already.
    fn list(&mut self, errors: impl IntoIterator<Item = EventError>) {
        let room = EVENT_ERRORS_LISTED_MAX.saturating_sub(self.errors.len());
        self.errors.extend(errors.into_iter().take(room));
        self.errors_omitted = (self.conflicts + self.rejected).saturating_sub(self.errors.len() as u64);
    }

    /// `problem`, which ended a stream, with what became of the events that it does not concern: what counts of a piece
    /// that failed in part is in its own words.
    pub(crate) fn interrupted(&self, problem: Problem) -> Problem {
        let advice = if problem.code.retryable() {
            "Send the whole stream again"
        } else {
            "Mend it and send the whole stream again"
        };
        let detail = format!(
            "{}. Of the other events that were read, {} were accepted, {} were duplicates, {} conflicts, {} rejected. \
             {advice}: what was accepted is answered as a duplicate and counts once",
            problem.detail, self.accepted, self.duplicates, self.conflicts, self.rejected
        );
        Problem { detail, ..problem }
    }
}

/// The problem with one bare event, if there is one.
pub(crate) fn single(piece: &Piece, outcomes: &[Outcome]) -> Result<(), Problem> {
    if let Some(refused) = piece.refused.first().first() {
        return Err(refused.problem.clone());
    }
    if let Some(Outcome::Conflict(_)) = outcomes.first() {
        return Err(Problem::new(Code::EventConflict, CONFLICT));
    }
    Ok(())
}

/// The conflicts of a request whose answer has no body, if there are any: all others of its events were taken.
pub(crate) fn conflicts(piece: &Piece, outcomes: &[Outcome]) -> Result<(), Problem> {
    let answer = IngestAnswer::of(piece, outcomes);
    if answer.conflicts == 0 {
        return Ok(());
    }
    let fields = answer.errors.iter().map(|error| FieldError {
        pointer: format!("/{}", error.index),
        detail: format!(
            "{}: the event \"{}\" was sent before with another payload",
            error.code, error.id
        ),
    });
    let detail = format!(
        "{} of {} events were sent before with another payload; the first ones stand, the others were taken",
        answer.conflicts,
        outcomes.len()
    );
    Err(Problem {
        fields: fields.collect(),
        ..Problem::new(Code::EventConflict, detail)
    })
}

/// The refusal of a whole request because of its invalid events.
pub(crate) fn all_refused(total: usize, refused: &Refusals) -> Problem {
    let fields = refused.first().iter().map(|refused| {
        let pointer = refused.problem.fields.first().map_or("", |field| &field.pointer);
        FieldError {
            pointer: format!("/{}{pointer}", refused.index),
            detail: format!("{}: {}", refused.problem.code.slug(), refused.problem.detail),
        }
    });
    Problem {
        fields: fields.collect(),
        ..Problem::new(
            Code::Invalid,
            format!("{} of {total} events are invalid; none was kept", refused.len()),
        )
    }
}

const CONFLICT: &str =
    "an event with this source and id was sent before with another payload; the first one stands";

/// The first errors of `piece`, ascending by index, and no more than an answer lists.
#[cold]
fn errors(piece: &Piece, outcomes: &[Outcome]) -> Vec<EventError> {
    let entries = piece.batch.entries().iter().zip(outcomes).zip(piece.indexes());
    let conflicts = entries
        .filter(|((_, outcome), _)| matches!(outcome, Outcome::Conflict(_)))
        .map(|((entry, _), index)| conflict(index, piece.batch.event(entry).id));
    let refused = piece.refused.first().iter().map(|refused| EventError {
        index: refused.index,
        id: refused.id.clone(),
        code: refused.problem.code.slug(),
        detail: refused.problem.detail.clone(),
    });
    let mut errors: Vec<EventError> = conflicts.take(EVENT_ERRORS_LISTED_MAX).chain(refused).collect();
    errors.sort_by_key(|error| error.index);
    errors.truncate(EVENT_ERRORS_LISTED_MAX);
    errors
}

fn conflict(index: u64, id: &str) -> EventError {
    EventError {
        index,
        id: id.to_owned(),
        code: Code::EventConflict.slug(),
        detail: CONFLICT.to_owned(),
    }
}
