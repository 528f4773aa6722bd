//! R1 and R2: the process is killed at random instants and at every fail point; what was acknowledged counts once.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use turnpike_stores::fault::POINTS;
use turnpike_tests::app::{App, AppOptions, Caller, signal};
use turnpike_tests::commerce::{Commerce, START, Step};
use turnpike_tests::oracle::OracleEvent;
use turnpike_tests::run::{seed, times};
use turnpike_tests::workload::{Correction, MONTH_QUERY, Workload, declare};

/// The fail point behind the deletion of a segment.
const DELETED: &str = "log.segment_deleted";
const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");

/// Within what a server must be ready again that has so many events to replay: the promised 5 s for a million, ten times that
/// for an unoptimised build on a machine that does other things too, and what any start may take there.
fn ready_within(events: usize) -> Duration {
    Duration::from_secs(10) + Duration::from_micros(5 * 10) * u32::try_from(events).expect("a count")
}

/// What had no answer when the server died.
enum Unanswered {
    Batch(Vec<OracleEvent>),
    Correction(Correction),
    Business(Step),
}

/// Works until the server dies: usage and corrections of one tenant, quotas and billing of another.
async fn work(
    (workload, commerce): (&mut Workload, &mut Commerce),
    (caller, lab): (&Caller, &Caller),
    random: &mut StdRng,
) -> Unanswered {
    loop {
        let batch = workload.batch(random.random_range(1..200));
        if !workload.send(caller, &batch, false).await {
            return Unanswered::Batch(batch);
        }
        if let Some(correction) = workload.correction()
            && !workload.correct(caller, &correction).await
        {
            return Unanswered::Correction(correction);
        }
        for _ in 0..4 {
            let step = commerce.next_step();
            if !commerce.take(lab, &step, false).await {
                return Unanswered::Business(step);
            }
        }
    }
}

/// Works until the server is killed, and does what was not answered again once it is back. How long it took to be ready.
async fn load_until(
    (workload, commerce): (&mut Workload, &mut Commerce),
    app: &mut App,
    lab_key: &str,
    random: &mut StdRng,
    stop: Duration,
) -> Duration {
    let pid = app.pid();
    let killer = tokio::spawn(async move {
        tokio::time::sleep(stop).await;
        assert!(signal(pid, "KILL"), "vacuous: it ended before it was killed");
    });
    let callers = (&app.admin(), &app.caller(lab_key));
    let unanswered = work((workload, commerce), callers, random).await;
    killer.await.expect("the killer ends");
    let ready = app.restart().await;
    let done = match &unanswered {
        Unanswered::Batch(batch) => workload.send(&app.admin(), batch, true).await,
        Unanswered::Correction(correction) => workload.correct(&app.admin(), correction).await,
        Unanswered::Business(step) => commerce.take(&app.caller(lab_key), step, true).await,
    };
    assert!(done, "the server is back");
    ready
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_killed_at_random_instants() {
    let seed = seed("--test crash r1_killed_at", 1);
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = AppOptions::new(BINARY, directory.path());
    // Some restarts replay the log behind a checkpoint, some have nothing else.
    options.set("TURNPIKE_ENGINE_CHECKPOINT_EVENTS", "2000");
    let mut app = App::start_with(options).await;
    declare(&app.admin()).await;
    let lab_key = app
        .tenant(&json!({"key": "lab", "test": true, "clock": START}))
        .await;
    let mut commerce = Commerce::open(seed, &app.caller(&lab_key)).await;
    let (mut workload, mut random) = (Workload::new(seed), StdRng::seed_from_u64(seed ^ 0xdead));
    let (kills, mut slowest) = (times(50, 1_000), Duration::ZERO);
    for round in 0..kills {
        let stop = Duration::from_millis(random.random_range(20..700));
        let ready = load_until(
            (&mut workload, &mut commerce),
            &mut app,
            &lab_key,
            &mut random,
            stop,
        )
        .await;
        slowest = slowest.max(ready);
        if round % 10 == 9 && round + 1 < kills {
            workload.verify(&app.admin()).await;
            commerce.verify(&app.caller(&lab_key)).await;
        }
    }
    workload.verify(&app.admin()).await;
    commerce.verify(&app.caller(&lab_key)).await;
    // R19: the views that grew through all kills are those that the log gives.
    assert_eq!(app.terminate().0, Some(0));
    assert_eq!(app.offline("rebuild")["different"], 0);
    println!(
        "injected {kills} kills; ready again in {slowest:?} at the most; {:?}; {} ids; {:?}",
        workload.counts,
        workload.oracle.len(),
        commerce.counts
    );
    let count = |what: &str| commerce.counts.get(what).copied().unwrap_or(0);
    assert!(
        workload.oracle.len() > kills && count("consumes") > 50 && count("invoices") > 3,
        "vacuous: hardly anything was acknowledged"
    );
    // What no checkpoint holds is less than two checkpoints' worth.
    assert!(slowest <= ready_within(4_000), "ready again in {slowest:?}");
}

/// Starts the server and kills it at an instant of the time that a start takes. Whether it was not yet ready.
async fn killed_in_its_start(data: &Path, after: Duration) -> bool {
    let log = tempfile::NamedTempFile::new().expect("a file");
    let errors = log.reopen().expect("the same file");
    let mut child = Command::new(BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(data)
        .env_clear()
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .expect("the server starts");
    tokio::time::sleep(after).await;
    let ended = child.try_wait().expect("a child");
    child.kill().expect("killed");
    child.wait().expect("it ends");
    let told = std::fs::read_to_string(log.path()).expect("its log");
    assert_eq!(ended, None, "it ended by itself: {told}");
    !told.contains("turnpike serves")
}

/// Starts that are killed, one behind the other, leave a directory that the next start takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_killed_while_it_starts() {
    let seed = seed("--test crash r1_killed_while", 5);
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start_with(AppOptions::small(BINARY, directory.path())).await;
    declare(&app.admin()).await;
    let (mut workload, mut random) = (Workload::new(seed), StdRng::seed_from_u64(seed));
    let (mut cut_off, kills) = (0, times(24, 500));
    // As this machine is now: two of three instants lie within a start.
    let mut start = app.restart().await;
    for round in 0..kills {
        if round % 4 == 0 {
            let batch = workload.batch(100);
            assert!(workload.send(&app.admin(), &batch, false).await);
            app.kill();
        }
        let after = start.mul_f64(random.random_range(0.0..1.5));
        cut_off += usize::from(killed_in_its_start(app.directory(), after).await);
        if round % 4 == 3 {
            start = app.restart().await;
            workload.verify(&app.admin()).await;
        }
    }
    println!("injected {kills} kills, {cut_off} of them before it was ready");
    assert!(cut_off * 4 > kills, "vacuous: {cut_off} starts were cut off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r1_ready_in_time_behind_a_log_that_no_checkpoint_holds() {
    let events = times(50_000, 300_000);
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = AppOptions::new(BINARY, directory.path());
    options.set("TURNPIKE_ENGINE_CHECKPOINT_EVENTS", "10000000");
    options.set("TURNPIKE_ENGINE_CHECKPOINT_INTERVAL_S", "86400");
    let mut app = App::start_with(options).await;
    declare(&app.admin()).await;
    let mut workload = Workload::new(seed("--test crash r1_ready", 4));
    while workload.oracle.len() < events {
        let batch: Vec<_> = (0..2_000).map(|_| workload.fresh()).collect();
        assert!(workload.send(&app.admin(), &batch, false).await);
    }
    let ready = app.restart().await;
    println!("injected a kill behind {events} events that no checkpoint held; ready again in {ready:?}");
    assert!(ready <= ready_within(events), "ready again in {ready:?}");
    workload.verify(&app.admin()).await;
}

/// Works with a point armed until the server dies of it; false when it lives through all of it.
async fn dies_at(point: &str, workload: &mut Workload, app: &mut App, random: &mut StdRng) -> bool {
    if !app.restart_armed(point).await {
        assert!(app.died_at(point), "{point}: it ended of something else");
        app.restart().await;
        return true;
    }
    for round in 0..60 {
        let size = random.random_range(1..400);
        let batch = workload.batch(size);
        let caller = app.admin();
        // A change of the control store, for its fail points; repeated after the crash, and the same then.
        let feature = serde_json::json!({"kind": "boolean", "name": format!("{point} {round}")});
        let path = "/v1/features/crashed";
        let changed = caller.send(reqwest::Method::PUT, path, Some(&feature)).await;
        if changed.is_some() && workload.send(&caller, &batch, false).await {
            continue;
        }
        assert!(
            app.ends_within(Duration::from_secs(10)),
            "{point}: no answer, but the server lives"
        );
        assert!(app.died_at(point), "{point}: it ended of something else");
        app.restart().await;
        let caller = app.admin();
        caller.put(path, &feature).await;
        assert!(workload.send(&caller, &batch, true).await, "the server is back");
        return true;
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_killed_at_every_fail_point() {
    let seed = seed("--test crash r2", 2);
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start_with(AppOptions::small(BINARY, directory.path())).await;
    declare(&app.admin()).await;
    let (mut workload, mut random) = (Workload::new(seed), StdRng::seed_from_u64(seed));
    let mut fired = Vec::new();
    // Retention would refuse the workload's events, which are of one January: that point has a test of its own.
    let points = || POINTS.iter().filter(|point| **point != DELETED);
    for point in points() {
        for nth in 1..=times(2, 20) {
            if dies_at(&format!("{point}:{nth}"), &mut workload, &mut app, &mut random).await {
                fired.push(*point);
            }
        }
        workload.verify(&app.admin()).await;
    }
    println!("injected {} crashes at {fired:?}", fired.len());
    let missed: Vec<_> = points().filter(|point| !fired.contains(point)).collect();
    assert!(missed.is_empty(), "never fired: {missed:?}");
}

/// Sends an array that is all or nothing; the answer, if one came.
async fn send_atomic(app: &App, events: u64) -> Option<(u16, serde_json::Value)> {
    let event = |id: u64| {
        serde_json::json!({"id": format!("atomic-{id}"), "source": "s", "type": "atomic", "subject": "a",
            "time": "2026-01-15T00:00:00Z"})
    };
    let batch = serde_json::Value::Array((0..events).map(event).collect());
    let path = "/v1/events?atomic=true";
    app.admin().send(reqwest::Method::POST, path, Some(&batch)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_an_atomic_batch_over_all_partitions_is_there_whole_or_not_at_all() {
    const EVENTS: u64 = 200;
    let (mut whole, mut none, mut points) = (0, 0, Vec::new());
    for point in POINTS.iter().filter(|point| point.starts_with("log.")) {
        for nth in 1..=4 {
            let directory = tempfile::tempdir().expect("a directory");
            let mut options = AppOptions::small(BINARY, directory.path());
            options.set("TURNPIKE_ENGINE_PARTITIONS", "4");
            let mut app = App::start_with(options).await;
            let meter = serde_json::json!({"event_type": "atomic", "aggregation": "count"});
            app.admin().put("/v1/meters/atomic", &meter).await;
            let armed = format!("{point}:{nth}");
            if !app.restart_armed(&armed).await {
                // It was killed before the log had noted the meter, so a start writes it first.
                assert!(app.died_at(&armed), "{armed}: it ended of something else");
                continue;
            }
            if send_atomic(&app, EVENTS).await.is_some() {
                // The point stands behind what one batch needs.
                continue;
            }
            assert!(
                app.ends_within(Duration::from_secs(10)) && app.died_at(&armed),
                "{armed}"
            );
            points.push(*point);
            app.restart().await;
            let kept = app.admin().total("atomic", MONTH_QUERY).await;
            match kept.as_deref() {
                Some("200") => whole += 1,
                None | Some("0") => none += 1,
                part => panic!("{point}:{nth} left {part:?} of {EVENTS} events"),
            }
            let (status, answer) = send_atomic(&app, EVENTS).await.expect("an answer");
            let known = answer["accepted"].as_u64().zip(answer["duplicates"].as_u64());
            assert_eq!(status, 200, "{answer}");
            assert!(
                known == Some((EVENTS, 0)) || known == Some((0, EVENTS)),
                "{answer}"
            );
        }
    }
    println!(
        "injected {} crashes at {points:?}: {whole} times whole, {none} times nothing",
        points.len()
    );
    assert!(whole > 0 && none > 2, "vacuous: {whole} whole, {none} none");
}

/// Files of the log's segments.
fn segments(app: &App) -> usize {
    let files = std::fs::read_dir(app.directory().join("log")).expect("the log");
    let names = files.map(|file| file.expect("a file").file_name());
    names
        .filter(|name| name.to_string_lossy().ends_with(".log"))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r2_killed_while_segments_are_deleted() {
    let seed = seed("--test crash r2_killed_while", 3);
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start_with(AppOptions::small(BINARY, directory.path())).await;
    declare(&app.admin()).await;
    let mut workload = Workload::new(seed);
    for _ in 0..40 {
        let batch = workload.batch(400);
        assert!(workload.send(&app.admin(), &batch, false).await);
        if let Some(correction) = workload.correction() {
            assert!(workload.correct(&app.admin(), &correction).await);
        }
    }
    let before = segments(&app);
    assert!(before > 4, "vacuous: {before} segments");
    app.set("TURNPIKE_ENGINE_RETENTION_DAYS", "30");
    app.set("TURNPIKE_ENGINE_RETENTION_CHECK_INTERVAL_S", "1");
    let mut fired = 0;
    for nth in 1..=2 {
        let point = format!("{DELETED}:{nth}");
        // It dies while it starts, or soon after.
        if app.restart_armed(&point).await {
            assert!(app.ends_within(Duration::from_secs(20)), "it deletes nothing");
        }
        assert!(app.died_at(&point), "{point}: it ended of something else");
        fired += 1;
    }
    app.restart().await;
    let begin = std::time::Instant::now();
    while segments(&app) > 1 && begin.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!(
        "injected {fired} crashes; {before} segments became {}",
        segments(&app)
    );
    assert!(segments(&app) + 3 <= before, "the rest goes after the restart");
    // Windows stay, through another kill too, and no sum is derived from the rest of the log.
    workload.verify(&app.admin()).await;
    app.restart().await;
    workload.verify(&app.admin()).await;
    the_past_is_closed(&app, &mut workload).await;
}

/// Events before the horizon are refused, however often they are sent, and a meter made now says what it lacks.
async fn the_past_is_closed(app: &App, workload: &mut Workload) {
    let caller = app.admin();
    let event = workload.batch(1).remove(0);
    let (status, body) = caller.post("/v1/events", &event.to_json()).await;
    assert_eq!((status, body["code"].as_str()), (422, Some("too_old")), "{body}");
    let late = serde_json::json!({"event_type": "llm.request", "aggregation": "count"});
    caller.put("/v1/meters/made-later", &late).await;
    let (status, usage) = caller
        .get(&format!("/v1/meters/made-later/usage?{MONTH_QUERY}"))
        .await;
    assert_eq!(
        (status, usage["complete"].as_bool()),
        (200, Some(false)),
        "{usage}"
    );
    assert!(usage["lacks_before"].is_string(), "{usage}");
    let (_, usage) = caller
        .get(&format!("/v1/meters/requests/usage?{MONTH_QUERY}"))
        .await;
    assert_eq!(usage["complete"], true, "{usage}");
    workload.verify(&caller).await;
}
