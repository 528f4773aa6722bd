//! What a start refuses and what `doctor` says of a data directory that was damaged, file kind by file kind.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Makes a data directory, as a first start does.
fn make(data: &Path) {
    let mut server = Command::new(env!("CARGO_BIN_EXE_turnpike"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--set",
            "engine.partitions=2",
            "--data-dir",
        ])
        .arg(data)
        .env("TURNPIKE_BOOTSTRAP_API_KEY", "an-admin-key-for-tests")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
    assert!(said.next().unwrap().unwrap().contains("listens"));
    let pid = server.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert!(server.wait().unwrap().success());
}

fn made() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    make(&data);
    (directory, data)
}

/// Exit code and all output of a command that ends by itself.
fn run(command: &str, data: &Path, fail_point: Option<&str>) -> (Option<i32>, String) {
    let mut turnpike = Command::new(env!("CARGO_BIN_EXE_turnpike"));
    turnpike.args([command, "--data-dir"]).arg(data);
    if command == "serve" {
        turnpike.args(["--listen", "127.0.0.1:0"]);
    }
    if let Some(point) = fail_point {
        turnpike.env("TURNPIKE_TEST_FAIL_POINT", point);
    }
    let out = turnpike.output().unwrap();
    let told = [out.stdout, out.stderr].concat();
    (out.status.code(), String::from_utf8_lossy(&told).into_owned())
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_good_directory_passes_and_what_does_not_belong_is_only_named() {
    let (_kept, data) = made();
    let (code, told) = run("doctor", &data, None);
    assert_eq!(code, Some(0), "{told}");
    assert!(!told.contains("views.old"), "{told}");
    fs::create_dir(data.join("views.old")).unwrap();
    let (code, told) = run("doctor", &data, None);
    assert_eq!(code, Some(0), "a warning: {told}");
    assert!(told.contains("views.old") && told.contains("warning"), "{told}");
}

#[test]
fn a_damaged_database_is_refused_and_the_way_out_is_named() {
    let (_kept, data) = made();
    let database = data.join("turnpike.db");
    let sound = fs::read(&database).unwrap();
    let mut torn = sound.clone();
    torn.chunks_mut(4_096)
        .skip(1)
        .for_each(|page| page[..512].fill(0xA5));
    for bytes in [torn, vec![0xA5; sound.len()]] {
        fs::write(&database, bytes).unwrap();
        let (code, told) = run("serve", &data, None);
        assert!(code.is_some_and(|code| code != 0), "{told}");
        assert!(
            told.contains("turnpike.db") && told.contains("turnpike doctor"),
            "{told}"
        );
        let (code, told) = run("doctor", &data, None);
        assert_eq!(code, Some(5), "{told}");
    }
    fs::write(&database, sound).unwrap();
    assert_eq!(run("doctor", &data, None).0, Some(0));
}

#[test]
fn a_row_of_the_database_that_cannot_be_read_is_told_by_the_start_and_by_doctor() {
    let (_kept, data) = made();
    let database = data.join("turnpike.db");
    let mut bytes = fs::read(&database).unwrap();
    let written = br#"["admin"]"#;
    let at = bytes.windows(written.len()).position(|text| text == written);
    // The scopes of the first key. SQLite keeps no checksums, so the page stays sound to it.
    bytes[at.unwrap()] = b'?';
    fs::write(&database, bytes).unwrap();
    let (code, told) = run("serve", &data, None);
    assert!(code.is_some_and(|code| code != 0), "{told}");
    for part in [
        "turnpike.db",
        "table api_keys",
        "turnpike doctor",
        "restore a backup",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let (code, told) = run("doctor", &data, None);
    assert_eq!(code, Some(5), "{told}");
    assert!(told.contains("found bad: database"), "{told}");
}

#[test]
fn damage_in_small_files_is_found_by_the_start_and_by_doctor() {
    let (_kept, data) = made();
    let format = fs::read(data.join("format.toml")).unwrap();
    let told_by_both = |name: &str| {
        for command in ["serve", "doctor"] {
            let (code, told) = run(command, &data, None);
            assert!(code.is_some_and(|code| code != 0), "{command}: {told}");
            assert!(told.contains(name), "{command}: {told}");
        }
    };
    fs::write(data.join("format.toml"), b"partitions = 2").unwrap();
    told_by_both("format.toml");
    fs::remove_file(data.join("format.toml")).unwrap();
    told_by_both("format.toml");
    fs::write(data.join("format.toml"), format).unwrap();

    let horizon = data.join("log/horizon");
    fs::write(&horizon, b"TPHORIZ1............").unwrap();
    told_by_both("horizon");
    fs::remove_file(horizon).unwrap();

    let manifest = data.join("views/partition-00001/manifest");
    flip(&manifest, 12);
    told_by_both("manifest");
    flip(&manifest, 12);
    assert_eq!(run("doctor", &data, None).0, Some(0));
}

#[test]
fn a_first_start_that_dies_before_the_format_is_in_place_can_be_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let (code, told) = run("serve", &data, Some("data_dir.format_written:1"));
    assert_eq!(code, None, "it was ended: {told}");
    assert!(told.contains("fail point data_dir.format_written ends"), "{told}");
    assert!(!data.join("format.toml").exists());
    make(&data);
    assert_eq!(run("doctor", &data, None).0, Some(0));
}
