//! The rows that a set of views comes to, and how a row is written in the canonical dump.

use std::collections::BTreeMap;
use std::sync::Arc;

use turnpike_domain::identity::{MeterId, TenantId};
use turnpike_domain::meter::aggregate::Cell;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::views::{MergeRows, Row, RowIter, Views};
use turnpike_domain::problem::Problem;

use crate::rows::{counts, key, merge};

pub(super) type Meters = BTreeMap<MeterId, String>;

/// The keys of all tenants' meters.
pub(super) fn meters(directory: &dyn Directory) -> Meters {
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
pub(super) struct Netted<'m> {
    parts: Vec<std::iter::Peekable<RowIter>>,
    merge: Arc<dyn MergeRows>,
    meters: &'m Meters,
}

impl<'m> Netted<'m> {
    pub(super) fn new(views: &[Arc<dyn Views>], meters: &'m Meters) -> Self {
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
pub(super) fn describe(row: &Row, meters: &Meters) -> Result<String, Problem> {
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
