//! The bytes of cells, as they stand in the views' rows. Equal cells have equal bytes: a kind, then variable-length
//! integers (LEB128, signed ones zigzag), lists ascending with a length before them. Specified in docs/views-format.md.

use std::collections::BTreeMap;

use super::cell::Counts;
use super::{Cell, Distinct, Point, Wide};
use crate::quantity::Quantity;

const COUNT: u8 = 0;
const SUM: u8 = 1;
const VALUES: u8 = 2;
const DISTINCT: u8 = 3;
const POINTS: u8 = 4;

impl Cell {
    /// Appends the cell's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Count(count) => {
                out.push(COUNT);
                put_signed(out, i128::from(*count));
            }
            Self::Sum(count, sum) => {
                out.push(SUM);
                put_signed(out, i128::from(*count));
                put_wide(out, *sum);
            }
            Self::Values(values) => {
                out.push(VALUES);
                put_all(out, values, |out, value| put_signed(out, value.parts()));
            }
            Self::Distinct(values) => {
                out.push(DISTINCT);
                put_all(out, values, put_distinct);
            }
            Self::Points(points) => {
                out.push(POINTS);
                put_all(out, points, put_point);
            }
        }
    }

    /// Reads a cell from exactly `bytes`; `None` when they are no cell.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, mut bytes) = bytes.split_first()?;
        let from = &mut bytes;
        let cell = match *kind {
            COUNT => Self::Count(take_count(from)?),
            SUM => Self::Sum(take_count(from)?, take_wide(from)?),
            VALUES => Self::Values(Box::new(take_all(from, |from| {
                Quantity::from_parts(take_signed(from)?).ok()
            })?)),
            DISTINCT => Self::Distinct(Box::new(take_all(from, take_distinct)?)),
            POINTS => Self::Points(Box::new(take_all(from, take_point)?)),
            _ => return None,
        };
        bytes.is_empty().then_some(cell)
    }

    /// Adds the cell that exactly `bytes` hold; `None`, and nothing is added, when they hold none of this kind.
    pub fn merge_encoded(&mut self, bytes: &[u8]) -> Option<()> {
        // Without a cell in between, for those that answers add up by the thousand.
        match (&mut *self, bytes) {
            (Self::Sum(count, sum), [SUM, rest @ ..]) => {
                let mut rest = rest;
                let (more, and) = (take_count(&mut rest)?, take_wide(&mut rest)?);
                rest.is_empty().then_some(())?;
                *count += more;
                sum.add(and);
                Some(())
            }
            _ => self.merge(&Self::decode(bytes)?).ok(),
        }
    }
}

/// Appends byte strings with signed counts, in the manner of a cell's lists.
pub fn write_counts(counts: &BTreeMap<Vec<u8>, i64>, out: &mut Vec<u8>) {
    put_all(out, counts, |out, bytes| put_bytes(out, bytes));
}

/// Reads what [`write_counts`] wrote, from exactly `bytes`.
pub fn read_counts(mut bytes: &[u8]) -> Option<BTreeMap<Vec<u8>, i64>> {
    let counts = take_all(&mut bytes, |from| Some(take_bytes(from)?.to_vec()))?;
    bytes.is_empty().then_some(counts)
}

fn put_unsigned(out: &mut Vec<u8>, mut value: u128) {
    // Nearly all are short, and 64 bits are shifted faster than 128.
    if let Ok(mut short) = u64::try_from(value) {
        while short >= 0x80 {
            out.push((short & 0x7f) as u8 | 0x80);
            short >>= 7;
        }
        out.push((short & 0x7f) as u8);
        return;
    }
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

fn put_signed(out: &mut Vec<u8>, value: i128) {
    put_unsigned(out, ((value << 1) ^ (value >> 127)).cast_unsigned());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_unsigned(out, bytes.len() as u128);
    out.extend_from_slice(bytes);
}

/// Length, then little-endian two's complement without bytes that only repeat the sign.
fn put_wide(out: &mut Vec<u8>, sum: Wide) {
    put_bytes(out, &sum.bytes()[..sum.significant_bytes()]);
}

fn put_distinct(out: &mut Vec<u8>, value: &Distinct) {
    let (kind, text) = match value {
        Distinct::Text(text) => (0, text),
        Distinct::Number(text) => (1, text),
    };
    out.push(kind);
    put_bytes(out, text.as_bytes());
}

fn put_point(out: &mut Vec<u8>, point: &Point) {
    put_signed(out, i128::from(point.time_us));
    put_bytes(out, point.source.as_bytes());
    put_bytes(out, point.id.as_bytes());
    put_signed(out, point.value.parts());
}

fn put_all<K>(out: &mut Vec<u8>, counts: &Counts<K>, put: impl Fn(&mut Vec<u8>, &K)) {
    put_unsigned(out, counts.len() as u128);
    for (key, count) in counts {
        put(out, key);
        put_signed(out, i128::from(*count));
    }
}

fn take_unsigned(from: &mut &[u8]) -> Option<u128> {
    // Most have one byte.
    if let [byte @ 0..0x80, rest @ ..] = *from {
        *from = rest;
        return Some(u128::from(*byte));
    }
    let mut value = 0u128;
    for at in 0..19 {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u128::from(byte & 0x7f).checked_shl(at * 7)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take_signed(from: &mut &[u8]) -> Option<i128> {
    let value = take_unsigned(from)?;
    Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
}

fn take_count(from: &mut &[u8]) -> Option<i64> {
    i64::try_from(take_signed(from)?).ok()
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_unsigned(from)?).ok()?;
    let (bytes, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(bytes)
}

fn take_text(from: &mut &[u8]) -> Option<String> {
    std::str::from_utf8(take_bytes(from)?).ok().map(str::to_owned)
}

fn take_wide(from: &mut &[u8]) -> Option<Wide> {
    let given = take_bytes(from)?;
    let is_negative = given.last()? & 0x80 != 0;
    if given.len() <= size_of::<i64>() {
        let sign = if is_negative { -1 } else { 0 };
        let word = given
            .iter()
            .rev()
            .fold(sign, |word: i64, byte| word << 8 | i64::from(*byte));
        return Some(Wide::of_parts(word.into()));
    }
    let sign = if is_negative { 0xff } else { 0 };
    let mut bytes = [sign; 24];
    bytes.get_mut(..given.len())?.copy_from_slice(given);
    Some(Wide::from_bytes(bytes))
}

fn take_distinct(from: &mut &[u8]) -> Option<Distinct> {
    let (kind, rest) = from.split_first()?;
    *from = rest;
    match *kind {
        0 => take_text(from).map(Distinct::Text),
        1 => take_text(from).map(Distinct::Number),
        _ => None,
    }
}

fn take_point(from: &mut &[u8]) -> Option<Point> {
    Some(Point {
        time_us: take_count(from)?,
        source: take_text(from)?,
        id: take_text(from)?,
        value: Quantity::from_parts(take_signed(from)?).ok()?,
    })
}

fn take_all<K: Ord>(from: &mut &[u8], take: impl Fn(&mut &[u8]) -> Option<K>) -> Option<Counts<K>> {
    let len = take_unsigned(from)?;
    let mut counts = Counts::new();
    for _ in 0..len {
        let key = take(from)?;
        let count = take_count(from)?;
        // Bytes are canonical: ascending, without zeros.
        if count == 0 || counts.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return None;
        }
        counts.insert(key, count);
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::super::cell::tests::{ALL, add, made};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cells_survive_the_codec(all in prop::collection::vec((made(), any::<bool>()), 0..40), cut in any::<usize>()) {
            for aggregation in ALL {
                let mut cell = Cell::new(aggregation);
                for (made, back) in &all {
                    add(&mut cell, aggregation, made, *back);
                }
                let mut bytes = Vec::new();
                cell.encode(&mut bytes);
                let read = Cell::decode(&bytes);
                prop_assert_eq!(read.as_ref(), Some(&cell));
                let (mut twice, mut expected) = (cell.clone(), cell.clone());
                prop_assert_eq!(twice.merge_encoded(&bytes), Some(()));
                expected.merge(&cell).unwrap();
                prop_assert_eq!(&twice, &expected);
                prop_assert_eq!(twice.merge_encoded(&bytes[..cut % bytes.len()]), None);
                prop_assert_eq!(&twice, &expected, "nothing was added");
                prop_assert_eq!(Cell::decode(&bytes[..cut % bytes.len()]), None);
                bytes.push(0);
                prop_assert_eq!(Cell::decode(&bytes), None);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(cell) = Cell::decode(&bytes) {
                let mut again = Vec::new();
                cell.encode(&mut again);
                prop_assert_eq!(Cell::decode(&again), Some(cell));
            }
            let _ = read_counts(&bytes);
        }

        #[test]
        fn counts_survive(counts in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 0..9), 1..99i64, 0..9)) {
            let mut bytes = Vec::new();
            write_counts(&counts, &mut bytes);
            prop_assert_eq!(read_counts(&bytes), Some(counts));
        }

        #[test]
        fn integers_survive(value in any::<i128>()) {
            let mut bytes = Vec::new();
            put_signed(&mut bytes, value);
            prop_assert_eq!(take_signed(&mut bytes.as_slice()), Some(value));
        }
    }
}
