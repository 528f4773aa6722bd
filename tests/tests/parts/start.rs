//! The first start of a directory, ended at any instant.

use super::*;

const TRIES: u64 = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_that_is_killed_leaves_a_directory_that_is_good_and_starts() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut new, mut begun) = (0, 0);
    for at in 0..TRIES {
        let data = directory.path().join(at.to_string());
        let place = data.display().to_string();
        let mut child = Command::new(BINARY)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir", &place])
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        // At each try somewhat later: any instant must do.
        let deadline = Instant::now() + Duration::from_millis(at * 6);
        while Instant::now() < deadline {
            std::thread::yield_now();
        }
        child.kill().expect("killed");
        child.wait().expect("it ends");
        let before = data.exists().then(|| (contents(&data), folders(&data)));
        let (code, told) = run(&["doctor", "--data-dir", &place]);
        assert_eq!(code, Some(0), "try {at}: {told}");
        if let Some((files, all)) = before {
            assert_eq!(
                (contents(&data), folders(&data)),
                (files, all),
                "try {at}: {told}"
            );
        }
        if told.contains("there is none yet") {
            new += 1;
        } else {
            begun += 1;
        }
        let mut options = AppOptions::small(BINARY, &data);
        // The key of the first start may have been shown to nobody.
        options.set("TURNPIKE_BOOTSTRAP_API_KEY", turnpike_tests::app::ADMIN_KEY);
        let mut app = App::start_with(options).await;
        assert_eq!(app.terminate().0, Some(0), "try {at}");
    }
    println!("killed {new} times before there was a directory, {begun} times in one");
    assert!(new + begun == TRIES && begun > 0, "vacuous: {new} {begun}");
}
