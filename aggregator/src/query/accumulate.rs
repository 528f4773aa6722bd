use foldhash::{HashMap, HashMapExt as _};
use turnpike_domain::meter::Aggregation;
use turnpike_domain::meter::aggregate::{Cell, Integral};
use turnpike_domain::port::StoreError;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;

use super::Plan;
use crate::rows::key;

/// From a subject and its values of the dimensions to the row of the answer that they belong to.
pub(crate) type Projection<'p> = dyn Fn(&str, &[String]) -> Vec<String> + 'p;

/// One row of the answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowSum {
    /// Index of the window.
    pub window: usize,
    /// What it was projected to.
    pub group: Vec<String>,
    /// The meter's value.
    pub value: Option<Quantity>,
}

/// Adds cells up to rows.
pub(crate) struct Accumulator<'p> {
    plan: &'p Plan,
    project: &'p Projection<'p>,
    rows: HashMap<Vec<String>, usize>,
    cells: HashMap<(usize, usize), Cell>,
    /// For time-weighted sums: per series and span its points, and its row.
    series: HashMap<(String, Vec<u8>, usize), (usize, Cell)>,
}

impl<'p> Accumulator<'p> {
    pub(crate) fn new(plan: &'p Plan, project: &'p Projection<'p>) -> Self {
        Self {
            plan,
            project,
            rows: HashMap::new(),
            cells: HashMap::new(),
            series: HashMap::new(),
        }
    }

    /// The row of a series; `None` when it is not asked for.
    pub(crate) fn row(&mut self, subject: &str, group: &[u8]) -> Result<Option<usize>, StoreError> {
        let texts = key::texts(group).ok_or_else(damaged)?;
        if !self.plan.wants(&texts) {
            return Ok(None);
        }
        let next = self.rows.len();
        Ok(Some(
            *self.rows.entry((self.project)(subject, &texts)).or_insert(next),
        ))
    }

    /// Adds a cell to a window of a row.
    pub(crate) fn add(&mut self, row: usize, window: usize, cell: &Cell) -> Result<(), StoreError> {
        match self.cells.entry((window, row)) {
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(cell.clone());
                Ok(())
            }
            std::collections::hash_map::Entry::Occupied(mut sum) => {
                sum.get_mut().merge(cell).map_err(|_| damaged())
            }
        }
    }

    /// Adds points of a series, for a time-weighted sum over span number `span` of its subject.
    pub(crate) fn add_points(
        &mut self,
        row: usize,
        (subject, group, span): (&str, &[u8], usize),
        points: &Cell,
    ) -> Result<(), StoreError> {
        let key = (subject.to_owned(), group.to_vec(), span);
        let (_, sum) = self
            .series
            .entry(key)
            .or_insert_with(|| (row, Cell::new(Aggregation::TimeWeightedSum)));
        sum.merge(points).map_err(|_| damaged())
    }

    /// The rows, ordered by window and group; those without events are left out.
    pub(crate) fn finish(self) -> Result<Vec<RowSum>, Problem> {
        let mut groups = vec![Vec::new(); self.rows.len()];
        for (group, row) in &self.rows {
            groups[*row].clone_from(group);
        }
        let meter = &self.plan.meter;
        let mut out = if meter.aggregation == Aggregation::TimeWeightedSum {
            self.integrals(&groups)?
        } else {
            let percentile = percentile(self.plan);
            let with_events = self.cells.iter().filter(|(_, cell)| cell.has_events());
            let finished = with_events.map(|((window, row), cell)| {
                let value = cell
                    .finish(meter.aggregation, percentile)
                    .map_err(|e| unanswerable(&meter.key, e))?;
                Ok(RowSum {
                    window: *window,
                    group: groups[*row].clone(),
                    value,
                })
            });
            finished.collect::<Result<Vec<_>, Problem>>()?
        };
        out.sort_unstable();
        Ok(out)
    }

    fn integrals(&self, groups: &[Vec<String>]) -> Result<Vec<RowSum>, Problem> {
        let failed = |error| unanswerable(&self.plan.meter.key, error);
        let mut integrals: HashMap<(usize, usize), Integral> = HashMap::new();
        for ((subject, _, span), (row, points)) in &self.series {
            let span = match &self.plan.subjects {
                None => turnpike_domain::time::TimeRange::ALL,
                Some(all) => match all.get(subject).and_then(|spans| spans.get(*span)) {
                    Some(span) => *span,
                    None => continue,
                },
            };
            for (at, window) in self.plan.windows.iter().enumerate() {
                if let Some(shared) = window.intersect(&span) {
                    let integral = integrals.entry((at, *row)).or_default();
                    integral.add_series(points, shared).map_err(failed)?;
                }
            }
        }
        let mut out = Vec::new();
        for ((window, row), integral) in integrals {
            if let Some(value) = integral.finish().map_err(failed)? {
                out.push(RowSum {
                    window,
                    group: groups[row].clone(),
                    value: Some(value),
                });
            }
        }
        Ok(out)
    }
}

/// The percentile of the plan's meter; 0 for others, which do not use it.
pub(crate) fn percentile(plan: &Plan) -> Quantity {
    let text = plan.meter.percentile.as_deref();
    text.and_then(|p| p.parse().ok()).unwrap_or_default()
}

pub(crate) fn unanswerable(meter: &str, error: turnpike_domain::meter::aggregate::FinishError) -> Problem {
    use turnpike_domain::meter::aggregate::FinishError;
    let code = match error {
        FinishError::Overflow => Code::Overflow,
        FinishError::Kind => Code::Internal,
    };
    Problem::new(code, format!("meter \"{meter}\": {error}"))
}

pub(crate) fn damaged() -> StoreError {
    StoreError::Damaged("a window's row cannot be read".to_owned())
}
