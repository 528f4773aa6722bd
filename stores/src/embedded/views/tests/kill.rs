//! A real process that ends at each fail point, as by SIGKILL, on the real file system.

use std::process::Command;

use super::model::{NAMES, ROUNDS, checkpoints, play};
use super::*;

const DIRECTORY: &str = "TURNPIKE_TEST_VIEWS_DIRECTORY";
const POINT: &str = "TURNPIKE_TEST_VIEWS_POINT";

/// Played by the process that is ended.
#[test]
#[ignore = "started by killed_at_every_fail_point"]
fn child() {
    let [directory, point] = [DIRECTORY, POINT].map(|name| std::env::var(name).unwrap());
    let directory = Path::new(&directory);
    let views = open_real(&options(directory), FailPoints::parse(&point).unwrap()).unwrap();
    play(&views, |round| {
        std::fs::write(directory.join("acknowledged"), round.to_string()).unwrap();
    })
    .unwrap();
}

#[test]
fn killed_at_every_fail_point() {
    let states = checkpoints();
    for point in [
        "views.ids_written",
        "views.rows_written",
        "views.meta_written",
        "views.before_manifest",
        "views.after_manifest",
        "views.merged",
    ] {
        let directory = tempfile::tempdir().unwrap();
        for count in [1, 2] {
            let ended = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "embedded::views::tests::kill::child",
                    "--ignored",
                    "--nocapture",
                ])
                .env(DIRECTORY, directory.path())
                .env(POINT, format!("{point}:{count}"))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert!(
                !ended.status.success() && said.contains(&format!("fail point {point} ends")),
                "{said}"
            );
            let acknowledged = std::fs::read_to_string(directory.path().join("acknowledged"))
                .map_or(0, |text| text.parse().unwrap());
            let views = open_real(&options(directory.path()), FailPoints::default()).unwrap();
            let position = views.position().0;
            assert!(position >= acknowledged && position <= acknowledged + 1);
            states[position as usize].check(&views, NAMES);
            views.verify().unwrap();
        }
        let views = open_real(&options(directory.path()), FailPoints::default()).unwrap();
        play(&views, |_| {}).unwrap();
        states[ROUNDS as usize].check(&views, NAMES);
    }
}
