use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use turnpike_domain::identity::{MeterId, TenantId};
use turnpike_domain::port::BoxFuture;
use turnpike_domain::port::directory::{DirectoryChange, DirectoryListener};
use turnpike_domain::port::history::Backfill;
use turnpike_domain::port::usage::{Derivation, TotalRequest, Totals, Underivable, UsageReader};
use turnpike_domain::port::views::Views;
use turnpike_domain::problem::{Code, Problem};

use crate::budget::{Budget, MemoryUse};
use crate::history::Seen;
use crate::options::Parts;
use crate::partition::command::Command;
use crate::partition::{Gate, Owner, Partition, Shared};
use crate::query::{Copies, Selection, Slots, Timeline, Wanted, gone, settle};
use crate::rows::{Counts, add_counts, counts, key};

/// The partitions and their owners. Dropping it ends the owners without a last checkpoint; see
/// [`Aggregator::shutdown`].
pub struct Aggregator {
    pub(crate) shared: Arc<Shared>,
    pub(crate) partitions: Vec<Partition>,
    /// Held while a cut is put into all queues.
    pub(crate) cuts: Mutex<()>,
    pub(crate) closing: AtomicBool,
    /// The block that keeps the oldest segment.
    pub(crate) keeper: Mutex<Option<crate::retention::Keeper>>,
    /// Where the log stood in the last minutes.
    pub(crate) timeline: Arc<Timeline>,
    /// Who may read usage and events at once.
    pub(crate) slots: Arc<Slots>,
    /// Whose records lie where in the log.
    pub(crate) seen: Arc<Seen>,
    /// The memory for what queries copy.
    pub(crate) copies: Arc<Copies>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Aggregator {
    /// Opens the views, adds what the log holds behind them, and starts the owners. Returns once all of it is counted.
    pub fn start(parts: Parts) -> Result<Arc<Self>, Problem> {
        let shared = Arc::new(Shared {
            budget: Budget::new(parts.options.memory_bytes_max, parts.views.len()),
            log: parts.log,
            directory: parts.directory,
            listener: parts.listener,
            clock: parts.clock,
            key: parts.key,
            options: parts.options,
        });
        let mut partitions = Vec::new();
        let mut started = Vec::new();
        for (number, views) in (0..).zip(parts.views) {
            let (partition, ready, thread) = start_partition(number, &shared, views)?;
            partitions.push(partition);
            started.push((ready, thread));
        }
        let mut threads = Vec::new();
        for (ready, thread) in started {
            ready
                .recv()
                .unwrap_or_else(|_| Err(Problem::new(Code::Internal, "a partition did not start")))?;
            threads.push(thread);
        }
        let now_us = shared.clock.machine_now().micros();
        let timeline = Arc::new(Timeline::open(shared.log.as_ref(), now_us));
        Ok(Arc::new(Self {
            timeline,
            seen: Arc::default(),
            slots: Slots::new(shared.options.queries_max),
            copies: Copies::new(shared.options.query_memory_bytes_max),
            shared,
            partitions,
            cuts: Mutex::new(()),
            keeper: Mutex::new(None),
            closing: AtomicBool::new(false),
            threads: Mutex::new(threads),
        }))
    }

    /// Takes nothing new, finishes what is queued, and writes a last checkpoint.
    pub async fn shutdown(&self) -> Result<(), Problem> {
        self.closing.store(true, Ordering::SeqCst);
        let result = self.each(Command::Shutdown).await;
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("the owner of a partition panicked");
            }
        }
        result
    }

    /// Writes a checkpoint of everything now.
    pub async fn checkpoint(&self) -> Result<(), Problem> {
        self.each(Command::Checkpoint).await
    }

    /// How much memory is in use for what no checkpoint holds yet, over all partitions.
    pub fn memory(&self) -> MemoryUse {
        self.shared.budget.in_use()
    }

    /// How much memory is in use for what readings of usage have copied.
    pub fn query_memory(&self) -> MemoryUse {
        self.copies.in_use()
    }

    /// Sends a command to every partition and waits for all of them.
    async fn each(
        &self,
        command: impl Fn(tokio::sync::oneshot::Sender<Result<(), Problem>>) -> Command,
    ) -> Result<(), Problem> {
        let mut answers = Vec::with_capacity(self.partitions.len());
        for partition in &self.partitions {
            let (reply, answer) = tokio::sync::oneshot::channel();
            partition.commands.send(command(reply)).map_err(|_| gone())?;
            answers.push(answer);
        }
        let mut result = Ok(());
        for answer in answers {
            result = result.and(answer.await.unwrap_or_else(|_| Err(gone())));
        }
        result
    }

    /// How far a meter is, over all partitions.
    pub(crate) fn extent_of(&self, meter: MeterId) -> Backfill {
        let first = self.shared.log.first().offset();
        let mut sum = Backfill {
            complete: true,
            lacks_before: None,
            total_bytes: 0,
            done_bytes: 0,
        };
        for partition in &self.partitions {
            let extents = partition.extents.read();
            let Some(extent) = extents.get(&meter) else {
                sum.complete = false;
                continue;
            };
            sum.complete &= extent.is_complete();
            sum.lacks_before = sum.lacks_before.max(extent.lacks_before);
            sum.total_bytes += extent.since.offset().saturating_sub(first);
            sum.done_bytes += extent
                .next
                .offset()
                .min(extent.since.offset())
                .saturating_sub(first);
        }
        sum
    }

    async fn read_reservations(&self) -> Result<Vec<Vec<u8>>, Problem> {
        let wanted = Arc::new(Wanted::of(vec![Selection::Notes {
            keys: key::reservations(),
            last: usize::MAX,
        }]));
        let mut snapshots = self.cut(&wanted, None).await?;
        settle(&mut snapshots, &wanted)?;
        let mut open = Vec::new();
        for snapshot in &snapshots {
            let mut sum = Counts::new();
            for (_, more) in snapshot.notes(0).into_iter().flat_map(|notes| &notes.all) {
                add_counts(&mut sum, more);
            }
            for row in snapshot.rows.scan(key::reservations()) {
                add_counts(&mut sum, &counts(&row?.value)?);
            }
            open.extend(
                sum.into_iter()
                    .filter(|(_, count)| *count > 0)
                    .map(|(record, _)| record),
            );
        }
        Ok(open)
    }
}

impl Drop for Aggregator {
    fn drop(&mut self) {
        for partition in &self.partitions {
            // One that has been shut down has ended already.
            drop(partition.commands.send(Command::End));
        }
    }
}

type Started = (
    Partition,
    crossbeam_channel::Receiver<Result<(), Problem>>,
    JoinHandle<()>,
);

fn start_partition(number: u32, shared: &Arc<Shared>, views: Arc<dyn Views>) -> Result<Started, Problem> {
    let (commands, queue) = crossbeam_channel::unbounded();
    let mut owner = Owner::open(number, Arc::clone(shared), Arc::clone(&views), commands.clone())?;
    let (options, budget) = (&shared.options, Arc::clone(&shared.budget));
    let partition = Partition {
        commands,
        gate: Arc::new(Gate::new(
            options.queue_records_max,
            options.queue_bytes_max,
            budget,
        )),
        views,
        extents: owner.extents(),
    };
    let (ready, started) = crossbeam_channel::bounded(1);
    let run = move || {
        let replayed = owner.replay();
        let sound = replayed.is_ok();
        // The receiver is there unless the start has failed already.
        drop(ready.send(replayed));
        if sound {
            owner.run(&queue);
        }
    };
    let thread = std::thread::Builder::new()
        .name(format!("partition-{number}"))
        .spawn(run)
        .map_err(|error| Problem::new(Code::Unavailable, format!("no thread for a partition: {error}")))?;
    Ok((partition, started, thread))
}

impl UsageReader for Aggregator {
    fn totals(
        &self,
        tenant: TenantId,
        requests: Vec<TotalRequest>,
        at_cut: Option<Box<dyn FnOnce() + Send>>,
    ) -> BoxFuture<'_, Result<Totals, Problem>> {
        Box::pin(self.read_totals(tenant, requests, at_cut))
    }

    fn totals_from_log(
        &self,
        derivations: Vec<Derivation>,
    ) -> BoxFuture<'_, Result<Vec<Result<Totals, Underivable>>, Problem>> {
        Box::pin(self.read_totals_from_log(derivations))
    }

    fn open_reservations(&self) -> BoxFuture<'_, Result<Vec<Vec<u8>>, Problem>> {
        Box::pin(self.read_reservations())
    }
}

impl DirectoryListener for Aggregator {
    fn changed(&self, change: &DirectoryChange) {
        if let DirectoryChange::Catalog(tenant) | DirectoryChange::Tenant(tenant) = change {
            for partition in &self.partitions {
                // A partition that has ended counts nothing any more.
                drop(partition.commands.send(Command::CatalogChanged(*tenant)));
            }
        }
    }
}
