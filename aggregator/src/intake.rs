use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use turnpike_domain::event::{BatchEntry, EventBatch, same_meaning};
use turnpike_domain::identity::{EventName, TenantId};
use turnpike_domain::port::intake::{
    Correction, Intake, Known, Outcome, QuotaOutcome, QuotaRecord, Rejection,
};
use turnpike_domain::port::log::EventLog;
use turnpike_domain::port::views::IdEntry;
use turnpike_domain::port::{BoxFuture, StoreError};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::record::{EventRecord, GrantRecord, Position, Record, decode};
use turnpike_domain::time::Timestamp;

use crate::aggregator::Aggregator;
use crate::partition::command::{Command, Decision, Newest, Quota, Submit, Written};
use crate::partition::{NoRoom, Ticket, joint};
use crate::query::{gone, on_another_thread};

/// Bytes that a command without a batch counts for behind the gate.
const SMALL_COMMAND_BYTES: usize = 1_024;

impl Aggregator {
    fn check_open(&self) -> Result<(), Problem> {
        if self.closing.load(Ordering::SeqCst) {
            return Err(Problem::new(
                Code::ShuttingDown,
                "the server is shutting down; send it again to another",
            ));
        }
        Ok(())
    }

    fn partition_of(&self, name: EventName) -> usize {
        name.partition(self.partitions.len())
    }

    /// The partition of what belongs to no event.
    fn partition_of_tenant(&self, tenant: TenantId) -> usize {
        tenant.0 as usize % self.partitions.len().max(1)
    }

    fn enter(&self, partition: usize, records: usize, bytes: usize) -> Result<Ticket, Problem> {
        self.check_open()?;
        let entered = self.partitions[partition].gate.enter(records, bytes);
        entered.map_err(no_room)
    }

    /// Sends a command to a partition and waits for its answer.
    async fn ask<T>(
        &self,
        partition: usize,
        command: impl FnOnce(oneshot::Sender<Result<T, Problem>>, Ticket) -> Command,
    ) -> Result<T, Problem> {
        let ticket = self.enter(partition, 1, SMALL_COMMAND_BYTES)?;
        let (reply, answer) = oneshot::channel();
        self.partitions[partition]
            .commands
            .send(command(reply, ticket))
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Waits until the record at `position` is durable.
    async fn durable(&self, position: Position) -> Result<(), Problem> {
        Ok(self.shared.log.wait_durable(Position(position.0 + 1)).await?)
    }

    async fn take_batch(&self, batch: Arc<EventBatch>) -> Result<Vec<Outcome>, Problem> {
        self.mark_time();
        let picks = self.split(&batch);
        let answers = self.send_batch(&batch, picks)?;
        let mut decisions: Vec<Option<Decision>> = vec![None; batch.len()];
        let mut failure = None;
        for (picks, answer) in answers {
            match answer.await.unwrap_or_else(|_| Err(gone())) {
                Ok(decided) => {
                    for (at, decision) in picks.into_iter().zip(decided) {
                        decisions[at as usize] = Some(decision);
                    }
                }
                // What may have been kept or not is told before what was not.
                Err(problem) => {
                    let unsure = |failure: &Problem| failure.code == Code::StoragePoisoned;
                    failure = failure.filter(unsure).or(Some(problem));
                }
            }
        }
        if let Some(problem) = failure {
            return Err(Self::half_taken(problem, &decisions));
        }
        let decisions: Option<Vec<Decision>> = decisions.into_iter().collect();
        let decisions = decisions.ok_or_else(|| Problem::new(Code::Internal, "an event was not decided"))?;
        self.outcomes(&batch, decisions).await
    }

    /// The indices of a batch's events by partition.
    fn split(&self, batch: &EventBatch) -> Vec<Vec<u32>> {
        let mut picks = vec![Vec::new(); self.partitions.len()];
        for (at, entry) in (0..).zip(batch.entries()) {
            picks[self.partition_of(entry.name)].push(at);
        }
        picks
    }

    /// Takes room in all partitions that the batch touches, or in none; then sends each its part.
    fn send_batch(&self, batch: &Arc<EventBatch>, picks: Vec<Vec<u32>>) -> Result<Vec<Sent>, Problem> {
        let touched: Vec<(usize, Vec<u32>)> = picks
            .into_iter()
            .enumerate()
            .filter(|(_, p)| !p.is_empty())
            .collect();
        let mut tickets = Vec::with_capacity(touched.len());
        for (partition, picks) in &touched {
            let bytes = batch.bytes_len() * picks.len() / batch.len().max(1);
            tickets.push(self.enter(*partition, picks.len(), bytes)?);
        }
        let together = batch.is_all_or_nothing() && touched.len() > 1;
        let mut joint = joint::tickets(if together { touched.len() } else { 0 }).into_iter();
        // What stops several owners stands in all their queues in the same order.
        let _order = together.then(|| self.cuts.lock());
        let mut answers = Vec::with_capacity(touched.len());
        for ((partition, picks), ticket) in touched.into_iter().zip(tickets) {
            let (reply, answer) = oneshot::channel();
            let submit = Submit {
                batch: Arc::clone(batch),
                picks: picks.clone(),
                reply,
                ticket,
            };
            let command = match joint.next() {
                Some(joint) => Command::SubmitJointly(submit, joint),
                None => Command::Submit(submit),
            };
            let sent = self.partitions[partition].commands.send(command);
            sent.map_err(|_| gone())?;
            answers.push((picks, answer));
        }
        Ok(answers)
    }

    /// `problem`, which a part of a batch met, with what became of the rest of it: an answer never hides what counts. The
    /// owners answer once that is durable.
    fn half_taken(problem: Problem, decisions: &[Option<Decision>]) -> Problem {
        let accepted = |decision: &&Decision| matches!(decision, Decision::Accepted(_));
        let accepted = decisions.iter().flatten().filter(accepted).count();
        if accepted == 0 {
            return problem;
        }
        let detail = format!(
            "{}. {} of the {} events were accepted before that and count; send all of them again: those are answered as \
             duplicates then, and count once",
            problem.detail,
            accepted,
            decisions.len()
        );
        Problem { detail, ..problem }
    }

    /// Tells duplicates from conflicts.
    async fn outcomes(
        &self,
        batch: &Arc<EventBatch>,
        decisions: Vec<Decision>,
    ) -> Result<Vec<Outcome>, Problem> {
        let unsure = decisions
            .iter()
            .any(|decision| matches!(decision, Decision::Seen { same: false, .. }));
        if !unsure {
            return Ok(decisions.iter().map(|decision| outcome(decision, true)).collect());
        }
        let (log, batch) = (Arc::clone(&self.shared.log), Arc::clone(batch));
        on_another_thread(move || {
            let mut outcomes: Vec<Outcome> = decisions.iter().map(|one| outcome(one, true)).collect();
            // In the order of the log, so that a block is unpacked once for all that lie in it.
            let mut order: Vec<usize> = (0..outcomes.len()).collect();
            order.sort_unstable_by_key(|at| decisions[*at].position());
            for at in order {
                outcomes[at] = compared(log.as_ref(), &batch, &batch.entries()[at], &decisions[at])?;
            }
            Ok(outcomes)
        })
        .await
    }

    async fn take_correction(
        &self,
        name: EventName,
        change: Correction,
        at: Timestamp,
    ) -> Result<Option<Known>, Problem> {
        let partition = self.partition_of(name);
        let newest = self
            .ask(partition, |reply, ticket| Command::Correct {
                name,
                change,
                at,
                reply,
                ticket,
            })
            .await?;
        let Some(Newest { entry, record }) = newest else {
            return Ok(None);
        };
        self.durable(entry.position).await?;
        let log = Arc::clone(&self.shared.log);
        let found = on_another_thread(move || known(log.as_ref(), entry, record));
        found.await.map(Some)
    }

    async fn take_rejections(&self, rejections: Vec<Rejection>) -> Result<Vec<Position>, Problem> {
        let mut by_partition: Vec<Vec<(usize, Rejection)>> = vec![Vec::new(); self.partitions.len()];
        let total = rejections.len();
        for (at, rejection) in rejections.into_iter().enumerate() {
            by_partition[self.partition_of_tenant(rejection.tenant)].push((at, rejection));
        }
        let mut positions = vec![Position::START; total];
        for (partition, part) in by_partition.into_iter().enumerate() {
            let (places, rejections): (Vec<usize>, Vec<Rejection>) = part.into_iter().unzip();
            if rejections.is_empty() {
                continue;
            }
            let command = |reply, ticket| Command::Reject {
                rejections,
                reply,
                ticket,
            };
            for (at, position) in places.into_iter().zip(self.ask(partition, command).await?) {
                positions[at] = position;
            }
        }
        if let Some(last) = positions.iter().max() {
            self.durable(*last).await?;
        }
        Ok(positions)
    }

    async fn take_quota(&self, record: QuotaRecord) -> Result<QuotaOutcome, Problem> {
        let partition = self.partition_of(record.name);
        match self
            .ask(partition, |reply, ticket| {
                Command::Quota(Quota {
                    record,
                    reply,
                    ticket,
                })
            })
            .await?
        {
            Written::At(position) => Ok(QuotaOutcome::Written(position)),
            Written::Occupied(entry) => {
                let mut found = self.fetch_known(vec![Some(entry)]).await?;
                let known = found.pop().flatten();
                known
                    .map(QuotaOutcome::Occupied)
                    .ok_or_else(|| Problem::new(Code::Internal, "a record is gone"))
            }
        }
    }

    async fn find(&self, names: Vec<EventName>) -> Result<Vec<Option<Known>>, Problem> {
        let mut entries = vec![None; names.len()];
        for (number, partition) in self.partitions.iter().enumerate() {
            let (places, own): (Vec<usize>, Vec<EventName>) = names
                .iter()
                .enumerate()
                .filter(|(_, name)| self.partition_of(**name) == number)
                .map(|(at, name)| (at, *name))
                .unzip();
            if own.is_empty() {
                continue;
            }
            for (at, entry) in places.into_iter().zip(partition.views.probe(&own)?) {
                entries[at] = entry;
            }
        }
        self.fetch_known(entries).await
    }

    async fn fetch_known(&self, entries: Vec<Option<IdEntry>>) -> Result<Vec<Option<Known>>, Problem> {
        let Some(last) = entries.iter().flatten().map(|entry| entry.position).max() else {
            return Ok(vec![None; entries.len()]);
        };
        self.durable(last).await?;
        let log = Arc::clone(&self.shared.log);
        on_another_thread(move || {
            let mut found = vec![None; entries.len()];
            let mut wanted: Vec<(IdEntry, usize)> = entries
                .into_iter()
                .zip(0..)
                .filter_map(|(entry, at)| Some((entry?, at)))
                .collect();
            // In the order of the log, so that a block is unpacked once for all that lie in it.
            wanted.sort_unstable_by_key(|(entry, _)| entry.position);
            for (entry, at) in wanted {
                let record = kept(log.as_ref(), entry.position)?;
                found[at] = Some(known(log.as_ref(), entry, record)?);
            }
            Ok(found)
        })
        .await
    }
}

fn no_room(room: NoRoom) -> Problem {
    let (reason, detail) = match room {
        NoRoom::Queue => ("queue", "too many events are waiting to be written"),
        NoRoom::Memory => (
            "memory",
            "the memory for what is not in a checkpoint yet is full (engine.memory_bytes_max)",
        ),
    };
    metrics::counter!("turnpike_intake_refused_total", "reason" => reason).increment(1);
    Problem::new(
        Code::Overloaded,
        format!("{detail}; what found no room was not kept"),
    )
}

/// The part of a batch that went to a partition, and its answer.
type Sent = (Vec<u32>, oneshot::Receiver<Result<Vec<Decision>, Problem>>);

fn outcome(decision: &Decision, same: bool) -> Outcome {
    match *decision {
        Decision::Accepted(position) => Outcome::Accepted(position),
        Decision::Seen { entry, .. } if same => Outcome::Duplicate(entry.position),
        Decision::Seen { entry, .. } => Outcome::Conflict(entry.position),
    }
}

/// The outcome of an event whose hash may differ from the first one's: the payload that was sent first is compared by
/// meaning.
fn compared(
    log: &dyn EventLog,
    batch: &EventBatch,
    entry: &BatchEntry,
    decision: &Decision,
) -> Result<Outcome, Problem> {
    let Decision::Seen {
        entry: known,
        same: false,
    } = decision
    else {
        return Ok(outcome(decision, true));
    };
    let Some(first) = first_payload(log, known.position)? else {
        // The payload that came first has been deleted; what has another hash is taken for another.
        return Ok(outcome(decision, false));
    };
    let first = event_of(&decode(&first)?);
    let same = first.is_some_and(|first| same_meaning(&first, &batch.event(entry)));
    Ok(outcome(decision, same))
}

/// The record of an event as it was sent first, from its newest one; `None` where it has been deleted.
fn first_payload(log: &dyn EventLog, newest: Position) -> Result<Option<Vec<u8>>, Problem> {
    let Some(newest) = unless_deleted(log, newest)? else {
        return Ok(None);
    };
    match corrected(&decode(&newest)?) {
        Some(first) => unless_deleted(log, first),
        None => Ok(Some(newest)),
    }
}

fn unless_deleted(log: &dyn EventLog, position: Position) -> Result<Option<Vec<u8>>, Problem> {
    match log.fetch(position) {
        Ok(record) => Ok(Some(record)),
        Err(StoreError::Gone(_)) => Ok(None),
        Err(error) => Err(Problem::from(error)),
    }
}

/// The position of the record that a voided or amended event came with.
fn corrected(record: &Record<'_>) -> Option<Position> {
    match record {
        Record::Void { first, .. } | Record::Amend { first, .. } => Some(Position(*first)),
        _ => None,
    }
}

/// The record at `position`; [`Code::TooOld`] where it has been deleted.
pub(crate) fn kept(log: &dyn EventLog, position: Position) -> Result<Vec<u8>, Problem> {
    log.fetch(position).map_err(|error| match error {
        StoreError::Gone(_) => Problem::new(
            Code::TooOld,
            "the id is known, but its raw record lies before the horizon of retention and has been deleted",
        ),
        other => other.into(),
    })
}

fn event_of<'r>(record: &Record<'r>) -> Option<EventRecord<'r>> {
    match record {
        Record::Event(event) | Record::Committed { event, .. } => Some(*event),
        _ => None,
    }
}

/// A record and what identifies its first payload: for a quota record the hash of its request's body.
fn known(log: &dyn EventLog, entry: IdEntry, record: Vec<u8>) -> Result<Known, Problem> {
    let newest = decode(&record)?;
    let digest = grant_of(&newest).map_or(entry.digest, |grant| grant.body_digest);
    let first = match corrected(&newest) {
        Some(first) => unless_deleted(log, first)?,
        None => None,
    };
    Ok(Known {
        position: entry.position,
        digest,
        record,
        first,
    })
}

fn grant_of<'r>(record: &Record<'r>) -> Option<GrantRecord<'r>> {
    match record {
        Record::Event(event) | Record::Void { before: event, .. } | Record::Amend { before: event, .. } => {
            event.grant
        }
        Record::Reserved(reservation)
        | Record::Released { reservation, .. }
        | Record::Committed { reservation, .. } => Some(reservation.grant),
        Record::Rejected(_) | Record::Resolved { .. } => None,
    }
}

impl Intake for Aggregator {
    fn submit(&self, batch: Arc<EventBatch>) -> BoxFuture<'_, Result<Vec<Outcome>, Problem>> {
        Box::pin(self.take_batch(batch))
    }

    fn correct(
        &self,
        name: EventName,
        change: Correction,
        at: Timestamp,
    ) -> BoxFuture<'_, Result<Option<Known>, Problem>> {
        Box::pin(self.take_correction(name, change, at))
    }

    fn reject(&self, rejections: Vec<Rejection>) -> BoxFuture<'_, Result<Vec<Position>, Problem>> {
        Box::pin(self.take_rejections(rejections))
    }

    fn resolve(&self, tenant: TenantId, rejected: Position) -> BoxFuture<'_, Result<(), Problem>> {
        Box::pin(async move {
            let partition = self.partition_of_tenant(tenant);
            let command = |reply, ticket| Command::Resolve {
                tenant,
                rejected,
                reply,
                ticket,
            };
            let written = self.ask(partition, command).await?;
            self.durable(written).await
        })
    }

    fn quota(&self, record: QuotaRecord) -> BoxFuture<'_, Result<QuotaOutcome, Problem>> {
        Box::pin(self.take_quota(record))
    }

    fn lookup(&self, names: Vec<EventName>) -> BoxFuture<'_, Result<Vec<Option<Known>>, Problem>> {
        Box::pin(self.find(names))
    }
}
