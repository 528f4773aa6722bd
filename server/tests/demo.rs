//! The demo, as a newcomer runs it.

#![expect(clippy::expect_used, reason = "a test says what it expects")]

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::json;

fn demo(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_turnpike"))
        .arg("demo")
        .args(arguments)
        .output()
        .expect("the demo runs")
}

/// The trace, which the demo sends.
const TRACE: &str = include_str!("../src/demo/data/llm_inference_code.csv");

/// What a customer used.
#[derive(Debug, Default)]
struct Used {
    requests: u64,
    context: u64,
    generated: u64,
}

/// What each customer used, added up without any code of the engine or the demo; of ten rows five, three and two are theirs.
fn usage() -> BTreeMap<&'static str, Used> {
    const OF_TEN: [&str; 10] = [
        "acme", "acme", "acme", "acme", "acme", "globex", "globex", "globex", "initech", "initech",
    ];
    let mut all: BTreeMap<_, Used> = BTreeMap::new();
    for (row, line) in TRACE.lines().skip(1).enumerate() {
        let number = |column| {
            let text = line.trim().split(',').nth(column).expect("a column");
            text.parse::<u64>().expect("tokens")
        };
        let used = all.entry(OF_TEN[row % 10]).or_default();
        used.requests += 1;
        used.context += number(1);
        used.generated += number(2);
    }
    all
}

/// The plan `team` of config/sample-catalog.toml in plain integers of 10⁻⁷ dollars: each line rounded half up to the cent.
fn bill(used: &Used) -> String {
    let cents = |parts: u64| (parts + 50_000) / 100_000;
    let context = cents(used.context.saturating_sub(1_000_000) * 25);
    let low = used.generated.min(50_000);
    let generated = cents(low * 100 + (used.generated - low) * 80);
    let requests = used.requests.saturating_sub(1_000).div_ceil(1_000) * 40;
    let total = 2_900 + context + generated + requests;
    format!("{}.{:02}", total / 100, total % 100)
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
    for (at, (customer, used)) in usage().into_iter().enumerate() {
        let said = json!({
            "requests": used.requests, "context_tokens": used.context, "generated_tokens": used.generated,
        });
        assert_eq!(found["usage"][customer], said, "{customer}");
        let invoice = &found["invoices"][at];
        assert_eq!(
            (&invoice["customer"], &invoice["total"]),
            (&json!(customer), &json!(bill(&used)))
        );
    }
    // By hand, from the trace and config/sample-catalog.toml: 29.00 + 7,982,148 × 0.0000025 + 50,000 × 0.00001 +
    // 75,735 × 0.000008 + 4 begun thousands × 0.40.
    assert_eq!(found["invoices"][0]["total"], "51.67");
    // A second time there is data: it says so and touches nothing.
    let again = demo(&["--json", "--data-dir", &path]);
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
