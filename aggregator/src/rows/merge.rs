use std::collections::BTreeMap;
use std::sync::Arc;

use turnpike_domain::meter::aggregate::{Cell, read_counts, write_counts};
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::MergeRows;

use super::key;

/// How the aggregator's rows are added: hand this to the stores.
pub fn merge() -> Arc<dyn MergeRows> {
    Arc::new(Merge)
}

struct Merge;

impl MergeRows for Merge {
    fn merge(&self, row: &[u8], a: &[u8], b: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut out = Vec::with_capacity(a.len() + b.len());
        if key::is_window(row) {
            let mut sum = cell(a)?;
            sum.merge(&cell(b)?)
                .map_err(|error| StoreError::Damaged(error.to_string()))?;
            sum.encode(&mut out);
            return Ok((!sum.is_empty()).then_some(out));
        }
        let mut sum = counts(a)?;
        add_counts(&mut sum, &counts(b)?);
        write_counts(&sum, &mut out);
        Ok((!sum.is_empty()).then_some(out))
    }
}

/// Notes under one key: byte strings with signed counts.
pub(crate) type Counts = BTreeMap<Vec<u8>, i64>;

/// Adds `more` to `sum`; what reaches 0 is gone.
pub(crate) fn add_counts(sum: &mut Counts, more: &Counts) {
    for (note, by) in more {
        let count = sum.entry(note.clone()).or_default();
        *count += by;
        if *count == 0 {
            sum.remove(note);
        }
    }
}

pub(crate) fn cell(value: &[u8]) -> Result<Cell, StoreError> {
    Cell::decode(value).ok_or_else(|| StoreError::Damaged("a window's row cannot be read".to_owned()))
}

pub(crate) fn counts(value: &[u8]) -> Result<Counts, StoreError> {
    read_counts(value).ok_or_else(|| StoreError::Damaged("a row of notes cannot be read".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use turnpike_domain::identity::{MeterId, TenantId};
    use turnpike_domain::meter::Aggregation;

    #[test]
    fn windows_and_notes_are_added_until_nothing_is_left() {
        let window = key::window(TenantId(1), MeterId(2), key::Level::Minute, b"s\0\x01", 3);
        let bytes = |cell: &Cell| {
            let mut out = Vec::new();
            cell.encode(&mut out);
            out
        };
        let (three, back) = (bytes(&Cell::Count(3)), bytes(&Cell::Count(-3)));
        let sum = merge().merge(&window, &three, &three).unwrap().unwrap();
        assert_eq!(cell(&sum), Ok(Cell::Count(6)));
        assert_eq!(merge().merge(&window, &three, &back), Ok(None));
        assert!(merge().merge(&window, &three, b"x").is_err());
        let other = bytes(&Cell::new(Aggregation::Sum));
        assert!(merge().merge(&window, &three, &other).is_err());

        let note = key::refused(TenantId(1), 9);
        let notes = |count: i64| {
            let mut out = Vec::new();
            write_counts(&Counts::from([(b"n".to_vec(), count)]), &mut out);
            out
        };
        assert_eq!(merge().merge(&note, &notes(1), &notes(-1)), Ok(None));
        let two = merge().merge(&note, &notes(1), &notes(1)).unwrap().unwrap();
        assert_eq!(counts(&two), Ok(Counts::from([(b"n".to_vec(), 2)])));
    }
}
