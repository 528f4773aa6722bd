//! R22: data directories that earlier releases wrote are opened, and answer as they did then; newer ones are refused by name.
//!
//! `tests/data/formats/NAME.tar.gz` is a directory, `NAME.json` what its release answered. To keep another one, with the release's
//! binary: `TURNPIKE_TEST_KEEP_FORMAT=NAME TURNPIKE_TEST_RELEASE=/path/to/turnpike cargo test --workspace --test formats r22_a_directory`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};
use turnpike_tests::app::{self, App, AppOptions, Caller};
use turnpike_tests::commerce::{Commerce, START};
use turnpike_tests::compare::ndjson;
use turnpike_tests::workload::{MONTH_QUERY, Workload, declare, meters};

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");
/// Every one that is kept.
const KEPT: [&str; 1] = ["2026-11-22"];
/// Of what is written into them.
const SEED: u64 = 22;
const BATCH: usize = 20;
const CUSTOMERS: [&str; 3] = ["org", "team", "solo"];

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data/formats")
        .join(name)
}

fn tar(arguments: &[&str]) {
    let status = Command::new("tar").args(arguments).status();
    assert!(status.expect("tar runs").success(), "tar {arguments:?}");
}

fn unpacked(name: &str, to: &Path) -> PathBuf {
    let archive = kept(&format!("{name}.tar.gz"));
    let (archive, place) = (archive.display().to_string(), to.display().to_string());
    tar(&["-xzf", &archive, "-C", &place]);
    to.join("data")
}

/// What is asked, and what is answered: usage of both tenants, and entitlements, customers, events and invoices of one.
async fn answers(admin: &Caller, lab: &Caller) -> Value {
    let mut all = Map::new();
    for (key, _) in meters() {
        for more in ["", "&window=day", "&group_by=subject"] {
            let path = format!("/v1/meters/{key}/usage?{MONTH_QUERY}{more}");
            let answer = answer(admin, &path).await;
            all.insert(path, answer);
        }
    }
    let years = "from=2026-01-31T00:00:00Z&to=2036-01-01T00:00:00Z";
    let mut paths = vec![
        format!("/v1/meters/calls/usage?{years}&window=day&group_by=region&limit=1000"),
        "/v1/catalog".to_owned(),
    ];
    for customer in CUSTOMERS {
        paths.push(format!("/v1/customers/{customer}"));
        paths.push(format!("/v1/customers/{customer}/entitlements"));
        paths.push(format!("/v1/invoices?customer={customer}&limit=1000"));
    }
    for path in paths {
        let answer = answer(lab, &path).await;
        all.insert(path, answer);
    }
    Value::Object(all)
}

async fn answer(caller: &Caller, path: &str) -> Value {
    let (status, mut body) = caller.get(path).await;
    assert_eq!(status, 200, "{path}: {body}");
    // The time of the answer.
    if let Some(page) = body.as_object_mut() {
        page.remove("as_of");
    }
    body
}

/// Each invoice must follow from the raw events; how many there are.
async fn assert_verified(lab: &Caller) -> usize {
    let (status, verified) = lab.post("/v1/invoices/verify", &json!({})).await;
    assert_eq!(status, 200, "{verified}");
    let all = verified["data"].as_array().expect("verifications");
    assert!(all.iter().all(|one| one["verified"] == true), "{verified}");
    all.len()
}

/// Writes a directory with the release's binary, and keeps it with what that answers.
async fn keep(name: &str, release: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let mut options = AppOptions::small(release, &data);
    options.set("TURNPIKE_ENGINE_PARTITIONS", "2");
    let mut app = App::start_with(options).await;
    declare(&app.admin()).await;
    let lab_key = app
        .tenant(&json!({"key": "lab", "test": true, "clock": START}))
        .await;
    let lab = app.caller(&lab_key);
    let (mut workload, mut commerce) = (Workload::new(SEED), Commerce::open(SEED, &lab).await);
    for _ in 0..24 {
        let batch = workload.batch(BATCH);
        assert!(workload.send(&app.admin(), &batch, false).await);
        if let Some(correction) = workload.correction() {
            assert!(workload.correct(&app.admin(), &correction).await);
        }
        for _ in 0..6 {
            let step = commerce.next_step();
            assert!(commerce.take(&lab, &step, false).await);
        }
    }
    workload.verify(&app.admin()).await;
    commerce.verify(&lab).await;
    assert!(assert_verified(&lab).await > 0);
    let golden = json!({"key": lab_key, "answers": answers(&app.admin(), &lab).await});
    assert_eq!(app.terminate().0, Some(0));
    std::fs::create_dir_all(kept("")).expect("a directory");
    let text = serde_json::to_string(&golden).expect("JSON");
    std::fs::write(kept(&format!("{name}.json")), text + "\n").expect("written");
    let archive = kept(&format!("{name}.tar.gz")).display().to_string();
    let place = directory.path().display().to_string();
    tar(&["-czf", &archive, "--exclude=lock", "-C", &place, "data"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r22_a_directory_of_every_release_is_opened_and_answers_as_it_did() {
    if let Ok(name) = std::env::var("TURNPIKE_TEST_KEEP_FORMAT") {
        let release = std::env::var("TURNPIKE_TEST_RELEASE").expect("the release's binary");
        keep(&name, &release).await;
    }
    for name in KEPT {
        let directory = tempfile::tempdir().expect("a directory");
        let data = unpacked(name, directory.path());
        let golden = std::fs::read_to_string(kept(&format!("{name}.json"))).expect("the answers");
        let golden: Value = serde_json::from_str(&golden).expect("JSON");
        let mut app = App::start_with(AppOptions::small(BINARY, &data)).await;
        let lab = app.caller(golden["key"].as_str().expect("a key"));
        // As it was opened, and with views derived anew.
        for derived in [false, true] {
            if derived {
                assert_eq!(app.terminate().0, Some(0));
                app.offline("doctor");
                assert_eq!(app.offline("rebuild")["different"], 0);
                app.restart().await;
            }
            let lab = app.caller(&lab.api_key());
            let found = answers(&app.admin(), &lab).await;
            let expected = golden["answers"].as_object().expect("answers");
            for (path, expected) in expected {
                assert_eq!(&found[path], expected, "{name}: {path}");
            }
            assert!(expected.len() > 25 && assert_verified(&lab).await > 2, "vacuous");
        }
        // The first batch of then, whose ids are known.
        let batch = Workload::new(SEED).batch(BATCH);
        let (status, answer) = app.admin().send_lines(ndjson(&batch)).await.expect("an answer");
        assert_eq!((status, &answer["accepted"]), (200, &json!(0)), "{answer}");
        println!("opened the directory of {name}; the same answers");
    }
}

/// Puts a version into a file, whose checksum is mended where there is one over it.
fn newer(path: &Path, at: usize, bytes: &[u8], checksum: Option<(std::ops::Range<usize>, usize)>) {
    let mut file = std::fs::read(path).expect("a file");
    file[at..at + bytes.len()].copy_from_slice(bytes);
    if let Some((over, place)) = checksum {
        let sum = crc32c::crc32c(&file[over]);
        file[place..place + 4].copy_from_slice(&sum.to_le_bytes());
    }
    std::fs::write(path, file).expect("written");
}

/// The file of a directory whose name begins so.
fn file(directory: &Path, start: &str, end: &str) -> PathBuf {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let is_it = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        name.starts_with(start) && name.ends_with(end)
    };
    paths.into_iter().find(is_it).expect("a file")
}

type Newer = (&'static str, fn(&Path), &'static [&'static str]);

const NEWER: [Newer; 6] = [
    (
        "format.toml",
        |data| {
            std::fs::write(data.join("format.toml"), "format_version = 9\npartitions = 2\n")
                .expect("written");
        },
        &["format version 9", "use the release that wrote it"],
    ),
    (
        "a segment",
        |data| {
            newer(
                &file(&data.join("log"), "0", ".log"),
                8,
                &[9, 0],
                Some((0..60, 60)),
            );
        },
        &[".log has version 9", "start a newer turnpike"],
    ),
    (
        "a horizon",
        |data| std::fs::write(data.join("log/horizon"), b"TPHORIZ9 and more of it").expect("written"),
        &["horizon has version 9", "start a newer turnpike"],
    ),
    (
        "the control file",
        |data| std::fs::write(data.join("log/control"), b"TPCTROL9 and more of it").expect("written"),
        &["control has version 9", "start a newer turnpike"],
    ),
    (
        "a manifest",
        |data| newer(&data.join("views/partition-00000/manifest"), 8, &[9], None),
        &["manifest has format version 9", "start the newer program"],
    ),
    (
        "a run",
        |data| {
            let path = file(&data.join("views/partition-00000"), "rows-", ".run");
            let end = std::fs::read(&path).expect("a run").len();
            newer(&path, end - 80, &[9], Some((end - 88..end - 4, end - 4)));
        },
        &[".run has format version 9", "start the newer program"],
    ),
];

#[test]
fn r22_newer_formats_are_refused_by_name() {
    for (what, change, told) in NEWER {
        let directory = tempfile::tempdir().expect("a directory");
        let data = unpacked(KEPT[0], directory.path());
        change(&data);
        let place = data.display().to_string();
        let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &place];
        let ended = app::run(BINARY, Path::new("/"), &serve);
        assert_eq!(ended.code, Some(1), "{what}: {}{}", ended.out, ended.error);
        for words in told {
            assert!(ended.error.contains(words), "{what}: {}", ended.error);
        }
    }
}
