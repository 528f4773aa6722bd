//! R26: the machine is lost, and a backup that was taken under load is restored elsewhere.

mod load;
mod places;
mod refused;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use turnpike_tests::app::{self, App, AppOptions, Ended};
use turnpike_tests::commerce::START;
use turnpike_tests::run::{seed, times};

use load::{Load, Tape, steps_kept};

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// Begins to take a backup in a process of its own.
fn begin(data: &Path, target: &Path, more: &[&str]) -> Child {
    Command::new(BINARY)
        .args(["backup", &text(target), "--data-dir", &text(data), "--json"])
        .args(more)
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts")
}

/// What a backup that succeeded said.
fn ended(child: Child) -> Value {
    let output = child.wait_with_output().expect("it ends");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{error}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn restore(backup: &Path, data: &Path) -> Ended {
    let arguments = ["restore", &text(backup), "--data-dir", &text(data), "--json"];
    app::run(BINARY, Path::new("/"), &arguments)
}

/// Restores a backup that is whole; how long that took.
fn restored(backup: &Path, data: &Path) -> Duration {
    let ended = restore(backup, data);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.error);
    let told: Value = serde_json::from_str(&ended.out).expect("JSON");
    Duration::from_millis(told["took_ms"].as_u64().expect("a time"))
}

/// What a round found.
#[derive(Debug, Default)]
struct Found {
    /// Steps that were taken while backups were.
    beside: u64,
    /// Steps that were acknowledged and lost with the machine.
    lost: u64,
    /// Bytes that backups share with the data directory.
    linked: u64,
    slowest_restore: Duration,
    slowest_start: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r26_the_machine_is_lost_and_a_backup_restored() {
    let seed = seed("--test backup r26_the_machine", 26);
    let directory = tempfile::tempdir().expect("a directory");
    let mut data = directory.path().join("data-0");
    let mut app = App::start_with(AppOptions::small(BINARY, &data)).await;
    let lab_key = app
        .tenant(&json!({"key": "lab", "test": true, "clock": START}))
        .await;
    let tape = Tape::default();
    let mut load = Load::begin(seed, &app, &tape.record(app.caller(&lab_key))).await;
    let (mut found, rounds) = (Found::default(), times(4, 60));
    for round in 1..=rounds {
        for _ in 0..60 {
            load.step(&app, &tape.record(app.caller(&lab_key)), false).await;
        }
        let (acknowledged, target) = (load.steps, directory.path().join(format!("backup-{round}")));
        let more: &[&str] = if round % 2 == 0 { &["--copy"] } else { &[] };
        let mut child = begin(&data, &target, more);
        while child.try_wait().expect("a state").is_none() {
            load.step(&app, &tape.record(app.caller(&lab_key)), false).await;
        }
        let told = ended(child);
        found.beside += load.steps - acknowledged;
        found.linked += told["linked_bytes"].as_u64().expect("bytes");
        for _ in 0..20 {
            load.step(&app, &tape.record(app.caller(&lab_key)), false).await;
        }
        app.kill();
        std::fs::remove_dir_all(&data).expect("the machine is lost");
        data = directory.path().join(format!("data-{round}"));
        found.slowest_restore = found.slowest_restore.max(restored(&target, &data));
        let began = Instant::now();
        app = App::start_with(AppOptions::small(BINARY, &data)).await;
        found.slowest_start = found.slowest_start.max(began.elapsed());
        let kept = steps_kept(&app).await;
        assert!(
            (acknowledged..=load.steps).contains(&kept),
            "{acknowledged} steps were acknowledged before the backup began, {kept} are there"
        );
        found.lost += load.steps - kept;
        load = load.led_back(kept, &tape).await;
        // The step that was under way at the backup's instant is there, or a part of it, or nothing.
        load.step(&app, &tape.record(app.caller(&lab_key)), true).await;
        load.verify(&app, &app.caller(&lab_key)).await;
    }
    // From there on clients have sent again what was lost, and it was accepted once.
    load.verify(&app, &app.caller(&lab_key)).await;
    assert_eq!(app.terminate().0, Some(0));
    app.offline("doctor");
    assert_eq!(app.offline("rebuild")["different"], 0);
    println!(
        "injected {rounds} losses of the machine, with {found:?}; {} events; {:?}",
        load.events(),
        load.commerce.counts
    );
    assert!(found.beside > 0, "vacuous: nothing was done beside a backup");
    assert!(found.lost > 0 && found.linked > 0, "vacuous: {found:?}");
    let invoices = load.commerce.counts.get("invoices");
    assert!(
        invoices.is_some_and(|count| *count > 0),
        "vacuous: nothing was billed"
    );
}

/// A server with some usage, and how many events.
async fn small(data: &Path) -> (App, u64) {
    let app = App::start_with(AppOptions::small(BINARY, data)).await;
    let meter = json!({"event_type": "t", "aggregation": "count"});
    app.admin().put("/v1/meters/count", &meter).await;
    let mut random = StdRng::seed_from_u64(3);
    for batch in 0..8 {
        let event = |at: u32, noise: u128| json!({"id": format!("{batch}-{at}"), "source": "s", "type": "t", "subject": "a", "time": "2026-01-15T00:00:00Z", "data": {"noise": noise.to_string()}});
        let events: Vec<_> = (0..400).map(|at| event(at, random.random())).collect();
        let (status, answer) = app.admin().post("/v1/events", &json!(events)).await;
        assert_eq!(status, 200, "{answer}");
    }
    (app, 8 * 400)
}

/// Segments are deleted beside backups: each has all that is counted, and the last one begins where the log does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_beside_retention_has_all_that_was_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let (mut app, events) = small(&data).await;
    assert_eq!(app.terminate().0, Some(0));
    let mut options = AppOptions::small(BINARY, &data);
    options.set("TURNPIKE_ENGINE_RETENTION_DAYS", "30");
    options.set("TURNPIKE_ENGINE_RETENTION_CHECK_INTERVAL_S", "1");
    let mut app = App::start_with(options).await;
    let (began, mut first, mut taken) = (Instant::now(), 0, 0);
    while first == 0 && began.elapsed() < Duration::from_secs(20) {
        taken += 1;
        let target = directory.path().join(format!("backup-{taken}"));
        let more: &[&str] = if taken % 2 == 0 { &[] } else { &["--copy"] };
        let told = ended(begin(&data, &target, more));
        first = told["log"]["first"].as_u64().expect("an offset");
        assert_whole(&target, directory.path(), events).await;
    }
    println!("took {taken} backups; the log of the last one begins at {first}");
    assert!(first > 0, "vacuous: nothing was deleted");
    app.kill();
}

/// Restores a backup and looks at what it has.
async fn assert_whole(backup: &Path, directory: &Path, events: u64) {
    let data = directory.join("restored");
    restored(backup, &data);
    let mut app = App::start_with(AppOptions::small(BINARY, &data)).await;
    let found = app.admin().total("count", "").await;
    assert_eq!(found, Some(events.to_string()));
    app.kill();
    std::fs::remove_dir_all(&data).expect("removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r26_a_backup_that_is_killed_is_not_taken_for_whole() {
    let mut random = StdRng::seed_from_u64(seed("--test backup r26_a_backup", 27));
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let (mut app, events) = small(&data).await;
    let began = Instant::now();
    ended(begin(&data, &directory.path().join("first"), &["--copy"]));
    let took = began.elapsed();
    let (mut cut_off, kills) = (0, times(20, 300));
    let target: PathBuf = directory.path().join("killed");
    for round in 0..kills {
        let mut child = begin(&data, &target, &["--copy"]);
        tokio::time::sleep(took.mul_f64(random.random_range(0.0..1.1))).await;
        child.kill().expect("killed");
        child.wait().expect("it ends");
        // It held up nobody: a change goes through at once.
        let feature = json!({"kind": "boolean", "name": format!("round {round}")});
        app.admin().put("/v1/features/changed", &feature).await;
        if target.exists() {
            assert_whole(&target, directory.path(), events).await;
            std::fs::remove_dir_all(&target).expect("removed");
            continue;
        }
        cut_off += 1;
        let incomplete = directory.path().join("killed.incomplete");
        let other = directory.path().join("other");
        for (place, complete) in [
            (&target, false),
            (&incomplete, incomplete.join("backup.json").exists()),
        ] {
            if !complete {
                let refused = restore(place, &other);
                assert_eq!(refused.code, Some(2), "{}{}", refused.out, refused.error);
                assert!(
                    refused.error.contains("is no backup") && !other.exists(),
                    "{}",
                    refused.error
                );
            }
        }
    }
    println!("injected {kills} kills, {cut_off} of them before the backup was there");
    assert!(cut_off * 4 > kills, "vacuous: {cut_off} backups were cut off");
    // What they left is not in the way of the next one.
    ended(begin(&data, &target, &[]));
    assert_whole(&target, directory.path(), events).await;
    assert!(!directory.path().join("killed.incomplete").exists());
    app.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r26_a_restore_that_is_killed_begins_anew() {
    let mut random = StdRng::seed_from_u64(seed("--test backup r26_a_restore", 28));
    let directory = tempfile::tempdir().expect("a directory");
    let (data, target) = (directory.path().join("data"), directory.path().join("backup"));
    let (mut app, events) = small(&data).await;
    ended(begin(&data, &target, &[]));
    app.kill();
    let to = directory.path().join("to");
    let took = restored(&target, &to).max(Duration::from_millis(20));
    std::fs::remove_dir_all(&to).expect("removed");
    let (mut cut_off, kills) = (0, times(12, 200));
    for _ in 0..kills {
        let mut child = Command::new(BINARY)
            .args(["restore", &text(&target), "--data-dir", &text(&to)])
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        tokio::time::sleep(took.mul_f64(random.random_range(0.2..1.2))).await;
        child.kill().expect("killed");
        child.wait().expect("it ends");
        if !to.join("restore.incomplete").exists() {
            // Before it began, or behind its end.
            let _ = std::fs::remove_dir_all(&to);
            continue;
        }
        cut_off += 1;
        let place = text(&to);
        let served = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &place];
        let refused = app::run(BINARY, Path::new("/"), &served);
        assert_eq!(refused.code, Some(1), "{}", refused.error);
        assert!(refused.error.contains("was interrupted"), "{}", refused.error);
    }
    println!("injected {kills} kills, {cut_off} of them in a restore");
    assert!(cut_off > 0, "vacuous: no restore was cut off");
    restored(&target, &to);
    let mut app = App::start_with(AppOptions::small(BINARY, &to)).await;
    assert_eq!(app.admin().total("count", "").await, Some(events.to_string()));
    app.kill();
}
