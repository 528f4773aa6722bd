//! Loss of power before every durable step, and every step failing: what is found afterwards is always one of the finished
//! checkpoints, and its position says which.

use super::model::{Model, NAMES, ROUNDS, checkpoints, finish, play, remember};
use super::*;
use crate::fault::{FaultCounts, Operation};

/// Opens the disk and checks that it holds exactly the checkpoint of its position, `acknowledged` or later.
fn reopen(disk: &FaultDisk, states: &[Model], acknowledged: u64) -> Arc<EmbeddedViews> {
    let views = open_on(disk, FailPoints::default()).unwrap();
    let position = views.position().0;
    assert!(
        position >= acknowledged,
        "checkpoint {acknowledged} was acknowledged, {position} is there"
    );
    states[position as usize].check(&views, NAMES);
    views.verify().unwrap();
    views
}

#[test]
fn power_lost_before_every_step() {
    let states = checkpoints();
    let mut counts = FaultCounts::default();
    for steps in 0.. {
        let disk = FaultDisk::new(steps);
        disk.cut_power_after(steps);
        let mut acknowledged = 0;
        let played = open_on(&disk, FailPoints::default())
            .and_then(|views| play(&views, |round| acknowledged = round));
        let disk = disk.crash();
        let views = reopen(&disk, &states, acknowledged);
        play(&views, |_| {}).unwrap();
        states[ROUNDS as usize].check(&views, NAMES);
        drop(views);
        // Files that no manifest names are gone, whatever the crash left.
        let last = disk.crash();
        let views = reopen(&last, &states, ROUNDS);
        assert_eq!(
            last.list(Path::new("/views/partition-00003")).unwrap().len(),
            views.store.version().files().count() + 1
        );
        counts += disk.counts();
        if played.is_ok() {
            assert!(steps > 200, "only {steps} steps");
            break;
        }
    }
    assert!(counts.lost_sectors > 0 && counts.lost_names > 0, "{counts}");
}

/// Plays all rounds, trying again what fails. Returns whether the views were poisoned.
fn play_on(views: &EmbeddedViews, states: &[Model], acknowledged: &mut u64) -> bool {
    for round in 1..=ROUNDS {
        remember(views, round).unwrap();
        let mut tries = 0;
        while let Err(error) = finish(views, round) {
            let old = &states[round as usize - 1];
            assert_eq!(
                (views.position(), views.meta()),
                (Position(round - 1), old.meta.clone()),
                "after an error the old checkpoint stands"
            );
            old.check_rows(views, "", "~");
            // The ids are still known.
            let known = Model {
                ids: states[round as usize].ids.clone(),
                ..old.clone()
            };
            known.check(views, NAMES);
            if matches!(error, StoreError::Poisoned(_)) {
                return true;
            }
            tries += 1;
            assert!(tries < 3, "{error}");
        }
        *acknowledged = round;
        if let Err(StoreError::Poisoned(_)) = views.merge_all() {
            return true;
        }
    }
    false
}

#[test]
fn every_operation_fails_once() {
    let states = checkpoints();
    let (mut counts, mut poisoned) = (FaultCounts::default(), 0);
    for operation in [
        Operation::Write,
        Operation::Sync,
        Operation::Create,
        Operation::Rename,
        Operation::Remove,
        Operation::SyncDirectory,
    ] {
        for before in 0.. {
            let disk = FaultDisk::new(before);
            let views = open_on(&disk, FailPoints::default()).unwrap();
            disk.fail(operation, before);
            let mut acknowledged = 0;
            poisoned += u32::from(play_on(&views, &states, &mut acknowledged));
            drop(views);
            let injected = disk.counts().errors;
            let views = reopen(&disk.crash(), &states, acknowledged);
            play(&views, |_| {}).unwrap();
            states[ROUNDS as usize].check(&views, NAMES);
            counts += disk.counts();
            if injected == 0 {
                assert!(before > 5, "only {before} of {operation:?}");
                break;
            }
        }
    }
    assert!(
        counts.errors > 200 && poisoned > 10,
        "{counts}, {poisoned} poisoned"
    );
}

#[test]
fn reads_that_fail_are_errors_and_no_answers() {
    let states = checkpoints();
    let disk = FaultDisk::new(0);
    let views = open_on(&disk, FailPoints::default()).unwrap();
    play(&views, |_| {}).unwrap();
    let names: Vec<_> = (0..30).map(crate::contract::views::name).collect();
    disk.fail(Operation::Read, 0);
    assert!(matches!(views.probe(&names), Err(StoreError::Failed(text)) if text.contains(".run")));
    views.store.cache.clear();
    disk.fail(Operation::Read, 0);
    let rows: Vec<_> = views.rows().scan(vec![]..b"~".to_vec()).collect();
    assert!(rows.last().unwrap().is_err(), "an iterator ends with its error");
    assert_eq!(disk.counts().errors, 2);
    states[ROUNDS as usize].check(&views, NAMES);
}

#[test]
fn a_full_disk_is_said_and_got_over() {
    let states = checkpoints();
    let disk = FaultDisk::new(0);
    let views = open_on(&disk, FailPoints::default()).unwrap();
    let mut full = 0;
    for round in 1..=ROUNDS {
        remember(&views, round).unwrap();
        let (free, all) = disk.space(Path::new("/")).unwrap();
        for left in [0, 100, 5_000, 10_000] {
            disk.set_capacity(all - free + left);
            match finish(&views, round) {
                Err(StoreError::Full(_)) => full += 1,
                Err(error) => panic!("{error}"),
                Ok(()) => break,
            }
            assert_eq!(views.position(), Position(round - 1));
        }
        disk.set_capacity(all);
        if views.position() < Position(round) {
            finish(&views, round).unwrap();
        }
    }
    assert!(full > 20 && disk.counts().full >= full, "{full}");
    states[ROUNDS as usize].check(&views, NAMES);
    drop(views);
    reopen(&disk.crash(), &states, ROUNDS);
}

#[test]
fn fail_points_leave_a_finished_checkpoint() {
    let states = checkpoints();
    for point in [
        "views.ids_written",
        "views.rows_written",
        "views.before_manifest",
        "views.after_manifest",
        "views.merged",
    ] {
        let mut fired = 0;
        for count in 1..=2 {
            let disk = FaultDisk::new(count);
            let fail = FailPoints::parse(&format!("{point}:{count}:error")).unwrap();
            let views = open_on(&disk, fail).unwrap();
            let mut acknowledged = 0;
            let played = play(&views, |round| acknowledged = round);
            fired += u32::from(played.is_err());
            drop(views);
            let views = reopen(&disk.crash(), &states, acknowledged);
            play(&views, |_| {}).unwrap();
            states[ROUNDS as usize].check(&views, NAMES);
        }
        assert_eq!(fired, 2, "{point} was not passed");
    }
}

/// The checkpoint is on disk, but its caller was told that it failed: a second try would add its rows twice.
#[test]
fn nothing_is_published_after_a_step_of_unknown_outcome() {
    let states = checkpoints();
    let disk = FaultDisk::new(0);
    let fail = FailPoints::parse("views.after_manifest:8:error").unwrap();
    let views = open_on(&disk, fail).unwrap();
    assert!(matches!(play(&views, |_| {}), Err(StoreError::Poisoned(_))));
    assert_eq!(views.position(), Position(7));
    for _ in 0..2 {
        assert!(matches!(finish(&views, 8), Err(StoreError::Poisoned(_))));
    }
    remember(&views, 9).unwrap();
    assert!(matches!(finish(&views, 9), Err(StoreError::Poisoned(_))));
    let known = Model {
        ids: states[9].ids.clone(),
        ..states[7].clone()
    };
    known.check(&views, NAMES);
    drop(views);
    let views = reopen(&disk.kill(), &states, 8);
    play(&views, |_| {}).unwrap();
    states[ROUNDS as usize].check(&views, NAMES);
}
