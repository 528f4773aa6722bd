//! Places that somebody prepared, or that a process uses: nothing in them is deleted, and nothing behind a link is written to.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

const MARK: &str = ".backup-incomplete";
const RESTORING: &str = "restore.incomplete";

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let ended = app::run(BINARY, Path::new("/"), arguments);
    (ended.code, format!("{}{}", ended.out, ended.error))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_a_process_uses_is_no_place_of_a_backup_though_it_has_the_mark_of_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| text(&directory.path().join(name));
    let (mut source, _) = small(Path::new(&place("data"))).await;
    source.kill();
    let served = place("n.incomplete");
    let (mut app, events) = small(Path::new(&served)).await;
    // As by an earlier program, which served what an interrupted backup had left.
    let mark = Path::new(&served).join(MARK);
    fs::write(&mark, "").expect("written");
    let (code, said) = run(&["backup", &place("n"), "--data-dir", &place("data")]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
    assert_eq!(app.admin().total("count", "").await, Some(events.to_string()));
    app.kill();

    // Nobody uses what has the mark.
    for (command, code) in [
        ("serve", 1),
        ("doctor", 5),
        ("verify", 1),
        ("rebuild", 1),
        ("backup", 1),
    ] {
        let mut arguments = vec![command, "--data-dir", &served];
        let (other, listen) = (place("other"), ["--listen", "127.0.0.1:0"]);
        match command {
            "serve" => arguments.extend(listen),
            "backup" => arguments.push(&other),
            _ => {}
        }
        let (ended, said) = run(&arguments);
        assert_eq!(ended, Some(code), "{command}: {said}");
        let told = said.contains("turnpike backup") && said.contains(MARK);
        assert!(told, "{command}: {said}");
    }
    fs::remove_file(&mark).expect("removed");
    let mut app = App::start_with(AppOptions::small(BINARY, Path::new(&served))).await;
    assert_eq!(app.admin().total("count", "").await, Some(events.to_string()));
    app.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_in_the_place_of_a_mark_or_lock_is_not_followed() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| text(&directory.path().join(name));
    let (data, backup) = (place("data"), place("backup"));
    let (mut app, events) = small(Path::new(&data)).await;
    app.kill();
    ended(begin(Path::new(&data), Path::new(&backup), &[]));
    let (victim, absent) = (place("victim"), place("absent"));
    fs::write(&victim, "years").expect("written");
    for (at, (linked, to, marked)) in [
        (MARK, "../victim", false),
        (RESTORING, "../victim", false),
        (MARK, "../absent", false),
        (RESTORING, "../absent", false),
        ("lock", "../victim", false),
        ("lock", "../absent", false),
        ("lock", "../victim", true),
        ("lock", "../absent", true),
    ]
    .into_iter()
    .enumerate()
    {
        let (taken, to_restore) = (place(&format!("b{at}")), place(&format!("r{at}")));
        for (into, own) in [
            (format!("{taken}.incomplete"), MARK),
            (to_restore.clone(), RESTORING),
        ] {
            fs::create_dir(&into).expect("made");
            symlink(to, Path::new(&into).join(linked)).expect("linked");
            if marked {
                fs::write(Path::new(&into).join(own), "").expect("written");
            }
        }
        for arguments in [
            ["backup", &taken, "--data-dir", &data],
            ["restore", &backup, "--data-dir", &to_restore],
        ] {
            let (code, said) = run(&arguments);
            assert!(
                matches!(code, Some(1 | 2)),
                "{linked} {to}: {arguments:?}: {said}"
            );
            assert_eq!(
                fs::read_to_string(&victim).ok().as_deref(),
                Some("years"),
                "{linked} {to}: {arguments:?}: {said}"
            );
            assert!(
                !Path::new(&absent).exists(),
                "{linked} {to}: {arguments:?}: {said}"
            );
        }
    }
    assert_whole(Path::new(&backup), directory.path(), events).await;
}
