//! The contract of [`Views`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use turnpike_domain::identity::EventName;
use turnpike_domain::port::StoreError;
use turnpike_domain::port::views::{IdEntry, MergeRows, Next, Row, Rows, Views};
use turnpike_domain::record::Position;

/// Opens one store again and again, each time as after a crash of the process before. Whoever calls it has dropped the
/// views that it gave before.
pub type Opener = Box<dyn FnMut() -> Result<Arc<dyn Views>, StoreError>>;

/// Makes a new, empty store.
pub type Factory<'a> = &'a mut dyn FnMut() -> Opener;

/// Stores under contract must be opened so that they want a checkpoint after this many new ids, with [`AddValues`].
pub const CHECKPOINT_IDS: usize = 1_000;

/// Values are signed 64-bit numbers, little-endian, and are added. Zero is nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct AddValues;

impl MergeRows for AddValues {
    fn merge(&self, _key: &[u8], a: &[u8], b: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let sum = number(a)?.wrapping_add(number(b)?);
        Ok((sum != 0).then(|| sum.to_le_bytes().to_vec()))
    }
}

fn number(bytes: &[u8]) -> Result<i64, StoreError> {
    bytes
        .try_into()
        .map(i64::from_le_bytes)
        .map_err(|_| StoreError::Failed(format!("a value of {} bytes is no number", bytes.len())))
}

/// A row of [`AddValues`].
pub fn row(key: &str, value: i64) -> Row {
    Row {
        key: key.as_bytes().to_vec(),
        value: value.to_le_bytes().to_vec(),
    }
}

/// Finishes a checkpoint that contains the log before position `at`.
pub fn checkpoint(views: &dyn Views, at: u64, rows: Vec<Row>, meta: Vec<u8>) -> Result<(), StoreError> {
    views.finish_checkpoint(Position(at), &rows, meta)
}

/// A well-mixed name, as hashes are: the `number`th of a fixed sequence.
pub fn name(number: u64) -> EventName {
    EventName(u128::from(mix(number)) << 64 | u128::from(mix(number ^ 0x5555_5555_0000_0000)))
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that spreads its input over all bits.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An entry.
pub fn entry(digest: u64, position: u64) -> IdEntry {
    IdEntry {
        digest,
        position: Position(position),
    }
}

/// Puts a backend through every promise.
pub fn contract(factory: Factory<'_>) -> Result<(), StoreError> {
    for promise in [
        starts_empty,
        remembers_names,
        lists_the_ids_of_the_last_checkpoint,
        newest_entry_wins,
        unfinished_checkpoint_is_lost,
        later_ids_belong_to_the_next_checkpoint,
        checkpoint_publishes_all_in_one_step,
        wants_a_checkpoint_when_full,
        rows_are_added,
        nothing_left_is_not_shown,
        scans_keep_to_their_range,
        snapshot_stays_as_it_was,
        rows_out_of_order_are_refused,
        many_checkpoints,
    ] {
        promise(factory())?;
    }
    Ok(())
}

fn starts_empty(mut open: Opener) -> Result<(), StoreError> {
    for _ in 0..2 {
        let views = open()?;
        assert_eq!(views.position(), Position::START);
        assert!(views.meta().is_empty());
        assert_eq!(views.probe(&[name(1), name(2)])?, vec![None, None]);
        assert_eq!(views.probe(&[])?, vec![]);
        assert!(scan(views.as_ref(), "", "~")?.is_empty());
        assert!(!views.wants_checkpoint());
        assert_eq!(views.stats().ids, 0);
    }
    Ok(())
}

fn remembers_names(mut open: Opener) -> Result<(), StoreError> {
    let views = open()?;
    views.remember(&[(name(1), entry(10, 100)), (name(2), entry(20, 200))])?;
    let asked = [name(2), name(3), name(1), name(2)];
    let expected = vec![
        Some(entry(20, 200)),
        None,
        Some(entry(10, 100)),
        Some(entry(20, 200)),
    ];
    assert_eq!(views.probe(&asked)?, expected, "in the order asked");
    views.begin_checkpoint()?;
    assert_eq!(views.probe(&asked)?, expected, "frozen");
    checkpoint(views.as_ref(), 300, vec![], vec![])?;
    assert_eq!(views.probe(&asked)?, expected, "written");
    assert_eq!(views.stats().ids, 2);
    drop(views);
    assert_eq!(open()?.probe(&asked)?, expected, "opened again");
    Ok(())
}

fn lists_the_ids_of_the_last_checkpoint(mut open: Opener) -> Result<(), StoreError> {
    let views = open()?;
    let listed = |views: &dyn Views| views.ids().collect::<Result<Vec<_>, _>>();
    assert!(listed(views.as_ref())?.is_empty());
    let mut expected = std::collections::BTreeMap::new();
    // Each name is replaced in two later checkpoints, so that it stands in several runs.
    for round in 0..6_u64 {
        let entries: Vec<_> = (round * 1_000..round * 1_000 + 3_000)
            .map(|n| (name(n), entry(n, round)))
            .collect();
        views.remember(&entries)?;
        views.begin_checkpoint()?;
        views.remember(&[(name(1_000_000 + round), entry(0, 0))])?;
        expected.extend(entries);
        checkpoint(views.as_ref(), round + 1, vec![], vec![])?;
        let all: Vec<_> = expected.iter().map(|(name, entry)| (*name, *entry)).collect();
        assert_eq!(
            listed(views.as_ref())?,
            all,
            "in the order of names, newest entries only"
        );
        expected.insert(name(1_000_000 + round), entry(0, 0));
    }
    expected.remove(&name(1_000_005));
    drop(views);
    let all: Vec<_> = expected.into_iter().collect();
    assert_eq!(listed(open()?.as_ref())?, all);
    Ok(())
}

fn newest_entry_wins(mut open: Opener) -> Result<(), StoreError> {
    let views = open()?;
    let expect = |views: &dyn Views, digest: u64| -> Result<(), StoreError> {
        assert_eq!(views.probe(&[name(7)])?, vec![Some(entry(digest, digest))]);
        Ok(())
    };
    views.remember(&[(name(7), entry(1, 1)), (name(7), entry(2, 2))])?;
    expect(views.as_ref(), 2)?;
    views.remember(&[(name(7), entry(3, 3))])?;
    expect(views.as_ref(), 3)?;
    views.begin_checkpoint()?;
    views.remember(&[(name(7), entry(4, 4))])?;
    expect(views.as_ref(), 4)?;
    checkpoint(views.as_ref(), 4, vec![], vec![])?;
    expect(views.as_ref(), 4)?;
    drop(views);
    let views = open()?;
    expect(views.as_ref(), 3)?;
    views.remember(&[(name(7), entry(5, 5))])?;
    views.begin_checkpoint()?;
    checkpoint(views.as_ref(), 5, vec![], vec![])?;
    expect(views.as_ref(), 5)?;
    drop(views);
    expect(open()?.as_ref(), 5)
}

fn unfinished_checkpoint_is_lost(mut open: Opener) -> Result<(), StoreError> {
    let views = open()?;
    views.remember(&[(name(1), entry(1, 1))])?;
    views.begin_checkpoint()?;
    views.remember(&[(name(2), entry(2, 2))])?;
    drop(views);
    let views = open()?;
    assert_eq!(views.probe(&[name(1), name(2)])?, vec![None, None]);
    assert_eq!(views.position(), Position::START);
    Ok(())
}

fn later_ids_belong_to_the_next_checkpoint(mut open: Opener) -> Result<(), StoreError> {
    let views = open()?;
    views.remember(&[(name(1), entry(1, 1))])?;
    views.begin_checkpoint()?;
    views.remember(&[(name(2), entry(2, 2))])?;
    checkpoint(views.as_ref(), 2, vec![], vec![])?;
    assert_eq!(
        views.probe(&[name(1), name(2)])?,
        vec![Some(entry(1, 1)), Some(entry(2, 2))]
    );
    drop(views);
    let views = open()?;
    assert_eq!(views.probe(&[name(1), name(2)])?, vec![Some(entry(1, 1)), None]);
    // Begun twice, finished once: what both froze is written.
    views.remember(&[(name(3), entry(3, 3))])?;
    views.begin_checkpoint()?;
    views.remember(&[(name(3), entry(4, 4)), (name(4), entry(5, 5))])?;
    views.begin_checkpoint()?;
    checkpoint(views.as_ref(), 6, vec![], vec![])?;
    drop(views);
    let views = open()?;
    assert_eq!(
        views.probe(&[name(1), name(3), name(4)])?,
        vec![Some(entry(1, 1)), Some(entry(4, 4)), Some(entry(5, 5))]
    );
    Ok(())
}

fn checkpoint_publishes_all_in_one_step(mut open: Opener) -> Result<(), StoreError> {
    let large = vec![7_u8; 3_000_000];
    let views = open()?;
    views.begin_checkpoint()?;
    checkpoint(views.as_ref(), 9, vec![row("a", 1)], b"meta".to_vec())?;
    assert_eq!((views.position(), views.meta()), (Position(9), b"meta".to_vec()));
    drop(views);
    let views = open()?;
    assert_eq!((views.position(), views.meta()), (Position(9), b"meta".to_vec()));
    assert_eq!(scan(views.as_ref(), "", "~")?, vec![row("a", 1)]);
    checkpoint(views.as_ref(), 10, vec![], large.clone())?;
    assert_eq!(views.meta(), large);
    drop(views);
    let views = open()?;
    assert_eq!((views.position(), views.meta()), (Position(10), large));
    assert_eq!(scan(views.as_ref(), "", "~")?, vec![row("a", 1)]);
    checkpoint(views.as_ref(), 11, vec![], vec![])?;
    drop(views);
    assert!(open()?.meta().is_empty());
    Ok(())
}

fn wants_a_checkpoint_when_full(mut open: Opener) -> Result<(), StoreError> {
    let views = open()?;
    let entries = |range: Range<u64>| range.map(|n| (name(n), entry(n, n))).collect::<Vec<_>>();
    views.remember(&entries(0..CHECKPOINT_IDS as u64 / 2))?;
    assert!(!views.wants_checkpoint());
    views.remember(&entries(CHECKPOINT_IDS as u64 / 2..CHECKPOINT_IDS as u64))?;
    assert!(views.wants_checkpoint());
    views.begin_checkpoint()?;
    assert!(!views.wants_checkpoint());
    checkpoint(views.as_ref(), 1, vec![], vec![])?;
    assert!(!views.wants_checkpoint());
    Ok(())
}

fn rows_are_added(mut open: Opener) -> Result<(), StoreError> {
    let views = open()?;
    checkpoint(views.as_ref(), 1, vec![row("a", 1), row("b", 2)], vec![])?;
    checkpoint(
        views.as_ref(),
        2,
        vec![row("a", 10), row("c", -4), row("c", 1)],
        vec![],
    )?;
    let expected = vec![row("a", 11), row("b", 2), row("c", -3)];
    assert_eq!(scan(views.as_ref(), "", "~")?, expected);
    drop(views);
    assert_eq!(scan(open()?.as_ref(), "", "~")?, expected);
    Ok(())
}

fn nothing_left_is_not_shown(mut open: Opener) -> Result<(), StoreError> {
    let views = open()?;
    checkpoint(
        views.as_ref(),
        1,
        vec![row("a", 1), row("b", 2), row("c", 3)],
        vec![],
    )?;
    checkpoint(views.as_ref(), 2, vec![row("b", -2)], vec![])?;
    assert_eq!(scan(views.as_ref(), "", "~")?, vec![row("a", 1), row("c", 3)]);
    checkpoint(views.as_ref(), 3, vec![row("b", 5), row("c", -3)], vec![])?;
    assert_eq!(scan(views.as_ref(), "", "~")?, vec![row("a", 1), row("b", 5)]);
    drop(views);
    assert_eq!(scan(open()?.as_ref(), "", "~")?, vec![row("a", 1), row("b", 5)]);
    Ok(())
}

fn scans_keep_to_their_range(mut open: Opener) -> Result<(), StoreError> {
    let views = open()?;
    let keys = ["", "a", "a\0", "aa", "ab", "b", "ba", "c"];
    for (at, some) in [&keys[..4], &keys[4..], &keys[2..6]].into_iter().enumerate() {
        let rows = some.iter().map(|key| row(key, 1)).collect();
        checkpoint(views.as_ref(), at as u64 + 1, rows, vec![])?;
    }
    let shown = |from: &str, until: &str| -> Result<Vec<String>, StoreError> {
        let rows = scan(views.as_ref(), from, until)?;
        Ok(rows
            .iter()
            .map(|row| String::from_utf8_lossy(&row.key).into_owned())
            .collect())
    };
    assert_eq!(shown("", "~")?, keys);
    assert_eq!(shown("a", "b")?, ["a", "a\0", "aa", "ab"]);
    assert_eq!(shown("a\0", "ab")?, ["a\0", "aa"]);
    assert_eq!(shown("b", "b")?, [""; 0]);
    assert_eq!(shown("c", "a")?, [""; 0]);
    assert_eq!(shown("bb", "bz")?, [""; 0]);
    Ok(())
}

fn snapshot_stays_as_it_was(mut open: Opener) -> Result<(), StoreError> {
    let views = open()?;
    let many = |value| {
        (0..5_000)
            .map(|n| row(&format!("{n:06}"), value))
            .collect::<Vec<_>>()
    };
    checkpoint(views.as_ref(), 1, many(1), vec![])?;
    let before = views.rows();
    let mut half = before.scan(vec![]..b"~".to_vec());
    let first: Vec<Row> = half.by_ref().take(2_000).collect::<Result<_, _>>()?;
    for at in 2..40 {
        checkpoint(views.as_ref(), at, many(1), vec![])?;
    }
    let rest: Vec<Row> = half.collect::<Result<_, _>>()?;
    assert_eq!([first, rest].concat(), many(1));
    let again: Vec<Row> = before.scan(vec![]..b"~".to_vec()).collect::<Result<_, _>>()?;
    assert_eq!(again, many(1));
    assert_eq!(scan(views.as_ref(), "", "~")?, many(39));
    drop(views);
    let last = before
        .scan_back(b"004999".to_vec()..b"~".to_vec())
        .collect::<Result<Vec<_>, _>>()?;
    assert_eq!(
        last,
        vec![row("004999", 1)],
        "readable when the views are already gone"
    );
    Ok(())
}

fn rows_out_of_order_are_refused(mut open: Opener) -> Result<(), StoreError> {
    let views = open()?;
    checkpoint(views.as_ref(), 1, vec![row("a", 1)], vec![1])?;
    assert!(checkpoint(views.as_ref(), 2, vec![row("b", 1), row("a", 1)], vec![2]).is_err());
    assert_eq!((views.position(), views.meta()), (Position(1), vec![1]));
    assert_eq!(scan(views.as_ref(), "", "~")?, vec![row("a", 1)]);
    checkpoint(views.as_ref(), 2, vec![row("a", 1), row("b", 1)], vec![2])?;
    assert_eq!(scan(views.as_ref(), "", "~")?, vec![row("a", 2), row("b", 1)]);
    Ok(())
}

/// Enough checkpoints that runs are merged, with names replaced and rows taken back in between.
fn many_checkpoints(mut open: Opener) -> Result<(), StoreError> {
    let mut views = open()?;
    let rounds = 60_u64;
    for round in 0..rounds {
        let entries: Vec<_> = (round * 50..round * 50 + 100)
            .map(|n| (name(n), entry(n, round + 1)))
            .collect();
        views.remember(&entries)?;
        views.begin_checkpoint()?;
        let rows = vec![
            row(
                &format!("gone {:03}", round / 2),
                if round % 2 == 0 { 1 } else { -1 },
            ),
            row(&format!("kept {round:03}"), 1),
            row("sum", 1),
        ];
        checkpoint(views.as_ref(), round + 1, rows, round.to_le_bytes().to_vec())?;
        if round % 17 == 16 {
            drop(views);
            views = open()?;
        }
    }
    assert_eq!(views.position(), Position(rounds));
    let last = rounds * 50 + 50;
    let names: Vec<_> = (0..last + 1_000).map(name).collect();
    for (n, found) in views.probe(&names)?.into_iter().enumerate() {
        let n = n as u64;
        let expected = (n < last).then(|| entry(n, (n / 50).min(rounds - 1) + 1));
        assert_eq!(found, expected, "name {n}");
    }
    let rows = scan(views.as_ref(), "", "~")?;
    let mut expected: Vec<Row> = (0..rounds)
        .map(|round| row(&format!("kept {round:03}"), 1))
        .collect();
    expected.push(row("sum", rounds.cast_signed()));
    assert_eq!(rows, expected);
    Ok(())
}

/// The rows of a range, read in every way there is.
fn scan(views: &dyn Views, from: &str, until: &str) -> Result<Vec<Row>, StoreError> {
    read(views.rows().as_ref(), from.as_bytes(), until.as_bytes())
}

/// Rows of [`AddValues`] with keys from `from` until before `until`: forwards, and backwards and by their summands the same.
pub fn read(rows: &dyn Rows, from: &[u8], until: &[u8]) -> Result<Vec<Row>, StoreError> {
    let keys = || from.to_vec()..until.to_vec();
    let forward: Vec<Row> = rows.scan(keys()).collect::<Result<_, _>>()?;
    let mut back: Vec<Row> = rows.scan_back(keys()).collect::<Result<_, _>>()?;
    back.reverse();
    assert_eq!(forward, back, "backwards is forwards reversed");
    let behind = |key: &[u8]| [key, &[0]].concat();
    let all = summed(rows, from..until, |_| Next::Row)?;
    assert_eq!(all, forward, "summands add up to the rows");
    let jumps = summed(rows, from..until, |key| Next::At(behind(key)))?;
    assert_eq!(jumps, forward, "a jump to the next key misses none");
    let middle = forward.get(forward.len() / 2).map_or(from, |row| &row.key);
    let far = summed(rows, from..until, |key| {
        if key < middle {
            Next::At(middle.to_vec())
        } else {
            Next::Row
        }
    })?;
    let jumped = |row: &&Row| *row.key >= *middle;
    let expected: Vec<Row> = forward.iter().filter(jumped).cloned().collect();
    assert_eq!(far.iter().filter(jumped).cloned().collect::<Vec<_>>(), expected);
    let mut first = Vec::new();
    rows.summands(from..until, &mut |key, _| {
        first.push(key.to_vec());
        Ok(Next::End)
    })?;
    let least = forward.first().map(|row| &row.key);
    assert!(
        least.is_none_or(|least| first.iter().any(|key| key <= least)),
        "each sequence begins with its first"
    );
    Ok(forward)
}

/// The sums of all summands that are given where `next` says which comes next.
fn summed(rows: &dyn Rows, keys: Range<&[u8]>, next: impl Fn(&[u8]) -> Next) -> Result<Vec<Row>, StoreError> {
    let mut sums = BTreeMap::<Vec<u8>, i64>::new();
    rows.summands(keys.clone(), &mut |key, value| {
        assert!(keys.contains(&key), "within the keys");
        let sum = sums.entry(key.to_vec()).or_default();
        *sum = sum.wrapping_add(number(value)?);
        Ok(next(key))
    })?;
    let left = sums.into_iter().filter(|(_, sum)| *sum != 0);
    let row = |(key, sum): (Vec<u8>, i64)| Row {
        key,
        value: sum.to_le_bytes().to_vec(),
    };
    Ok(left.map(row).collect())
}
