//! What the data directory promises, on the real binary: a full disk (R5), and directories that cannot be used.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use turnpike_tests::app::{self, ADMIN_KEY, App, AppOptions};
use turnpike_tests::compare::{Verdicts, assert_total, ndjson, query};
use turnpike_tests::instant::DAY_US;
use turnpike_tests::oracle::{Oracle, OracleEvent, OracleMeter, Select};
use turnpike_tests::run::{seed, times};
use turnpike_tests::workload::{MONTH_LEN_US, MONTH_US};

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");
/// Bytes of the small file system.
const DISK_BYTES: u64 = 48 * 1024 * 1024;

/// A file system of a bounded size in memory, taken away when it is dropped.
struct SmallDisk {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where it cannot be mounted; says so.
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("disk");
        std::fs::create_dir(&path).expect("a mount point");
        let size = format!("size={DISK_BYTES}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&path)
            .output();
        if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
            println!("SKIPPED: no tmpfs can be mounted here ({mounted:?}); R5 was not tried");
            return None;
        }
        Some(Self {
            path,
            _directory: directory,
        })
    }

    fn remount(&self, options: &str) {
        let done = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.path)
            .status();
        assert!(done.is_ok_and(|status| status.success()), "remount {options}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// Events that do not compress.
fn batch(random: &mut StdRng, first: u64, count: u64) -> Vec<OracleEvent> {
    let mut event = |id: u64| {
        let noise = (0..4_000).map(|_| char::from(random.random_range(b'a'..=b'z')));
        OracleEvent {
            source: "s".into(),
            id: format!("e{id}"),
            kind: "t".into(),
            subject: "a".into(),
            time_us: MONTH_US + 14 * DAY_US,
            data: json!({"noise": noise.collect::<String>()}),
        }
    };
    (first..first + count).map(&mut event).collect()
}

struct Sent {
    status: u16,
    retry_after: Option<String>,
    body: Value,
}

/// Sends events; the headers of the answer are looked at too. A batch that is taken is told to the oracle.
async fn send(app: &App, oracle: &mut Oracle, events: &[OracleEvent], again: bool) -> Sent {
    let request = reqwest::Client::new()
        .post(app.url("/v1/events"))
        .bearer_auth(ADMIN_KEY)
        .header("content-type", "application/x-ndjson")
        .body(ndjson(events));
    let answer = request.send().await.expect("an answer");
    let retry_after = answer.headers().get("retry-after");
    let retry_after = retry_after.map(|value| value.to_str().expect("text").to_owned());
    let sent = Sent {
        status: answer.status().as_u16(),
        retry_after,
        body: answer.json().await.expect("JSON"),
    };
    if sent.status == 200 {
        Verdicts::of(oracle, events).assert_said(&sent.body, again);
    }
    sent
}

fn meter() -> OracleMeter {
    OracleMeter {
        event_type: "t".into(),
        aggregation: "count".into(),
        ..OracleMeter::default()
    }
}

fn january() -> Select {
    Select {
        from_us: MONTH_US,
        to_us: MONTH_US + MONTH_LEN_US,
        ..Select::default()
    }
}

async fn declare(app: &App) {
    let meter = json!({"event_type": "t", "aggregation": "count"});
    app.admin().put("/v1/meters/count", &meter).await;
}

async fn verify(app: &App, oracle: &Oracle) {
    assert_total(&app.admin(), oracle, ("count", &meter()), &january()).await;
}

/// Sends batches until one is refused for want of space; that batch.
async fn fill(app: &App, random: &mut StdRng, oracle: &mut Oracle) -> Vec<OracleEvent> {
    for _ in 0..200 {
        let events = batch(random, oracle.len() as u64, 100);
        let sent = send(app, oracle, &events, false).await;
        if sent.status == 200 {
            continue;
        }
        let found = (sent.status, sent.body["code"].as_str());
        assert_eq!(found, (503, Some("storage_full")), "{}", sent.body);
        assert!(sent.retry_after.is_some(), "503 without Retry-After");
        return events;
    }
    panic!("the disk never became full");
}

/// Sends what was refused until it is taken, for 10 s at the most; how long it took.
async fn accepted_again(app: &App, oracle: &mut Oracle, refused: &[OracleEvent]) -> Duration {
    let begin = Instant::now();
    loop {
        let sent = send(app, oracle, refused, true).await;
        if sent.status == 200 {
            return begin.elapsed();
        }
        assert_eq!(sent.body["code"], "storage_full", "{}", sent.body);
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "still refuses: {}",
            sent.body
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_a_full_disk_refuses_and_loses_nothing() {
    let (mut random, fills) = (StdRng::seed_from_u64(seed("--test storage r5", 5)), times(2, 6));
    let Some(disk) = SmallDisk::mount() else { return };
    let data = disk.path.join("data");
    let mut app = App::start_with(AppOptions::small(BINARY, &data)).await;
    declare(&app).await;
    let mut oracle = Oracle::default();
    for fill_number in 1..=fills as u64 {
        let before = oracle.len();
        let refused = fill(&app, &mut random, &mut oracle).await;
        assert!(oracle.len() > before + 500, "vacuous: {} events", oracle.len());
        refused_wholly_or_taken_wholly(&app, &oracle, &refused).await;
        // It starts with a full disk too, and has everything.
        app.restart().await;
        refused_wholly_or_taken_wholly(&app, &oracle, &refused).await;
        disk.remount(&format!("size={}", DISK_BYTES * (fill_number + 1)));
        let took = accepted_again(&app, &mut oracle, &refused).await;
        println!("full with {} events; accepts again after {took:?}", oracle.len());
        verify(&app, &oracle).await;
        app.restart().await;
        verify(&app, &oracle).await;
    }
    println!("injected {fills} full disks");
    // One that cannot be written at all is refused at the start, by name.
    app.kill();
    disk.remount("ro");
    let (code, told) = serve(&data);
    assert_ne!(code, Some(0));
    assert!(
        told.contains(&data.display().to_string()) && told.contains("Read-only"),
        "{told}"
    );
}

/// What was answered 503 may have been taken, for the disk may have become full behind it; what was acknowledged is there.
async fn refused_wholly_or_taken_wholly(app: &App, oracle: &Oracle, refused: &[OracleEvent]) {
    let found = app.admin().total("count", &query(&january())).await;
    let found: usize = found.map_or(0, |text| text.parse().expect("a number"));
    let most = oracle.len() + refused.len();
    assert!(
        (oracle.len()..=most).contains(&found),
        "{} acknowledged, {found} counted",
        oracle.len()
    );
}

/// Starts the server where it must not start: exit code, and what it says.
fn serve(data: &Path) -> (Option<i32>, String) {
    run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        &data.display().to_string(),
    ])
}

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let ended = app::run(BINARY, Path::new("/"), arguments);
    (ended.code, ended.out + &ended.error)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_in_use_or_of_another_format_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let mut app = App::start(BINARY, &data).await;
    let (code, told) = serve(&data);
    assert_ne!(code, Some(0));
    assert!(told.contains("in use by another process"), "{told}");
    assert_eq!(
        app.admin().get("/v1/meters").await.0,
        200,
        "the first one lives on"
    );
    assert_eq!(app.terminate().0, Some(0));
    let format = data.join("format.toml");
    let text = std::fs::read_to_string(&format).expect("a format");
    std::fs::write(&format, text.replace("format_version = 1", "format_version = 9")).expect("written");
    let (code, told) = serve(&data);
    assert_ne!(code, Some(0));
    assert!(told.contains("format version 9"), "{told}");
}

/// Flips a byte in the middle of a file, for good.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(path, bytes).expect("written");
}

/// Flips a byte in the middle of a file, does something, and flips it back.
fn flipped<T>(path: &Path, at: impl Fn(usize) -> usize, work: impl FnOnce() -> T) -> T {
    let good = std::fs::read(path).expect("a file");
    let mut bad = good.clone();
    let at = at(good.len());
    bad[at] ^= 0x10;
    std::fs::write(path, &bad).expect("damaged");
    let found = work();
    std::fs::write(path, &good).expect("mended");
    found
}

/// The largest file below a directory whose name ends so.
fn largest(directory: &Path, end: &str) -> PathBuf {
    let found = files(directory)
        .into_iter()
        .filter(|path| path.to_string_lossy().ends_with(end));
    found
        .max_by_key(|path| path.metadata().expect("a file").len())
        .unwrap_or_else(|| panic!("no {end} file"))
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_and_named_and_a_good_directory_is_called_good() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let mut app = App::start_with(AppOptions::small(BINARY, &data)).await;
    declare(&app).await;
    let (mut random, mut oracle) = (
        StdRng::seed_from_u64(seed("--test storage damage", 4)),
        Oracle::default(),
    );
    for round in 0..10 {
        let events = batch(&mut random, round * 100, 100);
        let sent = send(&app, &mut oracle, &events, false).await;
        assert_eq!(sent.status, 200, "{}", sent.body);
    }
    assert_eq!(app.terminate().0, Some(0));
    let place = data.display().to_string();
    let doctor = || run(&["doctor", "--data-dir", &place]);
    let (code, told) = doctor();
    assert_eq!(code, Some(0), "{told}");
    for command in ["verify", "rebuild"] {
        let (code, told) = run(&[command, "--data-dir", &place]);
        assert_eq!(code, Some(0), "{command}: {told}");
    }
    let segment = largest(&data.join("log"), ".log");
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let (code, told) = flipped(&segment, |len| len / 2, doctor);
    assert_eq!(code, Some(5), "{told}");
    assert!(told.contains(&name(&segment)) && told.contains("byte "), "{told}");
    let (code, told) = flipped(
        &segment,
        |len| len / 2,
        || run(&["rebuild", "--data-dir", &place]),
    );
    assert!(code != Some(0) && told.contains(&name(&segment)), "{told}");
    let run_file = largest(&data.join("views"), "");
    let (code, told) = flipped(&run_file, |len| len / 2, doctor);
    assert_eq!(code, Some(5), "{told}");
    assert!(told.contains(&name(&run_file)), "{told}");
    // Views that cannot be read are derived anew: the damaged ones are set aside, and a second rebuild finds nothing.
    damage(&run_file);
    let rebuild = || run(&["rebuild", "--data-dir", &place]);
    let (code, told) = rebuild();
    assert!(code == Some(5) && told.contains(&name(&run_file)), "{told}");
    let derived = "1,000 ids of events from the log";
    assert!(
        told.contains(&format!("{derived}.")),
        "of the old ones nothing: {told}"
    );
    let (code, told) = rebuild();
    assert!(told.contains(&format!("{derived}; there were")), "{told}");
    assert_eq!(code, Some(0), "{told}");
    for manifest in files(&data.join("views"))
        .iter()
        .filter(|path| name(path).contains("manifest"))
    {
        damage(manifest);
    }
    let (code, told) = rebuild();
    assert!(code == Some(5) && told.contains("manifest"), "{told}");
    let (code, told) = doctor();
    assert_eq!(code, Some(0), "{told}");
    // A good directory still serves after all that.
    app.restart().await;
    assert_eq!(oracle.len(), 1_000);
    verify(&app, &oracle).await;
}

/// The state of a dependency as `/readyz` tells it, and the whole answer.
async fn dependency(app: &App, name: &str) -> (String, Value) {
    let (_, body) = app.admin().get("/readyz").await;
    let all = body["dependencies"].as_array().expect("dependencies");
    let found = all.iter().find(|one| one["name"] == name).expect("it is named");
    (found["state"].as_str().expect("a state").to_owned(), body)
}

/// Waits until a dependency is in a state: what is found is believed for some seconds.
async fn becomes(app: &App, name: &str, state: &str) -> Value {
    let begin = Instant::now();
    loop {
        let (found, body) = dependency(app, name).await;
        if found == state {
            return body;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "not {state}: {body}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_tells_of_a_full_disk_that_neither_events_nor_changes_are_kept() {
    let Some(disk) = SmallDisk::mount() else { return };
    let data = disk.path.join("data");
    let mut app = App::start_with(AppOptions::small(BINARY, &data)).await;
    declare(&app).await;
    let (state, body) = dependency(&app, "sql").await;
    assert_eq!(
        (state.as_str(), body["state"].as_str()),
        ("ready", Some("ready")),
        "{body}"
    );
    let filler = disk.path.join("filler");
    let full = std::fs::File::create(&filler).and_then(|mut file| {
        let piece = [1; 4_096];
        loop {
            std::io::Write::write_all(&mut file, &piece)?;
        }
    });
    let full: std::io::Result<()> = full;
    assert_eq!(
        full.err().map(|error| error.kind()),
        Some(std::io::ErrorKind::StorageFull)
    );
    let customer = json!({"name": "x".repeat(200)});
    let (mut kept, mut refused) = (0, Vec::new());
    // What SQLite has reserved may hold some changes yet.
    for at in 0..2_000 {
        let path = format!("/v1/customers/c{at}");
        let answer = app
            .admin()
            .send(reqwest::Method::PUT, &path, Some(&customer))
            .await;
        let (status, body) = answer.expect("an answer");
        if status < 300 {
            kept += 1;
            continue;
        }
        assert_eq!(
            (status, body["code"].as_str()),
            (503, Some("storage_full")),
            "{body}"
        );
        refused.push(body);
        // The second one meets what the first has left.
        if refused.len() == 2 {
            break;
        }
    }
    assert_eq!(refused.len(), 2, "no change was refused on a full disk");
    let body = refused.remove(0);
    let told = [
        body,
        becomes(&app, "sql", "degraded").await,
        becomes(&app, "log", "degraded").await,
    ];
    let place = disk.path.display().to_string();
    for told in &told {
        assert!(!told.to_string().contains(&place), "a path of the server: {told}");
    }
    std::fs::remove_file(&filler).expect("removed");
    let body = becomes(&app, "sql", "ready").await;
    assert_eq!(app.admin().get("/readyz").await.0, 200, "{body}");
    kept += changes_are_durable_again(&mut app, &customer).await;
    let (_, all) = app.admin().get("/v1/customers?limit=1000").await;
    assert_eq!(all["data"].as_array().map(Vec::len), Some(kept), "customers");
}

/// Refused calls and changes behind a full disk, then a restart; how many customers were added.
async fn changes_are_durable_again(app: &mut App, customer: &Value) -> usize {
    const CUSTOMERS: usize = 3;
    for at in 0..CUSTOMERS {
        // It ends its transaction without a commit.
        let unknown = json!({"customer": "nobody", "plan": "none"});
        let (status, body) = app.admin().post("/v1/subscriptions", &unknown).await;
        assert_eq!(status, 422, "{body}");
        app.admin()
            .put(&format!("/v1/customers/after-{at}"), customer)
            .await;
    }
    app.restart().await;
    for at in 0..CUSTOMERS {
        let (status, body) = app.admin().get(&format!("/v1/customers/after-{at}")).await;
        assert_eq!(status, 200, "an acknowledged change is gone: {body}");
    }
    CUSTOMERS
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_tells_of_damage_and_the_log_alone_where_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start_with(AppOptions::small(BINARY, directory.path())).await;
    declare(&app).await;
    let (mut random, mut oracle) = (StdRng::seed_from_u64(6), Oracle::default());
    for first in [0, 100, 200] {
        let events = batch(&mut random, first, 100);
        assert_eq!(send(&app, &mut oracle, &events, false).await.status, 200);
    }
    // What was read once is kept in memory: a process that has read no event yet meets the damage.
    app.restart().await;
    for segment in files(&directory.path().join("log")) {
        if segment.extension().is_some_and(|end| end == "log") {
            damage(&segment);
        }
    }
    let (status, body) = app.admin().get("/v1/events?limit=1000").await;
    assert_eq!(
        (status, &body["code"], &body["retryable"]),
        (500, &json!("damaged"), &json!(false)),
        "{body}"
    );
    let (_, ready) = app.admin().get("/readyz").await;
    let log = ready["dependencies"].as_array().expect("dependencies").iter();
    let log = log.clone().find(|one| one["name"] == "log").expect("the log");
    let told = log["detail"].as_str().expect("words");
    assert!(log["state"] == "degraded" && told.contains("doctor"), "{ready}");
    let place = directory.path().display().to_string();
    let told = body["detail"].as_str().expect("words");
    assert!(
        told.contains("damaged") && !body.to_string().contains(&place),
        "{body}"
    );
    if std::env::var_os("TURNPIKE_TEST_SHOW").is_none() {
        let id = body["request_id"].as_str().expect("an id").to_owned();
        let log = app.log();
        let named = log
            .lines()
            .any(|line| line.contains(&id) && line.contains(&place) && line.contains("log offset"));
        assert!(named, "the log does not say where");
    }
}
