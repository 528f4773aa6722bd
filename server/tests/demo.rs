//! The demo, as a newcomer runs it.

#![expect(clippy::expect_used, reason = "a test says what it expects")]

use std::process::Command;

fn demo(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_turnpike"))
        .arg("demo")
        .args(arguments)
        .output()
        .expect("the demo runs")
}

#[test]
fn the_demo_holds_and_says_so() {
    let out = demo(&[]);
    let (told, errors) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert!(out.status.success(), "{told}\n{errors}");
    for step in [
        "✓ every acknowledged event survives kill -9",
        "✓ the last time everything is a duplicate",
        "✓ usage is equal to the file's",
        "✓ exactly the limit was granted, not one more",
        "✓ the limit holds through a kill",
        "✓ one invoice for each customer",
        "✓ every invoice is the same to the last minor unit",
    ] {
        assert!(told.contains(step), "{step} is missing in:\n{told}");
    }
}

#[test]
fn its_figures_are_there_for_programs_and_its_data_is_kept_where_asked() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("kept").display().to_string();
    let out = demo(&["--json", "--data-dir", &path]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let found: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON alone");
    assert_eq!(found["granted"], 25);
    assert_eq!(found["verified"], 3);
    assert_eq!(found["duplicates_the_last_time"], 8_819);
    // By hand, from the trace and config/sample-catalog.toml: 29.00 + 7,982,148 × 0.0000025 + 50,000 × 0.00001 +
    // 75,735 × 0.000008 + 4 begun thousands × 0.40.
    assert_eq!(found["invoices"][0]["total"], "51.67");
    let again = demo(&["--data-dir", &path]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not empty"));
    // What it left can be verified and rebuilt without a server.
    let data = directory.path().join("kept/data").display().to_string();
    for arguments in [
        &["verify", "--data-dir", &data][..],
        &["rebuild", "--data-dir", &data],
        &["doctor", "--data-dir", &data],
    ] {
        let out = Command::new(env!("CARGO_BIN_EXE_turnpike"))
            .args(arguments)
            .output()
            .expect("it runs");
        assert!(
            out.status.success(),
            "{arguments:?}\n{}\n{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
    }
}
