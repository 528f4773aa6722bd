//! A data directory that has lost a part, or of which a part is older than the rest or another's, on the real binary:
//! every command refuses it by name and changes nothing, for what would go on would count again what was counted, or
//! forget it, or take one's usage for another's.

mod ages;
mod start;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use turnpike_tests::app::{App, AppOptions};

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");

/// Runs a command to its end; a server that starts is stopped, and has no exit code.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = Command::new(BINARY)
        .args(arguments)
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let began = Instant::now();
    while child.try_wait().expect("a child").is_none() && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let ended = child.try_wait().expect("a child").is_some();
    let _ = child.kill();
    let output = child.wait_with_output().expect("its output");
    let told = [output.stdout, output.stderr].concat();
    let code = ended.then(|| output.status.code()).flatten();
    (code, String::from_utf8_lossy(&told).into_owned())
}

/// Asserts that each of the commands refuses the directory by name, and changes nothing.
fn refused(data: &Path, name: &str, told_of: &str, commands: &[&str]) {
    let (before, folders) = (contents(data), folders(data));
    let place = data.display().to_string();
    for command in commands {
        let mut arguments = vec![*command, "--data-dir", &place];
        if *command == "serve" {
            arguments.extend(["--listen", "127.0.0.1:0"]);
        }
        let (code, told) = run(&arguments);
        assert!(
            code.is_some_and(|code| code != 0),
            "{command} without {name}: {code:?} {told}"
        );
        assert!(told.contains(told_of), "{command} without {name}: {told}");
        let after = contents(data);
        let changed: Vec<_> = before
            .iter()
            .filter(|(path, bytes)| after.get(*path) != Some(*bytes))
            .map(|(path, _)| path)
            .chain(after.keys().filter(|path| !before.contains_key(*path)))
            .collect();
        assert!(changed.is_empty(), "{command} without {name} changed {changed:?}");
        assert_eq!(self::folders(data), folders, "{command} without {name}");
    }
}

/// The directories below a directory.
fn folders(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    for at in 0.. {
        let Some(directory) = found.get(at).cloned() else {
            break;
        };
        let entries = std::fs::read_dir(&directory).expect("a directory");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        found.extend(paths.filter(|path| path.is_dir()));
    }
    found.sort();
    found
}

/// Every file below a directory but SQLite's own side files and the lock, with its bytes.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut open) = (BTreeMap::new(), vec![directory.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                open.push(path);
            } else if !name.ends_with("lock") && !name.contains("turnpike.db-") {
                found.insert(path.clone(), std::fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in contents(from) {
        let to = to.join(path.strip_prefix(from).expect("below"));
        std::fs::create_dir_all(to.parent().expect("a directory")).expect("made");
        std::fs::write(to, bytes).expect("copied");
    }
}

fn segments(data: &Path) -> Vec<PathBuf> {
    let files = contents(&data.join("log")).into_keys();
    files
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect()
}

/// A directory with several segments that was stopped as it should be.
async fn stopped(data: &Path) {
    let mut app = App::start_with(AppOptions::small(BINARY, data)).await;
    let meter = json!({"event_type": "t", "aggregation": "count"});
    app.admin().put("/v1/meters/count", &meter).await;
    // So that the events do not compress to nothing.
    let mut random = StdRng::seed_from_u64(7);
    for batch in 0..10 {
        let mut lines = Vec::new();
        for at in 0..100 {
            let noise: String = (0..900)
                .map(|_| char::from(random.random_range(b'a'..=b'z')))
                .collect();
            let event = json!({"id": format!("{batch}-{at}"), "source": "s", "type": "t", "subject": "a",
                "time": "2026-01-15T00:00:00Z", "data": {"noise": noise}});
            lines.extend_from_slice(event.to_string().as_bytes());
            lines.push(b'\n');
        }
        let (status, body) = app.admin().send_lines(lines).await.expect("an answer");
        assert_eq!((status, body["accepted"].as_u64()), (200, Some(100)), "{body}");
    }
    assert_eq!(app.terminate().0, Some(0));
}

type Loss = (&'static str, fn(&Path), &'static str);

fn remove(path: &Path) {
    std::fs::remove_file(path).expect("removed");
}

const LOSSES: &[Loss] = &[
    (
        "the database",
        |data| remove(&data.join("turnpike.db")),
        "turnpike.db beside it is missing",
    ),
    (
        "what was in the database",
        |data| std::fs::write(data.join("turnpike.db"), []).expect("emptied"),
        "turnpike.db",
    ),
    (
        "database and log",
        |data| {
            remove(&data.join("turnpike.db"));
            std::fs::remove_dir_all(data.join("log")).expect("removed");
        },
        "so is turnpike.db beside it",
    ),
    (
        "the description",
        |data| remove(&data.join("format.toml")),
        "format.toml is missing",
    ),
    (
        "the number of partitions",
        |data| {
            let path = data.join("format.toml");
            let text = std::fs::read_to_string(&path).expect("a description");
            let (before, _) = text.split_once("partitions = ").expect("a number");
            std::fs::write(&path, format!("{before}partitions = 7\n")).expect("written");
        },
        "7 partitions",
    ),
    (
        "the log",
        |data| std::fs::remove_dir_all(data.join("log")).expect("removed"),
        "restore log/ from a backup",
    ),
    (
        "the log's beginning",
        |data| remove(&segments(data)[0]),
        "missing at its beginning",
    ),
    (
        "a bit of the log's beginning",
        |data| {
            let first = &segments(data)[0];
            let mut bytes = std::fs::read(first).expect("a segment");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            std::fs::write(first, bytes).expect("turned over");
        },
        "byte ",
    ),
    (
        "the log's last segment",
        |data| remove(segments(data).last().expect("segments")),
        "the log in",
    ),
    (
        "the log's end",
        |data| {
            let all = segments(data);
            let last = all.last().expect("segments");
            let bytes = std::fs::read(last).expect("a segment");
            std::fs::write(last, &bytes[..bytes.len() / 3]).expect("cut");
        },
        "the log in",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_lost_a_part_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let whole = directory.path().join("whole");
    stopped(&whole).await;
    assert!(segments(&whole).len() >= 3, "vacuous: too few segments");
    for (at, (name, lose, told_of)) in LOSSES.iter().enumerate() {
        let data = directory.path().join(at.to_string());
        copy(&whole, &data);
        lose(&data);
        refused(&data, name, told_of, &["doctor", "rebuild", "serve"]);
    }
    println!("{} losses, each refused by three commands", LOSSES.len());
    // The whole one is still good.
    let place = whole.display().to_string();
    let (code, told) = run(&["doctor", "--data-dir", &place]);
    assert_eq!(code, Some(0), "{told}");
    let mut app = App::start_with(AppOptions::small(BINARY, &whole)).await;
    assert_eq!(app.admin().total("count", "").await.as_deref(), Some("1000"));
    app.kill();
}

/// What a directory that others may look into holds is closed to them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_closed_to_other_users_also_in_a_directory_that_was_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("open");
    std::fs::create_dir(&data).expect("made");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&data, open).expect("opened");
    let mut app = App::start_with(AppOptions::small(BINARY, &data)).await;
    for part in ["turnpike.db", "turnpike.db-wal", "log", "views", "format.toml"] {
        let mode = std::fs::metadata(data.join(part))
            .expect("a part")
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{part}: {mode:o}");
    }
    assert_eq!(
        std::fs::metadata(&data).expect("it").permissions().mode() & 0o777,
        0o755
    );
    app.kill();
}

#[test]
fn a_first_key_that_nobody_can_see_is_not_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().join("data").display().to_string();
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("a full device");
    let output = Command::new(BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir", &place])
        .env_clear()
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .expect("it ends");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && told.contains("TURNPIKE_BOOTSTRAP_API_KEY"),
        "{told}"
    );
    let mut child = Command::new(BINARY)
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir", &place])
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("its output")));
    let first = lines.next().expect("a line").expect("text");
    child.kill().expect("killed");
    child.wait().expect("it ends");
    assert!(first.contains("First start"), "{first}");
}
