//! A full disk: R5, and what readiness tells of it.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use turnpike_tests::app::{App, AppOptions};
use turnpike_tests::compare::query;
use turnpike_tests::oracle::{Oracle, OracleEvent};
use turnpike_tests::run::{seed, times};

use crate::{BINARY, batch, declare, january, send, serve, verify};

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
