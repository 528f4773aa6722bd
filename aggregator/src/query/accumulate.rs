use std::cmp::Ordering;
use std::fmt::Write as _;
use std::ops::{Bound, Range};

use foldhash::{HashMap, HashMapExt as _};
use turnpike_domain::meter::Aggregation;
use turnpike_domain::meter::aggregate::{Cell, FinishError, Integral};
use turnpike_domain::port::StoreError;
use turnpike_domain::problem::{Code, Problem};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::TimeRange;

use super::order::order;
use super::{GroupPlace, Plan};
use crate::rows::key;
use crate::windows::cell_bytes;

/// From a subject and its values of the dimensions to the row of the answer that they belong to.
pub(crate) type Projection<'p> = dyn Fn(&str, &[String]) -> Vec<String> + 'p;

/// One row of the answer.
#[derive(Debug, Clone)]
pub(crate) struct RowSum {
    /// Index of the window.
    pub window: usize,
    /// What it was projected to.
    pub group: Vec<String>,
    /// The meter's value; an error where it is beyond all numbers, which the other rows need not be.
    pub value: Result<Option<Quantity>, FinishError>,
}

impl RowSum {
    /// The order of rows: by window, then by group.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let windows = self.window.cmp(&other.window);
        windows.then_with(|| order(&self.group, &other.group))
    }
}

/// A row's place in the order of rows: the index of its window, then its group.
pub(crate) type Place = (usize, GroupPlace);

/// Which part of an answer's rows to add up: so many of the first behind a place.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Of the first window only the groups from here on.
    pub from: Bound<GroupPlace>,
    /// Only groups that begin with less than this text.
    pub before: Option<String>,
    /// Rows at the most; `None`: all, however many.
    pub rows_max: Option<usize>,
}

impl Default for Part {
    fn default() -> Self {
        Self {
            from: Bound::Unbounded,
            before: None,
            rows_max: None,
        }
    }
}

impl Part {
    /// Whether a group is wanted in the first window.
    pub(crate) fn is_from(&self, group: &[String]) -> bool {
        match &self.from {
            Bound::Unbounded => true,
            Bound::Included(first) => first.order_of(group).is_ge(),
            Bound::Excluded(before) => before.order_of(group).is_gt(),
        }
    }
}

/// Rows that were added up, in their order.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub rows: Vec<RowSum>,
    /// The place of the last row, where there may be more behind it.
    pub until: Option<Place>,
}

/// Sums above the wanted number of rows that are held at the least before the last of them are let go.
const SPARE_ROWS: usize = 100;
/// The same of groups that come in their order, beside an eighth of the wanted number.
const SPARE_IN_ORDER: usize = 8;
/// Estimated bytes of sums of one part; beyond it the last of them are let go, so the part is shorter than asked for.
const PART_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Estimated bytes of a row beside its texts and values: its places in the maps, and a text.
const ROW_BYTES: usize = 200;

/// Adds cells up to rows. Of a part it holds little more than the rows that are asked for: those behind them are let go, and
/// added up anew for the next part.
pub(crate) struct Accumulator<'p> {
    plan: &'p Plan,
    project: &'p Projection<'p>,
    part: Part,
    rows: HashMap<Vec<String>, usize>,
    /// Of each row the windows that are wanted.
    wanted: Vec<Range<usize>>,
    /// By window and row.
    sums: HashMap<(usize, usize), Sum>,
    /// Points of each series and span, with its row: for time-weighted sums whose points come in no order.
    series: HashMap<(String, Vec<u8>, usize), (usize, Cell)>,
    /// Nothing behind this place is held.
    until: Option<Place>,
    bytes: usize,
}

#[derive(Debug)]
enum Sum {
    Cell(Cell),
    Integral(Integral),
}

impl<'p> Accumulator<'p> {
    pub(crate) fn new(plan: &'p Plan, project: &'p Projection<'p>, part: Part) -> Self {
        Self {
            plan,
            project,
            part,
            rows: HashMap::new(),
            wanted: Vec::new(),
            sums: HashMap::new(),
            series: HashMap::new(),
            until: None,
            bytes: 0,
        }
    }

    /// The row of a series, valid until the next is asked for; `None` when nothing of it is wanted.
    pub(crate) fn row(&mut self, subject: &str, group: &[u8]) -> Result<Option<usize>, StoreError> {
        if self.is_over() {
            self.let_go();
        }
        let texts = key::texts(group).ok_or_else(damaged)?;
        if !self.plan.wants(&texts) {
            return Ok(None);
        }
        let group = (self.project)(subject, &texts);
        if let Some(known) = self.rows.get(&group) {
            return Ok(Some(*known));
        }
        let wanted = self.wanted_windows(&group);
        if wanted.is_empty() {
            return Ok(None);
        }
        self.bytes += ROW_BYTES + group.iter().map(String::len).sum::<usize>();
        let row = self.wanted.len();
        self.rows.insert(group, row);
        self.wanted.push(wanted);
        Ok(Some(row))
    }

    /// Adds a cell to a window of a row.
    pub(crate) fn add(&mut self, row: usize, window: usize, cell: &Cell) -> Result<(), StoreError> {
        self.add_by(row, window, |sum| sum.merge(cell).ok())
    }

    /// The same with the bytes of a cell.
    pub(crate) fn add_encoded(&mut self, row: usize, window: usize, cell: &[u8]) -> Result<(), StoreError> {
        self.add_by(row, window, |sum| sum.merge_encoded(cell))
    }

    fn add_by(
        &mut self,
        row: usize,
        window: usize,
        merge: impl FnOnce(&mut Cell) -> Option<()>,
    ) -> Result<(), StoreError> {
        if !self.wanted[row].contains(&window) {
            return Ok(());
        }
        let sum = self
            .sums
            .entry((window, row))
            .or_insert_with(|| Sum::Cell(Cell::new(self.plan.meter.aggregation)));
        let Sum::Cell(sum) = sum else {
            return Err(damaged());
        };
        let before = cell_bytes(sum);
        merge(sum).ok_or_else(damaged)?;
        self.bytes += cell_bytes(sum).saturating_sub(before);
        Ok(())
    }

    /// Adds all points of a series over span number `span` of its subject to the windows of a row.
    pub(crate) fn integrate(&mut self, row: usize, span: TimeRange, points: &Cell) -> Result<(), Problem> {
        for window in self.wanted[row].clone() {
            let Some(shared) = self.plan.windows[window].intersect(&span) else {
                continue;
            };
            let sum = self
                .sums
                .entry((window, row))
                .or_insert_with(|| Sum::Integral(Integral::default()));
            let Sum::Integral(sum) = sum else {
                return Err(damaged().into());
            };
            let added = sum.add_series(points, shared);
            added.map_err(|error| in_row(self.plan, error, window, &[]))?;
        }
        Ok(())
    }

    /// Keeps points of a series until all are there, to be integrated over span number `span` of its subject.
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

    /// Whether no group that begins with this subject, or with what is behind it, is wanted any more.
    pub(crate) fn is_full_before(&self, subject: &str) -> bool {
        self.until
            .as_ref()
            .is_some_and(|(window, group)| *window == 0 && group.first().is_some_and(|last| *last < *subject))
    }

    fn wanted_windows(&self, group: &[String]) -> Range<usize> {
        let before = self.part.before.as_ref();
        if before.is_some_and(|before| group.first().is_some_and(|first| first >= before)) {
            return 0..0;
        }
        let end = match &self.until {
            None => self.plan.windows.len(),
            Some((window, last)) => window + usize::from(last.order_of(group).is_le()),
        };
        usize::from(!self.part.is_from(group))..end
    }

    /// Whether the next row that is asked for lets go of others.
    pub(crate) fn is_over(&self) -> bool {
        let is_in_order = self.plan.reach.in_order_of_groups;
        self.part.rows_max.is_some_and(|rows| {
            // Of groups that come in their order those behind the last wanted one need not be read, once that is known.
            let spare = if is_in_order {
                rows / 8 + SPARE_IN_ORDER
            } else {
                rows.max(SPARE_ROWS)
            };
            self.sums.len() > rows + spare || (self.bytes > PART_BYTES_MAX && self.sums.len() > 1)
        })
    }

    /// Lets go of the last sums: of those above the wanted number of rows, or of half of them where they take too much
    /// memory. What is left is whole, for nothing before `until` was ever let go.
    fn let_go(&mut self) {
        let wanted = self.part.rows_max.unwrap_or(usize::MAX);
        let half = self.sums.len() / 2;
        let most = if self.bytes > PART_BYTES_MAX {
            half
        } else {
            usize::MAX
        };
        let keep = wanted.min(most).max(1);
        let mut places: Vec<(usize, usize)> = self.sums.keys().copied().collect();
        let mut groups = vec![Vec::new(); self.wanted.len()];
        for (group, row) in self.rows.drain() {
            groups[row] = group;
        }
        if keep < places.len() {
            let (_, last, _) =
                places.select_nth_unstable_by(keep - 1, |one, other| order_of(&groups, *one, *other));
            self.until = Some((last.0, GroupPlace::of(&groups[last.1])));
            places.truncate(keep);
        }
        let sums = std::mem::take(&mut self.sums);
        self.keep(&groups, &places, sums);
    }

    /// Holds the sums at `places` alone, their rows numbered anew.
    fn keep(
        &mut self,
        groups: &[Vec<String>],
        places: &[(usize, usize)],
        mut sums: HashMap<(usize, usize), Sum>,
    ) {
        self.wanted.clear();
        self.bytes = 0;
        for place in places {
            let Some(sum) = sums.remove(place) else { continue };
            if let Sum::Cell(cell) = &sum {
                self.bytes += cell_bytes(cell);
            }
            let group = &groups[place.1];
            let row = self.rows.get(group).copied().unwrap_or_else(|| {
                self.bytes += ROW_BYTES + group.iter().map(String::len).sum::<usize>();
                self.wanted.push(self.wanted_windows(group));
                self.rows.insert(group.clone(), self.wanted.len() - 1);
                self.wanted.len() - 1
            });
            self.sums.insert((place.0, row), sum);
        }
    }

    /// The rows, ordered by window and group; those without events are left out.
    pub(crate) fn finish(mut self) -> Result<Rows, Problem> {
        for ((subject, _, span), (row, points)) in std::mem::take(&mut self.series) {
            if let Some(span) = self.plan.span(&subject, span) {
                self.integrate(row, span, &points)?;
            }
        }
        let mut groups = vec![Vec::new(); self.wanted.len()];
        for (group, row) in &self.rows {
            groups[*row].clone_from(group);
        }
        let with_events = self.sums.iter().filter(|(_, sum)| sum.has_events());
        let finished = with_events.map(|((window, row), sum)| {
            let group = groups[*row].clone();
            let value = self.value(sum);
            match value {
                Err(error @ FinishError::Kind) => Err(in_row(self.plan, error, *window, &group)),
                Ok(_) | Err(FinishError::Overflow) => Ok(RowSum {
                    window: *window,
                    group,
                    value,
                }),
            }
        });
        let mut rows = finished.collect::<Result<Vec<_>, Problem>>()?;
        rows.sort_unstable_by(RowSum::order);
        let rows_max = self.part.rows_max.unwrap_or(usize::MAX);
        if rows.len() > rows_max {
            rows.truncate(rows_max);
            self.until = rows.last().map(|row| (row.window, GroupPlace::of(&row.group)));
        }
        let until = self.until;
        Ok(Rows { rows, until })
    }

    fn value(&self, sum: &Sum) -> Result<Option<Quantity>, FinishError> {
        match sum {
            Sum::Cell(cell) => cell.finish(self.plan.meter.aggregation, percentile(self.plan)),
            Sum::Integral(integral) => integral.finish(),
        }
    }
}

impl Sum {
    fn has_events(&self) -> bool {
        match self {
            Self::Cell(cell) => cell.has_events(),
            Self::Integral(integral) => integral.has_value(),
        }
    }
}

fn order_of(groups: &[Vec<String>], one: (usize, usize), other: (usize, usize)) -> Ordering {
    one.0
        .cmp(&other.0)
        .then_with(|| order(&groups[one.1], &groups[other.1]))
}

/// The percentile of the plan's meter; 0 for others, which do not use it.
pub(crate) fn percentile(plan: &Plan) -> Quantity {
    let text = plan.meter.percentile.as_deref();
    text.and_then(|p| p.parse().ok()).unwrap_or_default()
}

/// `error` of one row, with where it is, as far as that is known; what splits the rows is known to the caller.
pub(super) fn in_row(plan: &Plan, error: FinishError, window: usize, group: &[String]) -> Problem {
    let mut problem = unanswerable(&plan.meter.key, error);
    if let Some(range) = plan.windows.get(window) {
        let _ = write!(problem.detail, ", from {} to {}", range.start, range.end);
    }
    if !group.is_empty() {
        let _ = write!(problem.detail, ", in the row of {group:?}");
    }
    problem
}

pub(crate) fn unanswerable(meter: &str, error: FinishError) -> Problem {
    let code = match error {
        FinishError::Overflow => Code::Overflow,
        FinishError::Kind => Code::Internal,
    };
    Problem::new(code, format!("meter \"{meter}\": {error}"))
}

pub(crate) fn damaged() -> StoreError {
    StoreError::Damaged("a window's row cannot be read".to_owned())
}
