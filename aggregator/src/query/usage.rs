use std::sync::Arc;

use turnpike_domain::identity::TenantId;
use turnpike_domain::meter::Meter;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::usage::SubjectSpan;
use turnpike_domain::problem::Problem;
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::{TimeRange, Timestamp};

use super::plan::dimension;
use super::totals::empty_value;
use super::{Plan, RowSum, add_up, on_another_thread};
use crate::Aggregator;

/// What rows are split by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Split {
    /// The customer that a subject belongs to; the subject itself where it is no customer's.
    Customer,
    /// The subject.
    Subject,
    /// A dimension of the meter.
    Dimension(String),
}

/// Usage of one meter, window by window.
#[derive(Clone)]
pub(crate) struct UsageQuery {
    pub meter: Arc<Meter>,
    /// `None`: all subjects.
    pub subjects: Option<Vec<String>>,
    pub windows: Vec<TimeRange>,
    pub filter: Vec<(String, Vec<String>)>,
    pub split: Vec<Split>,
    /// Groups that have a row in the first window even where it has no events.
    pub always: Vec<Vec<String>>,
}

/// One row of usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsageRow {
    pub window: TimeRange,
    /// In the order of the query's `split`.
    pub group: Vec<String>,
    pub value: Option<Quantity>,
}

/// Usage as of a moment.
pub(crate) struct UsageAnswer {
    /// Ordered by window, then group; windows without events are left out, but for those that are asked for `always`.
    pub rows: Vec<UsageRow>,
    pub as_of: Timestamp,
    /// Whether the meter had counted all events of the past.
    pub complete: bool,
    /// Where the query reaches before it: events timed before this may be missing.
    pub lacks_before: Option<Timestamp>,
}

impl Aggregator {
    pub(crate) async fn usage(&self, tenant: TenantId, query: UsageQuery) -> Result<UsageAnswer, Problem> {
        let spans = |subjects: &Vec<String>| -> Vec<SubjectSpan> {
            let span = |subject: &String| SubjectSpan {
                subject: subject.clone(),
                span: TimeRange::ALL,
            };
            subjects.iter().map(span).collect()
        };
        let subjects = query.subjects.as_ref().map(spans);
        let meter = Arc::clone(&query.meter);
        let plan = Plan::new(tenant, meter, query.windows, subjects.as_deref(), &query.filter)?;
        let (split, always) = (Splits::new(&plan.meter, &query.split)?, query.always);
        let complete = self.filled(&plan.meter).await;
        let start = plan.windows.iter().map(|window| window.start).min();
        let lacks_before = self
            .extent_of(plan.meter.id)
            .lacks_before
            .filter(|lacks| start.is_some_and(|start| start < *lacks));
        let snapshots = self.cut(vec![plan.selection()], None).await?;
        let as_of = self.shared.clock.now(tenant);
        let directory = Arc::clone(&self.shared.directory);
        let rows = on_another_thread(move || {
            let project =
                |subject: &str, group: &[String]| split.of(directory.as_ref(), tenant, subject, group);
            let sums = with_empty(add_up(&plan, 0, &snapshots, &project)?, &plan, always)?;
            let row = |sum: RowSum| UsageRow {
                window: plan.windows[sum.window],
                group: sum.group,
                value: sum.value,
            };
            Ok(sums.into_iter().map(row).collect())
        });
        Ok(UsageAnswer {
            rows: rows.await?,
            as_of,
            complete,
            lacks_before,
        })
    }
}

/// Adds a row without events for each group of `always` that has none.
fn with_empty(mut sums: Vec<RowSum>, plan: &Plan, always: Vec<Vec<String>>) -> Result<Vec<RowSum>, Problem> {
    if plan.windows.is_empty() || always.is_empty() {
        return Ok(sums);
    }
    let value = empty_value(plan)?;
    for group in always {
        if !sums.iter().any(|sum| sum.window == 0 && sum.group == group) {
            let window = 0;
            sums.push(RowSum { window, group, value });
        }
    }
    sums.sort_unstable();
    Ok(sums)
}

enum SplitAt {
    Customer,
    Subject,
    Dimension(usize),
}

struct Splits(Vec<SplitAt>);

impl Splits {
    fn new(meter: &Meter, split: &[Split]) -> Result<Self, Problem> {
        let at = |split: &Split| match split {
            Split::Customer => Ok(SplitAt::Customer),
            Split::Subject => Ok(SplitAt::Subject),
            Split::Dimension(name) => Ok(SplitAt::Dimension(dimension(meter, "/group_by", name)?)),
        };
        split.iter().map(at).collect::<Result<_, Problem>>().map(Self)
    }

    fn of(
        &self,
        directory: &dyn Directory,
        tenant: TenantId,
        subject: &str,
        group: &[String],
    ) -> Vec<String> {
        let text = |split: &SplitAt| match split {
            SplitAt::Customer => directory
                .customer_of_subject(tenant, subject)
                .map_or_else(|| subject.to_owned(), |customer| customer.key.clone()),
            SplitAt::Subject => subject.to_owned(),
            SplitAt::Dimension(at) => group.get(*at).cloned().unwrap_or_default(),
        };
        self.0.iter().map(text).collect()
    }
}
