use foldhash::{HashMap, HashMapExt as _};
use turnpike_domain::event::BatchEntry;
use turnpike_domain::identity::{EventName, TenantId};
use turnpike_domain::port::StoreError;
use turnpike_domain::port::intake::Hold;
use turnpike_domain::port::views::IdEntry;
use turnpike_domain::problem::Problem;
use turnpike_domain::record::{Position, Record};

use super::Owner;
use super::answer::Answer;
use super::command::{Decision, Submit};
use super::joint::JointTicket;
use super::write::Draft;
use crate::core::Changes;

/// Events of which the windows are fetched into the cache together, before they are added.
const GROUP: usize = 64;

/// What an event takes in the log beside its texts: their lengths, times and the like.
const RECORD_OVERHEAD_BYTES: usize = 32;

/// An event of a run before the log has given positions.
enum Found {
    /// The `n`th new event of the run.
    New(usize),
    /// Another one of the name of the `n`th new event.
    Again { of: usize, digest: u64 },
    /// Known from before.
    Seen { entry: IdEntry, digest: u64 },
}

impl Submit {
    fn entries(&self) -> impl Iterator<Item = &BatchEntry> {
        self.picks
            .iter()
            .filter_map(|at| self.batch.entries().get(*at as usize))
    }

    /// About how many bytes its events take in the log.
    fn bytes(&self) -> usize {
        let texts = self.batch.bytes_len() * self.picks.len() / self.batch.len().max(1);
        texts + self.picks.len() * RECORD_OVERHEAD_BYTES
    }
}

/// A new record of a run.
pub(super) struct New<'r> {
    /// What the id store remembers of it: its name and digest.
    pub(super) name: Option<(EventName, u64)>,
    pub(super) record: Record<'r>,
    /// Quota taken in memory for it.
    pub(super) hold: Option<&'r Hold>,
}

/// The new records of a run.
pub(super) struct Fresh<'r> {
    by_name: HashMap<EventName, usize>,
    records: Vec<New<'r>>,
}

impl<'r> Fresh<'r> {
    /// Room for so many, so that nothing is moved while they come.
    pub(super) fn with_capacity(records: usize) -> Self {
        Self {
            by_name: HashMap::with_capacity(records),
            records: Vec::with_capacity(records),
        }
    }

    /// Adds one and tells its number.
    pub(super) fn push(&mut self, new: New<'r>) -> usize {
        self.records.push(new);
        self.records.len() - 1
    }
}

impl Owner {
    /// Decides, writes and counts the events of several batches: one look at the id store, one append, one pass over
    /// the windows. The log takes all new events of the run or none; where it takes none, the batches that have some are
    /// answered with its failure.
    pub(super) fn submit(&mut self, run: Vec<Submit>) {
        self.settle(run, None);
    }

    /// The same for this partition's part of a batch that is all or nothing.
    pub(super) fn submit_jointly(&mut self, submit: Submit, joint: JointTicket) {
        self.settle(vec![submit], Some(joint));
    }

    fn settle(&mut self, run: Vec<Submit>, joint: Option<JointTicket>) {
        let answers = self
            .decide(&run, joint)
            .unwrap_or_else(|problem| run.iter().map(|_| Err(problem.clone())).collect());
        // Before the tickets are given back, so that what they held is never counted as free in between.
        self.account();
        let answer = |(Submit { reply, ticket, .. }, result): (Submit, Result<Vec<Decision>, _>)| {
            drop(ticket);
            let rests_on = result.iter().flatten().map(Decision::position).max();
            Answer {
                reply,
                result,
                rests_on,
            }
        };
        self.answer(run.into_iter().zip(answers).map(answer).collect());
    }

    fn decide(
        &mut self,
        run: &[Submit],
        joint: Option<JointTicket>,
    ) -> Result<Vec<Result<Vec<Decision>, Problem>>, Problem> {
        self.check_sound()?;
        let names: Vec<EventName> = run
            .iter()
            .flat_map(|s| s.entries().map(|entry| entry.name))
            .collect();
        let known = self.views.probe(&names)?;
        let mut draft = Draft::with_capacity(self.number, names.len(), run.iter().map(Submit::bytes).sum());
        let mut fresh = Fresh::with_capacity(names.len());
        let mut found = Vec::with_capacity(names.len());
        let entries = run.iter().flat_map(|s| s.entries().map(move |entry| (s, entry)));
        for ((submit, entry), known) in entries.zip(known) {
            found.push(self.find(&mut fresh, &mut draft, (submit, entry), known)?);
        }
        let (positions, failure) = match self.append(draft, joint) {
            Ok(positions) => (positions, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        self.take_in(&fresh, &positions)?;
        let mut found = found.into_iter();
        let answer = |submit: &Submit| {
            let found: Vec<Found> = found.by_ref().take(submit.entries().count()).collect();
            decisions(&found, &fresh, &positions, failure.as_ref())
        };
        Ok(run.iter().map(answer).collect())
    }

    /// Finds out about one event; a new one goes to the draft.
    fn find<'r>(
        &self,
        fresh: &mut Fresh<'r>,
        draft: &mut Draft,
        (submit, entry): (&'r Submit, &'r BatchEntry),
        known: Option<IdEntry>,
    ) -> Result<Found, Problem> {
        let digest = entry.digest;
        if let Some(entry) = known
            && !self.is_free(entry)?
        {
            return Ok(Found::Seen { entry, digest });
        }
        let next = fresh.records.len();
        let of = *fresh.by_name.entry(entry.name).or_insert(next);
        if of != next {
            return Ok(Found::Again { of, digest });
        }
        let record = Record::Event(submit.batch.event(entry));
        draft.encode(&record);
        Ok(Found::New(fresh.push(New {
            name: Some((entry.name, digest)),
            record,
            hold: None,
        })))
    }

    /// Remembers and counts what the log took.
    pub(super) fn take_in(&mut self, fresh: &Fresh<'_>, positions: &[Position]) -> Result<(), Problem> {
        let taken = || fresh.records.iter().zip(positions.iter().copied());
        let names: Vec<_> = taken()
            .filter_map(|(new, position)| {
                let (name, digest) = new.name?;
                Some((name, IdEntry { digest, position }))
            })
            .collect();
        self.remember(&names)?;
        let mut changes = Changes::with_capacity(positions.len());
        let groups = fresh.records.chunks(GROUP).zip(positions.chunks(GROUP));
        for (group, positions) in groups {
            let touched = group.iter().map(|new| match &new.record {
                Record::Event(event) => Some((TenantId(event.tenant), event.subject, event.time())),
                _ => None,
            });
            let subjects = self.memory.touch(&touched.collect::<Vec<_>>());
            for ((new, position), subject) in group.iter().zip(positions).zip(subjects) {
                self.add(*position, &new.record, (new.hold, subject), &mut changes);
            }
        }
        self.tell(&changes);
        Ok(())
    }
}

/// The decisions for one batch, or the log's failure where it touched the batch.
fn decisions(
    found: &[Found],
    fresh: &Fresh<'_>,
    positions: &[Position],
    failure: Option<&StoreError>,
) -> Result<Vec<Decision>, Problem> {
    let failed = || {
        failure
            .cloned()
            .map_or_else(|| Owner::internal("an append gave no position"), Problem::from)
    };
    let position = |at: usize| positions.get(at).copied().ok_or_else(failed);
    let decision = |found: &Found| match *found {
        Found::New(at) => Ok(Decision::Accepted(position(at)?)),
        Found::Again { of, digest } => {
            let first = fresh.records.get(of).and_then(|new| new.name);
            let first = first.map_or(0, |(_, digest)| digest);
            let entry = IdEntry {
                digest: first,
                position: position(of)?,
            };
            Ok(Decision::Seen {
                entry,
                same: first == digest,
            })
        }
        Found::Seen { entry, digest } => Ok(Decision::Seen {
            entry,
            same: entry.digest == digest,
        }),
    };
    found.iter().map(decision).collect()
}
