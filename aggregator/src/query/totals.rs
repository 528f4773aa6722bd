use std::sync::Arc;
use std::time::Duration;

use turnpike_domain::identity::TenantId;
use turnpike_domain::meter::aggregate::Cell;
use turnpike_domain::meter::{Aggregation, Meter};
use turnpike_domain::port::usage::{GroupTotal, TotalRequest, Totals};
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::record::Watermark;

use super::accumulate::{in_row, percentile, unanswerable};
use super::plan::dimension;
use super::{CopiesFull, CutPoint, Part, Plan, RowSum, Snapshot, Wanted, add_up, settle};
use crate::Aggregator;
use crate::partition::command::Command;

/// How long an answer waits for a new meter to have filled itself from the past.
const BACKFILL_WAIT: Duration = Duration::from_secs(5);
const BACKFILL_LOOK: Duration = Duration::from_millis(5);

impl Aggregator {
    /// Takes a snapshot of every partition at one cut; durable when returned.
    pub(crate) async fn cut(
        &self,
        wanted: &Arc<Wanted>,
        at_cut: Option<Box<dyn FnOnce() + Send>>,
    ) -> Result<Vec<Snapshot>, Problem> {
        self.mark_time();
        let mut replies = Vec::with_capacity(self.partitions.len());
        {
            // All queues get their cuts in the same order, or two cuts could wait for each other.
            let _order = self.cuts.lock();
            for (partition, ticket) in self
                .partitions
                .iter()
                .zip(CutPoint::tickets(self.partitions.len(), at_cut))
            {
                let (reply, answer) = tokio::sync::oneshot::channel();
                let command = Command::Cut {
                    ticket,
                    wanted: Arc::clone(wanted),
                    reply,
                };
                partition.commands.send(command).map_err(|_| gone())?;
                replies.push(answer);
            }
        }
        let mut snapshots = Vec::with_capacity(replies.len());
        for answer in replies {
            snapshots.push(answer.await.map_err(|_| gone())??);
        }
        let behind = snapshots
            .iter()
            .map(|snapshot| snapshot.position)
            .max()
            .unwrap_or_default();
        self.shared.log.wait_durable(behind).await?;
        Ok(snapshots)
    }

    /// A meter by key.
    pub(crate) fn meter(&self, tenant: TenantId, key: &str) -> Result<Arc<Meter>, Problem> {
        let catalog = self.shared.directory.catalog(tenant);
        catalog
            .meters
            .get(key)
            .cloned()
            .ok_or_else(|| Problem::not_found("meter", key))
    }

    /// Waits until a meter has filled itself from the past. Returns whether it has.
    pub(crate) async fn filled(&self, meter: &Meter) -> bool {
        let looks = BACKFILL_WAIT.as_millis() / BACKFILL_LOOK.as_millis();
        for _ in 0..looks {
            if self.extent_of(meter.id).complete {
                return true;
            }
            tokio::time::sleep(BACKFILL_LOOK).await;
        }
        self.extent_of(meter.id).complete
    }

    pub(crate) async fn read_totals(
        &self,
        tenant: TenantId,
        requests: Vec<TotalRequest>,
        at_cut: Option<Box<dyn FnOnce() + Send>>,
    ) -> Result<Totals, Problem> {
        let plans = self.plans(tenant, &requests)?;
        // Fine ranges are read from the log, which holds the past in any case.
        let is_fine = |plan: &Plan| plan.windows.iter().any(super::recent::is_fine);
        for plan in plans.iter().filter(|plan| !is_fine(plan)) {
            if !self.filled(&plan.meter).await {
                let detail = format!(
                    "the meter \"{}\" is still counting the events before it was made",
                    plan.meter.key
                );
                return Err(Problem::new(Code::Unavailable, detail));
            }
        }
        let (fine, whole): (Vec<Asked>, Vec<Asked>) = plans
            .into_iter()
            .zip(requests)
            .enumerate()
            .partition(|(_, (plan, _))| is_fine(plan));
        let selections = whole.iter().map(|(_, (plan, _))| plan.selection()).collect();
        let wanted = Arc::new(Wanted::of(selections));
        let mut snapshots = self.cut(&wanted, at_cut).await?;
        let watermark = Watermark(snapshots.iter().map(|snapshot| snapshot.position).collect());
        let mut rows = vec![Vec::new(); fine.len() + whole.len()];
        let (places, fine): (Vec<usize>, Vec<_>) = fine.into_iter().unzip();
        for (at, found) in places
            .into_iter()
            .zip(self.fine_totals(tenant, fine, watermark.clone()).await?)
        {
            rows[at] = found;
        }
        let found = on_another_thread(move || {
            settle(&mut snapshots, &wanted)?;
            let each = whole.iter().enumerate();
            each.map(|(at, (place, (plan, request)))| Ok((*place, total(plan, request, at, &snapshots)?)))
                .collect()
        });
        let found: Vec<(usize, Vec<GroupTotal>)> = found.await?;
        for (at, found) in found {
            rows[at] = found;
        }
        Ok(Totals { rows, watermark })
    }

    pub(crate) fn plans(&self, tenant: TenantId, requests: &[TotalRequest]) -> Result<Vec<Plan>, Problem> {
        let plan = |request: &TotalRequest| {
            let meter = self.meter(tenant, &request.meter)?;
            Plan::new(
                tenant,
                meter,
                request.parts(),
                Some(&request.subjects),
                &request.filter,
            )
        };
        requests.iter().map(plan).collect()
    }
}

/// A request with its place in the answer.
type Asked = (usize, (Plan, TotalRequest));

/// Runs what may take long away from the threads that serve requests.
pub(crate) async fn on_another_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Problem::new(
            Code::Internal,
            "a reading of usage ended before its time",
        )),
    }
}

impl From<CopiesFull> for Problem {
    fn from(_: CopiesFull) -> Self {
        metrics::counter!("turnpike_usage_queries_refused_total", "reason" => "memory").increment(1);
        let detail = "other readings of usage hold all that this tenant may copy of memory \
                      (engine.query_memory_bytes_max)";
        Self::new(Code::Overloaded, detail)
    }
}

pub(crate) fn gone() -> Problem {
    Problem::new(Code::ShuttingDown, "the partitions have ended")
}

fn total(
    plan: &Plan,
    request: &TotalRequest,
    at: usize,
    snapshots: &[Snapshot],
) -> Result<Vec<GroupTotal>, Problem> {
    let dimensions = dimensions(plan, request)?;
    let project = |_: &str, group: &[String]| project(&dimensions, group);
    let sums = add_up(plan, Part::default(), (at, snapshots), &project)?;
    total_rows(plan, request, sums.rows)
}

pub(super) fn dimensions(plan: &Plan, request: &TotalRequest) -> Result<Vec<usize>, Problem> {
    request
        .group_by
        .iter()
        .map(|name| dimension(&plan.meter, "/group_by", name))
        .collect()
}

pub(super) fn project(dimensions: &[usize], group: &[String]) -> Vec<String> {
    dimensions
        .iter()
        .map(|at| group.get(*at).cloned().unwrap_or_default())
        .collect()
}

/// Rows as the port has them: without `group_by` exactly one for each part of the range.
pub(super) fn total_rows(
    plan: &Plan,
    request: &TotalRequest,
    sums: Vec<RowSum>,
) -> Result<Vec<GroupTotal>, Problem> {
    if !request.group_by.is_empty() {
        if !request.cuts.is_empty() {
            let detail = "a sum that is cut into parts cannot be split by groups";
            return Err(Problem::new(Code::Internal, detail));
        }
        let row = |sum: RowSum| {
            Ok(GroupTotal {
                value: value(plan, &sum)?,
                group: sum.group,
            })
        };
        return sums.into_iter().map(row).collect();
    }
    let empty = GroupTotal {
        group: Vec::new(),
        value: empty_value(plan)?,
    };
    let mut rows = vec![empty; request.cuts.len() + 1];
    for sum in sums {
        rows[sum.window].value = value(plan, &sum)?;
    }
    Ok(rows)
}

/// The value of a row. One beyond all numbers is an error with its place.
pub(super) fn value(plan: &Plan, sum: &RowSum) -> Result<Option<Quantity>, Problem> {
    sum.value
        .map_err(|error| in_row(plan, error, sum.window, &sum.group))
}

/// The meter's value of a window without events.
pub(super) fn empty_value(plan: &Plan) -> Result<Option<Quantity>, Problem> {
    let aggregation = plan.meter.aggregation;
    match aggregation {
        Aggregation::TimeWeightedSum => Ok(None),
        _ => Cell::new(aggregation)
            .finish(aggregation, percentile(plan))
            .map_err(|error| unanswerable(&plan.meter.key, error)),
    }
}
