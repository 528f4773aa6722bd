//! Backups that are damaged, and places that cannot be used: refused by name, and nothing is changed.

use std::fs;

use super::*;

/// Every file below a directory, by its path from there.
fn files(directory: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(directory).expect("below").to_owned());
            }
        }
    }
    found.sort();
    found
}

fn is_empty(directory: &Path) -> bool {
    !directory.exists() || fs::read_dir(directory).expect("a directory").next().is_none()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r26_a_byte_that_is_damaged_is_named() {
    let mut random = StdRng::seed_from_u64(seed("--test backup r26_a_byte", 29));
    let directory = tempfile::tempdir().expect("a directory");
    let (data, target) = (directory.path().join("data"), directory.path().join("backup"));
    let (mut app, events) = small(&data).await;
    ended(begin(&data, &target, &["--copy"]));
    app.kill();
    let to = directory.path().join("to");
    let assert_named = |path: &Path, what: &str| {
        let refused = restore(&target, &to);
        assert_eq!(refused.code, Some(5), "{what}: {}{}", refused.out, refused.error);
        assert!(refused.error.contains(&text(path)), "{what}: {}", refused.error);
        assert!(is_empty(&to), "{what}: something is left");
    };
    let all = files(&target);
    for path in &all {
        let place = target.join(path);
        let whole = fs::read(&place).expect("a file");
        let mut bytes = whole.clone();
        let at = random.random_range(0..bytes.len());
        bytes[at] ^= 1 << random.random_range(0..8);
        fs::write(&place, &bytes).expect("damaged");
        assert_named(path, &format!("byte {at}"));
        fs::write(&place, &whole[..whole.len() - 1]).expect("cut");
        assert_named(path, "its last byte");
        if path != Path::new("backup.json") {
            fs::remove_file(&place).expect("removed");
            assert_named(path, "all of it");
        }
        fs::write(&place, &whole).expect("mended");
    }
    println!(
        "injected {} bytes turned over, as many files cut and missing",
        all.len()
    );
    assert!(all.len() > 10, "vacuous: {all:?}");
    assert_whole(&target, directory.path(), events).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_used_is_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| text(&directory.path().join(name));
    let (data, backup) = (place("data"), place("backup"));
    let (mut app, events) = small(Path::new(&data)).await;
    ended(begin(Path::new(&data), Path::new(&backup), &[]));
    fs::create_dir_all(place("full/log")).expect("made");
    fs::create_dir_all(place("newer")).expect("made");
    fs::write(place("newer/backup.json"), r#"{"format_version":9}"#).expect("written");
    let inside = format!("{data}/backup");
    // What is called as the place of an interrupted backup would be, and is none: somebody's files, the data directory itself,
    // and links to them.
    fs::create_dir(place("own.incomplete")).expect("made");
    fs::write(place("own.incomplete/thesis"), "years").expect("written");
    std::os::unix::fs::symlink(&data, place("live.incomplete")).expect("linked");
    std::os::unix::fs::symlink(place("own.incomplete"), place("link.incomplete")).expect("linked");
    let within = place("parent.incomplete/data");
    fs::create_dir(place("parent.incomplete")).expect("made");
    std::os::unix::fs::symlink(&data, &within).expect("linked");
    for (arguments, code, told) in [
        (
            &["backup", &backup, "--data-dir", &data][..],
            2,
            "is there already",
        ),
        (
            &["backup", &inside, "--data-dir", &data],
            2,
            "lies in the data directory",
        ),
        (
            &["backup", &place("x"), "--data-dir", &place("none")],
            2,
            "there is no data directory",
        ),
        (&["backup", &place("no/x"), "--data-dir", &data], 1, "finding"),
        (
            &["backup", &place("own"), "--data-dir", &data],
            2,
            "own.incomplete is there already",
        ),
        (
            &["backup", &place("live"), "--data-dir", &data],
            2,
            "is there already",
        ),
        (
            &["backup", &place("link"), "--data-dir", &data],
            2,
            "is there already",
        ),
        (
            &["backup", &place("live"), "--data-dir", &place("live.incomplete")],
            2,
            "is there already",
        ),
        (
            &["backup", &place("parent"), "--data-dir", &within],
            2,
            "is there already",
        ),
        (&["backup", &place("x"), "--data-dir", &backup], 1, "is a backup"),
        (
            &["serve", "--listen", "127.0.0.1:0", "--data-dir", &backup],
            1,
            "turnpike restore",
        ),
        (&["doctor", "--data-dir", &backup], 5, "is a backup"),
        (
            &["restore", &place("full"), "--data-dir", &place("to")],
            2,
            "is no backup",
        ),
        (
            &["restore", &place("newer"), "--data-dir", &place("to")],
            1,
            "version 9",
        ),
        (
            &["restore", &backup, "--data-dir", &place("full")],
            2,
            "is not empty",
        ),
        (&["restore", &backup, "--data-dir", &data], 2, "is not empty"),
        (&["restore", &backup, "--data-dir", &backup], 2, "is not empty"),
    ] {
        let ended = app::run(BINARY, Path::new("/"), arguments);
        let said = format!("{}{}", ended.out, ended.error);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(told), "{arguments:?}: {said}");
        for made in ["x", "x.incomplete", "to"] {
            assert!(is_empty(Path::new(&place(made))), "{arguments:?} left {made}");
        }
    }
    let thesis = fs::read_to_string(place("own.incomplete/thesis"));
    assert_eq!(thesis.expect("it is there still"), "years");
    assert_own_directory_is_kept(directory.path(), events).await;
    // None of them has changed the backup, and the server has gone on.
    assert_whole(Path::new(&backup), directory.path(), events).await;
    assert_eq!(app.admin().total("count", "").await, Some(events.to_string()));
    // A directory that nobody serves is copied too: stopped, and as a kill left it.
    app.kill();
    ended(begin(Path::new(&data), Path::new(&place("killed")), &[]));
    assert_whole(Path::new(&place("killed")), directory.path(), events).await;
    let mut app = App::start_with(AppOptions::small(BINARY, Path::new(&data))).await;
    assert_eq!(app.terminate().0, Some(0));
    ended(begin(Path::new(&data), Path::new(&place("stopped")), &[]));
    assert_whole(Path::new(&place("stopped")), directory.path(), events).await;
}

/// A data directory, or its parent, with the very name that the place of a backup would have.
async fn assert_own_directory_is_kept(directory: &Path, events: u64) {
    let place = |name: &str| text(&directory.join(name));
    for (target, data, told) in [
        ("d", "d.incomplete", "lies in the data directory"),
        ("e", "e.incomplete/data", "lies in the data directory"),
    ] {
        fs::create_dir_all(directory.join(data)).expect("made");
        let restored = restore(&directory.join("backup"), &directory.join(data));
        assert_eq!(restored.code, Some(0), "{}", restored.error);
        let arguments = ["backup", &place(target), "--data-dir", &place(data)];
        let ended = app::run(BINARY, Path::new("/"), &arguments);
        assert_eq!(ended.code, Some(2), "{}", ended.error);
        assert!(ended.error.contains(told), "{}", ended.error);
        let mut app = App::start_with(AppOptions::small(BINARY, &directory.join(data))).await;
        assert_eq!(app.admin().total("count", "").await, Some(events.to_string()));
        app.kill();
    }
    // A name may end with a separator.
    let arguments = [
        "backup",
        &format!("{}/", place("slash")),
        "--data-dir",
        &place("d.incomplete"),
    ];
    let ended = app::run(BINARY, Path::new("/"), &arguments);
    assert_eq!(ended.code, Some(0), "{}", ended.error);
    assert!(
        directory.join("slash/backup.json").is_file() && !directory.join("slash/.backup-incomplete").exists()
    );
}
