//! A partition and its owner: one thread decides, writes and adds up everything of the partition.

mod admission;
mod answer;
mod backfill;
mod checkpoint;
pub(crate) mod command;
mod correct;
pub(crate) mod joint;
mod quota;
mod recover;
mod submit;
mod write;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use foldhash::HashSet;
use turnpike_domain::identity::{NameKey, TenantId};
use turnpike_domain::meter::Fields;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::log::EventLog;
use turnpike_domain::port::usage::UsageListener;
use turnpike_domain::port::views::{Rows, Views};
use turnpike_domain::problem::Problem;
use turnpike_domain::record::Position;
use turnpike_domain::time::Clock;

pub(crate) use admission::{Gate, NoRoom, Ticket};
use checkpoint::Checkpoints;
use command::{Command, Quota, Submit};

use crate::budget::{Budget, Share};
use crate::core::Adder;
use crate::options::Options;
use crate::query::{CopiesFull, Snapshot, Wanted};
use crate::registry::{Registry, SharedExtents};
use crate::windows::Memory;

/// What all partitions share.
pub(crate) struct Shared {
    pub log: Arc<dyn EventLog>,
    pub directory: Arc<dyn Directory>,
    pub listener: Arc<dyn UsageListener>,
    pub clock: Arc<dyn Clock>,
    pub key: NameKey,
    pub options: Options,
    /// The memory of all partitions.
    pub budget: Arc<Budget>,
}

/// A partition as other threads see it.
pub(crate) struct Partition {
    pub commands: Sender<Command>,
    pub gate: Arc<Gate>,
    pub views: Arc<dyn Views>,
    pub extents: SharedExtents,
}

/// The one that owns a partition's state.
pub(crate) struct Owner {
    number: u32,
    shared: Arc<Shared>,
    views: Arc<dyn Views>,
    /// For the threads that write checkpoints.
    commands: Sender<Command>,
    registry: Registry,
    /// Added since the last checkpoint was begun.
    memory: Memory,
    /// Being written by a checkpoint.
    frozen: Option<Arc<Memory>>,
    /// The rows of the last checkpoint that this owner has taken note of.
    rows: Arc<dyn Rows>,
    /// Behind the last record that was added.
    applied: Position,
    checkpoints: Checkpoints,
    /// What the memory of this partition takes of the budget.
    share: Share,
    /// Names could not be remembered: nothing more is taken.
    broken: bool,
    /// The past could not be read: new meters stay incomplete until a restart.
    backfill_failed: bool,
    /// Kept from record to record.
    fields: Fields,
    group: Vec<u8>,
}

/// Whether the owner goes on.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

/// How long an idle owner sleeps before it looks whether a checkpoint is due.
const IDLE: Duration = Duration::from_millis(200);
/// Records that are decided in one pass at the most.
const RUN_RECORDS_MAX: usize = 20_000;

impl Owner {
    /// Does commands until it is told to end, or nobody can send any more.
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let wait = if self.backfill_is_open() {
                Duration::ZERO
            } else {
                IDLE
            };
            match commands.recv_timeout(wait) {
                Ok(command) => {
                    if self.take(command, commands) == Next::End {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.backfill_slice();
            self.account();
            self.checkpoint_if_due();
        }
    }

    /// Does `command`; submits that wait behind a submit, and quota records behind a quota record, are done with it.
    fn take(&mut self, command: Command, commands: &Receiver<Command>) -> Next {
        let mut next = Some(command);
        while let Some(command) = next.take() {
            next = match command {
                Command::Submit(first) => self.take_submits(first, commands),
                Command::Quota(first) => self.take_quotas(first, commands),
                other => match self.other(other) {
                    Next::GoOn => None,
                    Next::End => return Next::End,
                },
            };
        }
        Next::GoOn
    }

    /// Does a run of submits, and returns the command that ended it.
    fn take_submits(&mut self, first: Submit, commands: &Receiver<Command>) -> Option<Command> {
        let mut records = first.picks.len();
        let (mut run, mut next) = (vec![first], None);
        while records < RUN_RECORDS_MAX && next.is_none() {
            match commands.try_recv() {
                Ok(Command::Submit(more)) => {
                    records += more.picks.len();
                    run.push(more);
                }
                Ok(other) => next = Some(other),
                Err(_) => break,
            }
        }
        self.submit(run);
        next
    }

    /// The same for quota records. A second one of a name begins another run, for it has to see what the first one did.
    fn take_quotas(&mut self, first: Quota, commands: &Receiver<Command>) -> Option<Command> {
        let mut names = HashSet::default();
        names.insert(first.record.name);
        let (mut run, mut next) = (vec![first], None);
        while run.len() < RUN_RECORDS_MAX && next.is_none() {
            match commands.try_recv() {
                Ok(Command::Quota(more)) if names.insert(more.record.name) => run.push(more),
                Ok(other) => next = Some(other),
                Err(_) => break,
            }
        }
        self.quotas(run);
        next
    }

    fn other(&mut self, command: Command) -> Next {
        // Nobody waits for an answer that cannot be delivered.
        match command {
            Command::Submit(submit) => self.submit(vec![submit]),
            Command::SubmitJointly(submit, joint) => self.submit_jointly(submit, joint),
            Command::Correct {
                name,
                change,
                at,
                reply,
                ticket,
            } => {
                drop(reply.send(self.correct(name, &change, at)));
                drop(ticket);
            }
            Command::Reject {
                rejections,
                reply,
                ticket,
            } => {
                drop(reply.send(self.reject(&rejections)));
                drop(ticket);
            }
            Command::Resolve {
                tenant,
                rejected,
                reply,
                ticket,
            } => {
                drop(reply.send(self.resolve(tenant, rejected)));
                drop(ticket);
            }
            Command::Quota(quota) => self.quotas(vec![quota]),
            Command::Cut {
                ticket,
                wanted,
                reply,
            } => {
                ticket.stop();
                let snapshot = self.snapshot(&wanted);
                // Its share of the memory is the reader's alone from here on.
                drop(wanted);
                drop(reply.send(snapshot));
            }
            Command::CatalogChanged(tenant) => self.refresh(tenant),
            Command::CheckpointDone => self.checkpoint_done(),
            Command::Checkpoint(reply) => drop(reply.send(self.checkpoint_now())),
            Command::End => return Next::End,
            Command::Shutdown(reply) => {
                drop(reply.send(self.checkpoint_now()));
                return Next::End;
            }
        }
        Next::GoOn
    }

    /// What is in memory for each selection, and the rows that go with it.
    fn snapshot(&self, wanted: &Wanted) -> Result<Snapshot, CopiesFull> {
        Ok(Snapshot {
            position: self.applied,
            rows: Arc::clone(&self.rows),
            frozen: self.frozen.clone(),
            picked: wanted.of_memory(&self.memory)?,
        })
    }

    /// Takes note of a tenant's meters.
    fn refresh(&mut self, tenant: TenantId) {
        let log = &self.shared.log;
        let first = (log.first(), log.horizon());
        match self
            .registry
            .refresh(self.shared.directory.as_ref(), tenant, first, self.applied)
        {
            Ok(gone) => {
                for meter in gone {
                    self.memory.drop_meter(meter);
                }
            }
            Err(problem) => {
                tracing::error!(partition = self.number, tenant = tenant.0, %problem, "meters cannot be compiled");
            }
        }
    }

    /// The means to add records to memory, apart from the registry so that both can be borrowed.
    fn adder<'o>(
        memory: &'o mut Memory,
        fields: &'o mut Fields,
        group: &'o mut Vec<u8>,
        key: NameKey,
    ) -> Adder<'o> {
        Adder {
            memory,
            fields,
            group,
            key,
            subject: None,
        }
    }

    /// How far the meters are, for other threads.
    pub(crate) fn extents(&self) -> SharedExtents {
        self.registry.extents()
    }

    fn internal(what: &str) -> Problem {
        Problem::new(turnpike_domain::problem::Code::Internal, what)
    }
}
