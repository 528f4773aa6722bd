//! Comparing two sets of views of one log: every row and every id.

use std::cmp::Ordering;
use std::sync::Arc;

use turnpike_domain::identity::EventName;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::directory::Directory;
use turnpike_domain::port::views::{IdEntry, Views};
use turnpike_domain::problem::{Code, Problem};

use super::rows::{Meters, Netted, describe, meters};

/// Differences that are named; further ones are counted.
const NAMED_MAX: usize = 20;

/// Something in which two sets of views differ: a row as it stands in the dump, or an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// As the first set has it; `None` where only the second does.
    pub first: Option<String>,
    /// As the second set has it.
    pub second: Option<String>,
}

/// What comparing two sets of views came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Rows of the first set and of the second.
    pub rows: (u64, u64),
    /// Ids of the first set and of the second.
    pub ids: (u64, u64),
    /// Rows and ids that are not the same in both.
    pub different: u64,
    /// The first few of them.
    pub named: Vec<Difference>,
}

/// Compares two sets of views of one log: the rows of all partitions added up, those of meters that are no longer declared
/// left out, and each partition's ids with their digests and positions.
///
/// # Errors
/// Where the views cannot be read, or are of different numbers of partitions.
pub fn compare(
    first: &[Arc<dyn Views>],
    second: &[Arc<dyn Views>],
    directory: &dyn Directory,
) -> Result<Comparison, Problem> {
    if first.len() != second.len() {
        return Err(Problem::new(
            Code::IllegalTransition,
            "views of different numbers of partitions cannot be compared",
        ));
    }
    let mut found = Comparison::default();
    let meters = meters(directory);
    found.compare_rows(first, second, &meters)?;
    for (partition, (first, second)) in first.iter().zip(second).enumerate() {
        found.compare_ids(partition, first.as_ref(), second.as_ref())?;
    }
    Ok(found)
}

/// Counts the rows and the ids of a set of views, as [`compare`] counts them.
///
/// # Errors
/// Where the views cannot be read.
pub fn count(views: &[Arc<dyn Views>], directory: &dyn Directory) -> Result<(u64, u64), Problem> {
    let meters = meters(directory);
    let (mut rows, mut ids) = (0, 0);
    for row in Netted::new(views, &meters) {
        row?;
        rows += 1;
    }
    for id in views.iter().flat_map(|views| views.ids()) {
        id?;
        ids += 1;
    }
    Ok((rows, ids))
}

impl Comparison {
    fn compare_rows(
        &mut self,
        first: &[Arc<dyn Views>],
        second: &[Arc<dyn Views>],
        meters: &Meters,
    ) -> Result<(), Problem> {
        let (one, other) = (Netted::new(first, meters), Netted::new(second, meters));
        pair(
            one,
            other,
            |a, b| a.key.cmp(&b.key),
            |a, b| {
                self.rows.0 += u64::from(a.is_some());
                self.rows.1 += u64::from(b.is_some());
                self.note(a == b, || {
                    let text = |row: Option<_>| row.map(|row| describe(&row, meters)).transpose();
                    Ok((text(a)?, text(b)?))
                })
            },
        )
    }

    fn compare_ids(
        &mut self,
        partition: usize,
        first: &dyn Views,
        second: &dyn Views,
    ) -> Result<(), Problem> {
        pair(
            first.ids(),
            second.ids(),
            |(a, _), (b, _)| a.cmp(b),
            |a, b| {
                self.ids.0 += u64::from(a.is_some());
                self.ids.1 += u64::from(b.is_some());
                self.note(a == b, || {
                    let text = |id: Option<_>| id.map(|id| describe_id(partition, id));
                    Ok((text(a), text(b)))
                })
            },
        )
    }

    fn note(
        &mut self,
        same: bool,
        texts: impl FnOnce() -> Result<(Option<String>, Option<String>), Problem>,
    ) -> Result<(), Problem> {
        if same {
            return Ok(());
        }
        self.different += 1;
        if self.named.len() < NAMED_MAX {
            let (first, second) = texts()?;
            self.named.push(Difference { first, second });
        }
        Ok(())
    }
}

/// Gives what two ascending sequences hold to `each`, equals together.
fn pair<T>(
    first: impl Iterator<Item = Result<T, StoreError>>,
    second: impl Iterator<Item = Result<T, StoreError>>,
    order: impl Fn(&T, &T) -> Ordering,
    mut each: impl FnMut(Option<T>, Option<T>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let (mut first, mut second) = (first.peekable(), second.peekable());
    loop {
        let next = match (first.peek(), second.peek()) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(Ok(a)), Some(Ok(b))) => order(a, b),
            // Taken together, so that the failure comes out below.
            _ => Ordering::Equal,
        };
        let a = if next.is_le() {
            first.next().transpose()?
        } else {
            None
        };
        let b = if next.is_ge() {
            second.next().transpose()?
        } else {
            None
        };
        each(a, b)?;
    }
}

/// An id as a line of JSON.
fn describe_id(partition: usize, (name, entry): (EventName, IdEntry)) -> String {
    serde_json::json!({
        "kind": "id",
        "partition": partition,
        "name": format!("{:032x}", name.0),
        "digest": format!("{:016x}", entry.digest),
        "position": entry.position.0,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Item = Result<u32, StoreError>;
    type Pair = (Option<u32>, Option<u32>);

    fn pairs(first: &[Item], second: &[Item]) -> Result<Vec<Pair>, Problem> {
        let mut all = Vec::new();
        let (first, second) = (first.iter().cloned(), second.iter().cloned());
        pair(first, second, u32::cmp, |a, b| {
            all.push((a, b));
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn everything_of_both_comes_once_and_equals_together() {
        let all = pairs(&[Ok(1), Ok(3), Ok(4)], &[Ok(2), Ok(3), Ok(5), Ok(6)]).unwrap();
        let expected = [
            (Some(1), None),
            (None, Some(2)),
            (Some(3), Some(3)),
            (Some(4), None),
            (None, Some(5)),
            (None, Some(6)),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn damage_is_not_taken_for_an_end() {
        let broken = || Err(StoreError::Damaged("f".to_owned()));
        assert!(pairs(&[broken()], &[]).is_err());
        assert!(pairs(&[], &[broken()]).is_err());
        assert!(pairs(&[Ok(1), broken()], &[Ok(1), Ok(2)]).is_err());
        assert!(pairs(&[Ok(7)], &[Ok(1), broken()]).is_err());
    }
}
