use turnpike_domain::port::intake::Expect;
use turnpike_domain::port::views::IdEntry;
use turnpike_domain::problem::Problem;
use turnpike_domain::record::{Position, decode};

use super::Owner;
use super::answer::Answer;
use super::command::{Quota, Written};
use super::submit::{Fresh, New};
use super::write::Draft;
use crate::core::{id_entry, times};

/// A quota record of a run before the log has given positions.
enum Found {
    /// The `n`th new record of the run.
    New(usize),
    /// Not written: the name's newest record is another.
    Occupied(IdEntry),
}

impl Owner {
    /// Writes those quota records of a run whose names are in the state that they expect: one look at the id store, one
    /// append. No name is in a run twice. The log takes all of them or none.
    ///
    /// A name goes from free to an event (`consume`) or to a reservation, from a reservation to its event (`commit`) or
    /// back to free (`release`, expiry).
    pub(super) fn quotas(&mut self, run: Vec<Quota>) {
        let results = self
            .write_quotas(&run)
            .unwrap_or_else(|problem| run.iter().map(|_| Err(problem.clone())).collect());
        // Before the tickets are given back, so that what they held is never counted as free in between.
        self.account();
        let answer = |(Quota { reply, ticket, .. }, result): (Quota, Result<Written, Problem>)| {
            drop(ticket);
            let rests_on = match &result {
                Ok(Written::At(position)) => Some(*position),
                Ok(Written::Occupied(_)) | Err(_) => None,
            };
            Answer {
                reply,
                result,
                rests_on,
            }
        };
        self.answer(run.into_iter().zip(results).map(answer).collect());
    }

    fn write_quotas(&mut self, run: &[Quota]) -> Result<Vec<Result<Written, Problem>>, Problem> {
        self.check_sound()?;
        let names: Vec<_> = run.iter().map(|quota| quota.record.name).collect();
        let known = self.views.probe(&names)?;
        let mut draft = Draft::new(self.number);
        let mut fresh = Fresh::with_capacity(run.len());
        let found: Vec<Result<Found, Problem>> = run
            .iter()
            .zip(known)
            .map(|(quota, known)| self.find_quota(&mut fresh, &mut draft, quota, known))
            .collect();
        let (positions, failure) = match self.append(draft, None) {
            Ok(positions) => (positions, None),
            Err(error) => (Vec::new(), Some(Problem::from(error))),
        };
        self.take_in(&fresh, &positions)?;
        let written = |at: usize| match (positions.get(at), &failure) {
            (Some(position), _) => Ok(Written::At(*position)),
            (None, Some(problem)) => Err(problem.clone()),
            (None, None) => Err(Self::internal("an append gave no position")),
        };
        let result = |found| match found {
            Found::New(at) => written(at),
            Found::Occupied(entry) => Ok(Written::Occupied(entry)),
        };
        Ok(found.into_iter().map(|found| result(found?)).collect())
    }

    /// Finds out whether a name is in the state that its record expects; then the record goes to the draft.
    fn find_quota<'r>(
        &self,
        fresh: &mut Fresh<'r>,
        draft: &mut Draft,
        quota: &'r Quota,
        known: Option<IdEntry>,
    ) -> Result<Found, Problem> {
        let quota = &quota.record;
        let expected = match (quota.expect, known) {
            (Expect::Free, None) => true,
            (Expect::Free, Some(entry)) => self.is_free(entry)?,
            (Expect::At(position), Some(entry)) => entry.position == position,
            (Expect::At(_), None) => {
                return Err(Problem::not_found(
                    "reservation",
                    &format!("{:032x}", quota.name.0),
                ));
            }
        };
        if let Some(entry) = known.filter(|_| !expected) {
            return Ok(Found::Occupied(entry));
        }
        let record = decode(&quota.record)?;
        // The digest is derived from the record, as a replay derives it.
        let entry = id_entry(&self.shared.key, Position::default(), &record, |_| None);
        debug_assert!(entry.is_some_and(|(name, _)| name == quota.name));
        draft.push(&quota.record, times(&record));
        Ok(Found::New(fresh.push(New {
            name: entry.map(|(_, entry)| (quota.name, entry.digest)),
            record,
            hold: quota.hold.as_ref(),
        })))
    }
}
