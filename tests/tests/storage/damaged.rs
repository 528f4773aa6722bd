//! Directories that cannot be used, and damage that is found and named.

use std::path::{Path, PathBuf};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::json;
use turnpike_tests::app::{App, AppOptions};
use turnpike_tests::oracle::Oracle;
use turnpike_tests::run::seed;

use crate::{BINARY, batch, declare, run, send, serve, verify};

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
