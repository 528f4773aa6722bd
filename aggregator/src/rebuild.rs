//! Deriving all views from the log again, and comparing them with those that grew on the way.
//!
//! The canonical dump has one line for each row that is left when the partitions' rows are added up, in the order of
//! their keys. Ids of events are not in it: which ids are known shows in the positions and sums. Rows of meters that
//! are no longer declared are left out.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use turnpike_domain::identity::{MeterId, TenantId};
use turnpike_domain::meter::aggregate::Cell;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::views::{Row, RowIter, Views};
use turnpike_domain::port::{StoreError, views::MergeRows};
use turnpike_domain::problem::{Code, Problem};

use crate::rows::{counts, key, merge};
use crate::{Aggregator, Parts};

/// Where two sets of views first differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The row in the first set, as it stands in the dump; `None` where only the second has it.
    pub first: Option<String>,
    /// The row in the second set.
    pub second: Option<String>,
}

/// Derives the views of `parts`, which are empty, from the whole log, and writes them out. `parts` is given to nobody
/// else while this runs.
pub async fn derive(parts: Parts) -> Result<(), Problem> {
    if parts
        .views
        .iter()
        .any(|views| views.position() > turnpike_domain::record::Position::START)
    {
        return Err(Problem::new(
            Code::IllegalTransition,
            "views are derived into empty ones only",
        ));
    }
    let aggregator = tokio::task::spawn_blocking(move || Aggregator::start(parts))
        .await
        .map_err(|_| Problem::new(Code::Internal, "the derivation ended before its time"))??;
    aggregator.shutdown().await
}

/// Writes the canonical dump of `views` (all partitions of one log). Returns the number of lines.
pub fn dump(
    views: &[Arc<dyn Views>],
    directory: &dyn Directory,
    out: &mut dyn Write,
) -> Result<u64, Problem> {
    let mut lines = 0;
    let meters = meters(directory);
    for row in Netted::new(views, &meters) {
        let line = describe(&row?, &meters)?;
        writeln!(out, "{line}").map_err(|error| {
            Problem::new(Code::Unavailable, format!("the dump cannot be written: {error}"))
        })?;
        lines += 1;
    }
    Ok(lines)
}

/// The first row in which two sets of views differ; `None` when their dumps are the same.
pub fn compare(
    first: &[Arc<dyn Views>],
    second: &[Arc<dyn Views>],
    directory: &dyn Directory,
) -> Result<Option<Difference>, Problem> {
    let meters = meters(directory);
    let (mut one, mut other) = (Netted::new(first, &meters), Netted::new(second, &meters));
    loop {
        let (a, b) = (one.next().transpose()?, other.next().transpose()?);
        if a == b {
            if a.is_none() {
                return Ok(None);
            }
            continue;
        }
        let (a, b) = match (a, b) {
            (Some(a), Some(b)) if a.key < b.key => (Some(a), None),
            (Some(a), Some(b)) if a.key > b.key => (None, Some(b)),
            both => both,
        };
        let text = |row: Option<Row>| row.map(|row| describe(&row, &meters)).transpose();
        return Ok(Some(Difference {
            first: text(a)?,
            second: text(b)?,
        }));
    }
}

type Meters = BTreeMap<MeterId, String>;

fn meters(directory: &dyn Directory) -> Meters {
    let of = |tenant: TenantId| {
        let catalog = directory.catalog(tenant);
        catalog
            .meters
            .values()
            .map(|meter| (meter.id, meter.key.clone()))
            .collect::<Vec<_>>()
    };
    directory
        .tenants()
        .iter()
        .flat_map(|tenant| of(tenant.id))
        .collect()
}

/// A key, and the sum of its values; `None` when nothing is left of them.
type Sum = (Vec<u8>, Option<Vec<u8>>);

/// The rows of all partitions, added up, in the order of their keys.
struct Netted<'m> {
    parts: Vec<std::iter::Peekable<RowIter>>,
    merge: Arc<dyn MergeRows>,
    meters: &'m Meters,
}

impl<'m> Netted<'m> {
    fn new(views: &[Arc<dyn Views>], meters: &'m Meters) -> Self {
        let all = || Vec::new()..vec![0xff];
        let parts = views
            .iter()
            .map(|views| views.rows().scan(all()).peekable())
            .collect();
        Self {
            parts,
            merge: merge(),
            meters,
        }
    }

    /// The next key and its sum.
    fn step(&mut self) -> Option<Result<Sum, StoreError>> {
        let mut next: Option<Vec<u8>> = None;
        for part in &mut self.parts {
            match part.peek() {
                Some(Ok(row)) if next.as_ref().is_none_or(|known| row.key < *known) => {
                    next = Some(row.key.clone());
                }
                Some(Err(error)) => return Some(Err(error.clone())),
                _ => {}
            }
        }
        let key = next?;
        let mut sum: Option<Vec<u8>> = None;
        for part in &mut self.parts {
            while let Some(Ok(row)) = part.next_if(|row| row.as_ref().is_ok_and(|row| row.key == key)) {
                sum = match sum {
                    None => Some(row.value),
                    Some(known) => match self.merge.merge(&key, &known, &row.value) {
                        Ok(merged) => merged,
                        Err(error) => return Some(Err(error)),
                    },
                };
            }
        }
        Some(Ok((key, sum)))
    }

    fn is_declared(&self, key: &[u8]) -> bool {
        let meter = key::window_head(key)
            .map(|(_, meter, _)| meter)
            .or_else(|| key::letter_meter(key));
        meter.is_none_or(|meter| self.meters.contains_key(&meter))
    }
}

impl Iterator for Netted<'_> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step()? {
                Ok((key, Some(value))) if self.is_declared(&key) => return Some(Ok(Row { key, value })),
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

const LEVELS: [&str; 3] = ["minute", "hour", "day"];

/// A row as a line of JSON.
fn describe(row: &Row, meters: &Meters) -> Result<String, Problem> {
    let unreadable = || {
        Problem::from(StoreError::Damaged(
            "a row of the views cannot be read".to_owned(),
        ))
    };
    let line = match key::window_head(&row.key) {
        Some((tenant, meter, level)) => {
            let (series, bucket) = key::series_and_bucket(&row.key).ok_or_else(unreadable)?;
            let cell = Cell::decode(&row.value).ok_or_else(unreadable)?;
            serde_json::json!({
                "kind": "window",
                "tenant": tenant.0,
                "meter": meters.get(&meter),
                "level": LEVELS.get(usize::from(level)),
                "series": key::texts(series).ok_or_else(unreadable)?,
                "bucket": bucket,
                "events": cell.has_events(),
                "value": key::hex(&row.value),
            })
        }
        None => serde_json::json!({
            "kind": if key::is_reservation(&row.key) { "reservation" } else { "dead_letter" },
            "key": key::hex(&row.key),
            "position": (!key::is_reservation(&row.key)).then(|| key::letter_position(&row.key)).flatten(),
            "meter": key::letter_meter(&row.key).and_then(|meter| meters.get(&meter)),
            "value": hex_of_counts(&row.value)?,
        }),
    };
    Ok(line.to_string())
}

fn hex_of_counts(value: &[u8]) -> Result<BTreeMap<String, i64>, Problem> {
    Ok(counts(value)?
        .into_iter()
        .map(|(note, count)| (key::hex(&note), count))
        .collect())
}
