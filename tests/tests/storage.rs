//! What the data directory promises, on the real binary: a full disk (R5), a drain under load (R21), and directories
//! that cannot be used.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use turnpike_tests::app::{ADMIN_KEY, App, AppOptions};
use turnpike_tests::workload::seed;

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

/// A batch of events that do not compress, as NDJSON.
fn batch(random: &mut StdRng, first: u64, count: u64) -> Vec<u8> {
    let mut lines = Vec::new();
    for id in first..first + count {
        let noise: String = (0..4_000)
            .map(|_| char::from(random.random_range(b'a'..=b'z')))
            .collect();
        let event = json!({"specversion": "1.0", "id": format!("e{id}"), "source": "s", "type": "t", "subject": "a",
            "time": "2026-01-15T00:00:00Z", "data": {"noise": noise}});
        lines.extend_from_slice(event.to_string().as_bytes());
        lines.push(b'\n');
    }
    lines
}

struct Sent {
    status: u16,
    retry_after: Option<String>,
    body: Value,
}

async fn send(app: &App, lines: &[u8]) -> Option<Sent> {
    let answer = reqwest::Client::new()
        .post(app.url("/v1/events"))
        .bearer_auth(ADMIN_KEY)
        .header("content-type", "application/x-ndjson")
        .body(lines.to_vec())
        .send()
        .await
        .ok()?;
    let status = answer.status().as_u16();
    let retry_after = answer.headers().get("retry-after");
    let retry_after = retry_after.map(|value| value.to_str().expect("text").to_owned());
    Some(Sent {
        status,
        retry_after,
        body: answer.json().await.ok()?,
    })
}

async fn count(app: &App) -> u64 {
    let all = "from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z";
    let total = app.admin().total("count", all).await;
    total.map_or(0, |text| text.parse().expect("a number"))
}

/// Sends batches until one is refused; the number of acknowledged events and the batch that was not.
async fn fill(app: &App, random: &mut StdRng, acknowledged: &mut u64) -> Vec<u8> {
    for _ in 0..200 {
        let lines = batch(random, *acknowledged, 100);
        let sent = send(app, &lines).await.expect("an answer");
        if sent.status == 200 {
            let known = sent.body["accepted"].as_u64().unwrap() + sent.body["duplicates"].as_u64().unwrap();
            assert_eq!(known, 100, "{}", sent.body);
            *acknowledged += 100;
            continue;
        }
        assert_eq!(
            (sent.status, sent.body["code"].as_str()),
            (503, Some("storage_full")),
            "{}",
            sent.body
        );
        assert!(sent.retry_after.is_some(), "503 without Retry-After");
        return lines;
    }
    panic!("the disk never became full");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_a_full_disk_refuses_and_loses_nothing() {
    let mut random = StdRng::seed_from_u64(seed("--test storage r5", 5));
    let Some(disk) = SmallDisk::mount() else { return };
    let data = disk.path.join("data");
    let mut app = App::start_with(AppOptions::small(BINARY, &data)).await;
    let meter = json!({"event_type": "t", "aggregation": "count"});
    app.admin().put("/v1/meters/count", &meter).await;
    let mut acknowledged = 0;
    let refused = fill(&app, &mut random, &mut acknowledged).await;
    assert!(acknowledged > 1_000, "vacuous: {acknowledged} events");
    let counted = count(&app).await;
    assert!(
        (acknowledged..acknowledged + 100).contains(&counted),
        "{acknowledged} acknowledged, {counted} counted while the disk is full"
    );
    // It starts with a full disk too, and has everything.
    app.restart().await;
    assert!(count(&app).await >= acknowledged);
    disk.remount(&format!("size={}", DISK_BYTES * 2));
    let begin = Instant::now();
    loop {
        let sent = send(&app, &refused).await.expect("an answer");
        if sent.status == 200 {
            break;
        }
        assert_eq!(sent.body["code"], "storage_full", "{}", sent.body);
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "still refuses: {}",
            sent.body
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("injected 1 full disk; accepts again after {:?}", begin.elapsed());
    acknowledged += 100;
    assert_eq!(count(&app).await, acknowledged);
    app.restart().await;
    assert_eq!(count(&app).await, acknowledged);
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
    let output = Command::new("timeout")
        .arg("20")
        .arg(BINARY)
        .args(arguments)
        .env("TURNPIKE_BOOTSTRAP_API_KEY", ADMIN_KEY)
        .output()
        .expect("it runs");
    let told = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&told).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r21_a_drain_under_load_loses_nothing() {
    let seed = seed("--test storage r21", 21);
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start(BINARY, directory.path()).await;
    let meter = json!({"event_type": "t", "aggregation": "count"});
    app.admin().put("/v1/meters/count", &meter).await;
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..4_u64)
        .map(|sender| {
            let (caller, stop) = (app.admin(), Arc::clone(&stop));
            let mut random = StdRng::seed_from_u64(seed ^ sender);
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for round in 0.. {
                    let lines = batch(&mut random, (sender << 32) + round * 20, 20);
                    match caller.send_lines(lines.clone()).await {
                        Some((200, _)) => acknowledged.push(lines),
                        _ if stop.load(Ordering::SeqCst) => break,
                        // Refused or cut off by the drain, which has begun.
                        _ => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                }
                acknowledged
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (code, took) = tokio::task::block_in_place(|| app.terminate());
    stop.store(true, Ordering::SeqCst);
    assert_eq!(code, Some(0));
    assert!(took <= Duration::from_secs(10), "it took {took:?}");
    let mut batches = Vec::new();
    for sender in senders {
        batches.extend(sender.await.expect("a sender ends"));
    }
    println!(
        "drained in {took:?} under load; {} batches acknowledged",
        batches.len()
    );
    assert!(batches.len() > 8, "vacuous");
    app.restart().await;
    for lines in &batches {
        let (status, body) = app.admin().send_lines(lines.clone()).await.expect("an answer");
        assert_eq!(
            (status, body["duplicates"].as_u64()),
            (200, Some(20)),
            "lost: {body}"
        );
    }
    assert!(count(&app).await >= batches.len() as u64 * 20);
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
    let meter = json!({"event_type": "t", "aggregation": "count"});
    app.admin().put("/v1/meters/count", &meter).await;
    let mut random = StdRng::seed_from_u64(seed("--test storage damage", 4));
    for round in 0..10 {
        let sent = send(&app, &batch(&mut random, round * 100, 100))
            .await
            .expect("an answer");
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
    let (code, told) = rebuild();
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
    assert_eq!(count(&app).await, 1_000);
}
