//! The model, a scenario of which each checkpoint is known, and random histories.

use std::collections::BTreeMap;

use proptest::prelude::*;
use turnpike_domain::port::views::Row;

use super::*;
use crate::contract::views::{checkpoint, entry, name, read, row};

/// What the views should hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Model {
    pub(super) ids: BTreeMap<u64, (u64, u64)>,
    pub(super) rows: BTreeMap<String, i64>,
    pub(super) meta: Vec<u8>,
}

impl Model {
    pub(super) fn add(&mut self, key: &str, value: i64) {
        let sum = self.rows.entry(key.to_owned()).or_default();
        *sum += value;
        if *sum == 0 {
            self.rows.remove(key);
        }
    }

    /// Panics where the views differ.
    pub(super) fn check(&self, views: &EmbeddedViews, names: u64) {
        let asked: Vec<_> = (0..names).map(name).collect();
        let found = views.probe(&asked).unwrap();
        for (number, found) in (0..).zip(found) {
            let expected = self
                .ids
                .get(&number)
                .map(|(digest, position)| entry(*digest, *position));
            assert_eq!(found, expected, "name {number}");
        }
        assert_eq!(views.meta(), self.meta);
        self.check_rows(views, "", "~");
    }

    pub(super) fn check_rows(&self, views: &EmbeddedViews, from: &str, until: &str) {
        let expected: Vec<Row> = self
            .rows
            .iter()
            .filter(|(key, _)| key.as_str() >= from && key.as_str() < until)
            .map(|(key, value)| row(key, *value))
            .collect();
        let found = read(views.rows().as_ref(), from.as_bytes(), until.as_bytes()).unwrap();
        assert_eq!(found, expected);
    }
}

/// Rounds of the scenario: enough for two merges of both kinds.
pub(super) const ROUNDS: u64 = 18;
/// Names that the scenario may use, and some more.
pub(super) const NAMES: u64 = ROUNDS * 10 + 50;

/// What round `round` adds.
fn additions(round: u64) -> (Vec<u64>, Vec<Row>, Vec<u8>) {
    let mut rows = vec![
        row(
            &format!("one {:03}", round / 2),
            if round.is_multiple_of(2) { 5 } else { -5 },
        ),
        row("sum", round as i64),
    ];
    rows.extend((0..40).map(|n| row(&format!("wide {:03}", n * round % 97), 1)));
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    let meta = vec![round as u8; if round.is_multiple_of(3) { 20_000 } else { 10 }];
    ((round * 10..round * 10 + 30).collect(), rows, meta)
}

/// What is there after each round; the first is the state before any.
pub(super) fn checkpoints() -> Vec<Model> {
    let mut states = vec![Model::default()];
    for round in 1..=ROUNDS {
        let mut model = states[round as usize - 1].clone();
        let (ids, rows, meta) = additions(round);
        for id in ids {
            model.ids.insert(id, (id, round));
        }
        for Row { key, value } in rows {
            let value = i64::from_le_bytes(value.try_into().unwrap());
            model.add(std::str::from_utf8(&key).unwrap(), value);
        }
        model.meta = meta;
        states.push(model);
    }
    states
}

/// Remembers what belongs to `round`.
pub(super) fn remember(views: &EmbeddedViews, round: u64) -> Result<(), StoreError> {
    let entries: Vec<_> = additions(round)
        .0
        .into_iter()
        .map(|id| (name(id), entry(id, round)))
        .collect();
    views.remember(&entries)?;
    views.begin_checkpoint()
}

/// Takes the checkpoint of `round`.
pub(super) fn finish(views: &EmbeddedViews, round: u64) -> Result<(), StoreError> {
    let (_, rows, meta) = additions(round);
    checkpoint(views, round, rows, meta)
}

/// Plays the rounds behind the views' position; tells the last one whose checkpoint was acknowledged to `acknowledged`.
pub(super) fn play(views: &EmbeddedViews, mut acknowledged: impl FnMut(u64)) -> Result<(), StoreError> {
    for round in views.position().0 + 1..=ROUNDS {
        remember(views, round)?;
        finish(views, round)?;
        acknowledged(round);
        views.merge_all()?;
    }
    Ok(())
}

#[derive(Debug, Clone)]
enum Step {
    Remember(Vec<(u64, u64)>),
    Checkpoint(Vec<(u16, i64)>),
    Begin,
    Merge,
    Kill,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => prop::collection::vec((0_u64..400, any::<u64>()), 0..60).prop_map(Step::Remember),
        8 => prop::collection::vec((0_u16..300, -2_i64..3), 0..60).prop_map(Step::Checkpoint),
        1 => Just(Step::Begin),
        2 => Just(Step::Merge),
        1 => Just(Step::Kill),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 0..80)
}

/// Plays random steps on the views and on the model.
fn random_history(steps: Vec<Step>, seed: u64) {
    let mut disk = FaultDisk::new(seed);
    let mut views = open_on(&disk, FailPoints::default()).unwrap();
    let (mut now, mut saved) = (Model::default(), Model::default());
    // Ids that a checkpoint takes with it: those remembered before it began.
    let mut frozen = BTreeMap::new();
    for (at, step) in (1_u64..).zip(steps) {
        match step {
            Step::Remember(ids) => {
                let entries: Vec<_> = ids.iter().map(|(id, d)| (name(*id), entry(*d, at))).collect();
                views.remember(&entries).unwrap();
                now.ids.extend(ids.iter().map(|(id, d)| (*id, (*d, at))));
            }
            Step::Begin => {
                views.begin_checkpoint().unwrap();
                frozen.clone_from(&now.ids);
            }
            Step::Checkpoint(rows) => {
                let mut added: Vec<_> = rows
                    .iter()
                    .map(|(key, value)| row(&format!("{key:05}"), *value))
                    .collect();
                // A lone zero is a row; the model knows only sums, so it is left out.
                added.retain(|row| row.value != 0_i64.to_le_bytes());
                added.sort_by(|a, b| a.key.cmp(&b.key));
                checkpoint(views.as_ref(), at, added, at.to_le_bytes().to_vec()).unwrap();
                for (key, value) in &rows {
                    now.add(&format!("{key:05}"), *value);
                }
                now.meta = at.to_le_bytes().to_vec();
                saved = Model {
                    ids: frozen.clone(),
                    ..now.clone()
                };
            }
            Step::Merge => {
                views.merge_all().unwrap();
            }
            Step::Kill | Step::Crash => {
                drop(views);
                disk = if matches!(step, Step::Kill) {
                    disk.kill()
                } else {
                    disk.crash()
                };
                views = open_on(&disk, FailPoints::default()).unwrap();
                now = saved.clone();
                frozen.clone_from(&now.ids);
                views.verify().unwrap();
            }
        }
    }
    now.check(&views, 420);
    now.check_rows(&views, "00050", "00150");
    views.verify().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]
    #[test]
    fn random_histories_agree_with_the_model(steps in steps(), seed in any::<u64>()) {
        random_history(steps, seed);
    }

    #[test]
    fn scans_agree_with_the_model(
        runs in prop::collection::vec(prop::collection::btree_map("[ab]{0,6}", -2_i64..3, 0..200), 0..12),
        from in "[ab]{0,6}", until in "[ab]{0,6}", padding in 0_usize..2_000,
    ) {
        // Long keys, so that rows fill several blocks.
        let padding = "x".repeat(padding);
        let disk = FaultDisk::new(0);
        let views = open_on(&disk, FailPoints::default()).unwrap();
        let mut model = Model::default();
        for (at, run) in (1..).zip(&runs) {
            let rows: Vec<_> = run.iter().filter(|(_, value)| **value != 0).map(|(key, value)| row(&format!("{key}{padding}"), *value)).collect();
            let mut rows = rows;
            rows.sort_by(|a, b| a.key.cmp(&b.key));
            checkpoint(views.as_ref(), at, rows, vec![]).unwrap();
            for (key, value) in run { model.add(&format!("{key}{padding}"), *value); }
        }
        model.check_rows(&views, &from, &until);
        model.check_rows(&views, "", "~");
        views.merge_all().unwrap();
        model.check_rows(&views, &from, &until);
    }
}

#[test]
fn what_is_gone_takes_no_space() {
    let disk = FaultDisk::new(0);
    let views = open_on(&disk, FailPoints::default()).unwrap();
    let rows = |value| {
        (0..2_000)
            .map(|n| row(&format!("{n:05}"), value))
            .collect::<Vec<_>>()
    };
    for at in 1..=8 {
        let value = if at % 2 == 0 { -7 } else { 7 };
        checkpoint(views.as_ref(), at, rows(value), vec![]).unwrap();
    }
    assert_eq!(views.merge_all().unwrap(), 1);
    assert_eq!(views.stats().disk_bytes, 0);
    assert!(views.rows().scan(vec![]..b"~".to_vec()).next().is_none());
    drop(views);
    let views = open_on(&disk.crash(), FailPoints::default()).unwrap();
    assert_eq!(views.position(), Position(8));
    assert_eq!(views.stats().disk_bytes, 0);
}

#[test]
fn files_of_old_versions_go_when_the_last_reader_has_gone() {
    let directory = tempfile::tempdir().unwrap();
    let views = open_real(&options(directory.path()), FailPoints::default()).unwrap();
    let files = || {
        std::fs::read_dir(directory.path().join("partition-00003"))
            .unwrap()
            .count()
    };
    play(&views, |_| {}).unwrap();
    checkpoint(views.as_ref(), 100, vec![row("a", 1)], vec![]).unwrap();
    let before = files();
    let snapshot = views.rows();
    for at in 101..=116 {
        checkpoint(views.as_ref(), at, vec![row("a", 1)], vec![]).unwrap();
    }
    assert!(views.merge_all().unwrap() > 0);
    let held = files();
    drop(snapshot);
    assert!(files() < held, "the snapshot held files");
    assert!(files() <= before, "{} files, {before} before", files());
}

#[test]
fn too_many_runs_are_merged_by_the_checkpoint_itself() {
    let disk = FaultDisk::new(0);
    let views = open_on(&disk, FailPoints::default()).unwrap();
    for at in 1..=200 {
        views.remember(&[(name(at), entry(at, at))]).unwrap();
        views.begin_checkpoint().unwrap();
        checkpoint(views.as_ref(), at, vec![row("sum", 1)], vec![]).unwrap();
        assert!(views.store.version().ids.len() <= policy::RUNS_MAX);
        assert!(views.store.version().rows.len() <= policy::RUNS_MAX);
    }
    let mut model = Model::default();
    model.ids.extend((1..=200).map(|n| (n, (n, n))));
    model.add("sum", 200);
    model.check(&views, 250);
}
