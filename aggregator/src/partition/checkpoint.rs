//! Checkpoints: memory becomes rows. Begun by the owner in an instant, written by another thread.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use turnpike_domain::invariant::{Invariant, VIOLATIONS};
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::Views;
use turnpike_domain::problem::Problem;
use turnpike_domain::record::Position;

use super::command::Command;
use super::{Owner, Shared};
use crate::windows::Memory;

/// When the last checkpoint was, and the one that is being written.
#[derive(Default)]
pub(super) struct Checkpoints {
    /// Records added since the last one was begun.
    records: u64,
    /// Monotonic microseconds when the last one was begun or failed.
    last_us: u64,
    /// What is being written, or has to be written again after a failure.
    pending: Option<Pending>,
}

struct Pending {
    position: Position,
    meta: Vec<u8>,
    /// `None` after a failure, until the next attempt.
    thread: Option<JoinHandle<()>>,
    /// What the thread came to.
    outcome: Arc<Mutex<Option<Result<(), StoreError>>>>,
}

impl Checkpoints {
    pub(super) fn added(&mut self, records: u64) {
        self.records += records;
    }
}

/// Between attempts after a failure, in microseconds.
const RETRY_US: u64 = 1_000_000;

impl Owner {
    /// Tells the budget what this partition holds in memory.
    pub(super) fn account(&mut self) {
        let frozen = self.frozen.as_ref().map_or(0, |frozen| frozen.bytes());
        self.share.set(self.unwritten_bytes() + frozen);
    }

    /// Bytes of new windows that no checkpoint has been begun for, and of ids that none holds.
    fn unwritten_bytes(&self) -> usize {
        self.memory.bytes() + self.views.unwritten_bytes()
    }

    /// Begins a checkpoint if one is due, or tries a failed one again.
    pub(super) fn checkpoint_if_due(&mut self) {
        if self.broken {
            return;
        }
        let since_us = self.monotonic_us().saturating_sub(self.checkpoints.last_us);
        if let Some(pending) = &self.checkpoints.pending {
            if pending.thread.is_none() && since_us >= RETRY_US {
                self.write_pending();
            } else if pending.thread.is_some() && self.shared.budget.is_tight() {
                self.join_pending();
            }
            return;
        }
        let interval_us = self.shared.options.checkpoint_interval_us;
        if self.is_full() || since_us >= interval_us && self.lags() {
            self.begin_checkpoint();
        }
    }

    /// Whether enough is in memory for a checkpoint.
    pub(super) fn is_full(&self) -> bool {
        let (records, options) = (self.checkpoints.records, &self.shared.options);
        records >= options.checkpoint_records
            || self.memory.bytes() >= options.checkpoint_bytes
            || (records > 0 && self.views.wants_checkpoint())
            || (self.is_dirty() && self.shared.budget.presses(self.unwritten_bytes()))
    }

    fn is_dirty(&self) -> bool {
        self.checkpoints.records > 0 || !self.memory.is_empty()
    }

    /// Whether a checkpoint would bring the views on. Also where others alone wrote to the log: an idle partition that stands
    /// still would make every restart read what lies between, and keep retention from deleting it.
    fn lags(&self) -> bool {
        self.is_dirty() || self.views.position() < self.contained()
    }

    fn begin_checkpoint(&mut self) {
        self.checkpoints.last_us = self.monotonic_us();
        match self.freeze(self.contained()) {
            Ok(()) => self.write_pending(),
            Err(error) => tracing::error!(partition = self.number, %error, "a checkpoint could not begin"),
        }
    }

    /// The position before which all records of the partition have been added: only this owner appends to it, so that
    /// is the log's end, whoever wrote there.
    fn contained(&self) -> Position {
        self.shared.log.end()
    }

    fn monotonic_us(&self) -> u64 {
        self.shared.clock.monotonic_us()
    }

    /// Sets aside what is in memory, for a checkpoint.
    fn freeze(&mut self, position: Position) -> Result<(), StoreError> {
        self.views.begin_checkpoint()?;
        self.frozen = Some(Arc::new(std::mem::take(&mut self.memory)));
        self.checkpoints.records = 0;
        self.checkpoints.pending = Some(Pending {
            position,
            meta: self.registry.meta(),
            thread: None,
            outcome: Arc::default(),
        });
        Ok(())
    }

    /// Writes what was set aside, on another thread.
    fn write_pending(&mut self) {
        self.checkpoints.last_us = self.monotonic_us();
        let (Some(pending), Some(frozen)) = (&mut self.checkpoints.pending, &self.frozen) else {
            return;
        };
        let (position, meta, frozen) = (pending.position, pending.meta.clone(), Arc::clone(frozen));
        let (shared, views, outcome) = (
            Arc::clone(&self.shared),
            Arc::clone(&self.views),
            Arc::clone(&pending.outcome),
        );
        let commands = self.commands.clone();
        let write = move || {
            let result = publish(&shared, views.as_ref(), position, &frozen, meta);
            *outcome.lock() = Some(result);
            // The owner may have ended.
            drop(commands.send(Command::CheckpointDone));
        };
        let name = format!("checkpoint-{}", self.number);
        match std::thread::Builder::new().name(name).spawn(write) {
            Ok(thread) => pending.thread = Some(thread),
            Err(error) => tracing::error!(partition = self.number, %error, "no thread for a checkpoint"),
        }
    }

    /// Takes note of a checkpoint that has ended. Until then its rows are read from memory, and the views' rows are
    /// those of the checkpoint before: nothing is ever read twice or not at all.
    pub(super) fn checkpoint_done(&mut self) {
        let Some(pending) = &mut self.checkpoints.pending else {
            return;
        };
        let Some(result) = pending.outcome.lock().take() else {
            return;
        };
        pending.thread = None;
        let told = if result.is_ok() { "ok" } else { "failed" };
        metrics::counter!("turnpike_checkpoints_total", "result" => told).increment(1);
        match result {
            Ok(()) => {
                self.checkpoints.pending = None;
                self.frozen = None;
                self.rows = self.views.rows();
            }
            Err(error) => {
                tracing::error!(partition = self.number, %error, "a checkpoint failed and will be tried again");
            }
        }
        self.account();
    }

    /// Waits for the thread that writes.
    fn join_pending(&mut self) {
        let thread = self
            .checkpoints
            .pending
            .as_mut()
            .and_then(|pending| pending.thread.take());
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(partition = self.number, "the thread of a checkpoint panicked");
        }
        self.checkpoint_done();
    }

    /// Writes a checkpoint of everything, on this thread.
    pub(super) fn checkpoint_now(&mut self) -> Result<(), Problem> {
        self.checkpoint_at(self.contained())
    }

    /// The same, where all records before `position` have been added and no others.
    pub(super) fn checkpoint_at(&mut self, position: Position) -> Result<(), Problem> {
        self.check_sound()?;
        self.finish_pending()?;
        if self.is_dirty() || self.views.position() < position {
            self.freeze(position)?;
            self.finish_pending()?;
        }
        Ok(())
    }

    /// Finishes the checkpoint that was begun, if one was.
    fn finish_pending(&mut self) -> Result<(), Problem> {
        self.join_pending();
        let (Some(pending), Some(frozen)) = (&self.checkpoints.pending, &self.frozen) else {
            return Ok(());
        };
        let result = publish(
            &self.shared,
            self.views.as_ref(),
            pending.position,
            frozen,
            pending.meta.clone(),
        );
        *pending.outcome.lock() = Some(result.clone());
        self.checkpoint_done();
        Ok(result?)
    }
}

fn publish(
    shared: &Shared,
    views: &dyn Views,
    position: Position,
    memory: &Memory,
    meta: Vec<u8>,
) -> Result<(), StoreError> {
    let started = shared.clock.monotonic_us();
    // A view is never newer than the log.
    shared.log.wait_durable_blocking(position)?;
    let durable = shared.log.durable();
    if durable < position {
        metrics::counter!(VIOLATIONS, "invariant" => Invariant::OffsetCommitted.name()).increment(1);
        return Err(StoreError::Failed(format!(
            "the log is durable up to offset {} only, but a checkpoint contains it up to {}",
            durable.offset(),
            position.offset()
        )));
    }
    views.finish_checkpoint(position, memory, meta)?;
    let took = Duration::from_micros(shared.clock.monotonic_us().saturating_sub(started));
    metrics::histogram!("turnpike_checkpoint_duration_seconds").record(took);
    Ok(())
}
