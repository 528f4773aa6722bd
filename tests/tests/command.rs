//! The command line, as a script runs it: what it prints, and how it ends.

use std::path::Path;

use serde_json::{Value, json};
use turnpike_tests::app::{self, ADMIN_KEY, App, Ended};

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");

/// What a command said, for a script.
trait Said {
    /// Standard output, which is one JSON document, of a command that succeeded.
    fn json(&self) -> Value;
    /// The error on standard error, which is one JSON object, with nothing on standard output.
    fn refusal(&self) -> Value;
}

impl Said for Ended {
    fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.error);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }

    fn refusal(&self) -> Value {
        assert_eq!(self.out, "", "an error is on standard error alone");
        let all: Value =
            serde_json::from_str(&self.error).unwrap_or_else(|error| panic!("{error}: {}", self.error));
        assert_eq!(
            all["error"]["exit_code"].as_i64(),
            self.code.map(i64::from),
            "{all}"
        );
        all["error"].clone()
    }
}

/// Runs the command in an environment without settings of the engine.
fn run(directory: &Path, arguments: &[&str]) -> Ended {
    app::run(BINARY, directory, arguments)
}

/// Runs the command against `app`.
async fn call(app: &App, arguments: &[&str]) -> Ended {
    let server = app.url("");
    let directory = app.directory().to_owned();
    let mut all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    all.extend(["--server", &server, "--api-key", ADMIN_KEY].map(str::to_owned));
    tokio::task::spawn_blocking(move || run(&directory, &all.iter().map(String::as_str).collect::<Vec<_>>()))
        .await
        .expect("it ends")
}

#[test]
fn errors_are_json_where_json_is_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    for (arguments, kind, code) in [
        (&["check", "--json"][..], "usage", 2),
        (&["nonsense", "--json"], "usage", 2),
        (&["config", "--json", "--set", "http.drains=1"], "usage", 2),
        // Nobody listens at the port of "discard".
        (
            &[
                "usage",
                "x",
                "--json",
                "--server",
                "http://127.0.0.1:9",
                "--api-key",
                "k",
            ],
            "unreachable",
            3,
        ),
    ] {
        let ended = run(directory.path(), arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.error);
        assert_eq!(ended.refusal()["kind"], kind, "{arguments:?}");
    }
    let people = run(
        directory.path(),
        &["usage", "x", "--server", "http://127.0.0.1:9", "--api-key", "k"],
    );
    assert!(people.error.starts_with("error: "), "{}", people.error);
}

#[test]
fn the_configuration_that_would_apply_is_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let set = [
        "--set",
        "http.drain_s=5",
        "--set",
        "http.trusted_proxies=10.0.0.0/8",
    ];
    let shown = run(directory.path(), &[&["config", "--json"][..], &set].concat()).json();
    assert_eq!(shown["http"]["drain_s"], 5);
    assert_eq!(shown["http"]["trusted_proxies"], json!(["10.0.0.0/8"]));
    let text = run(directory.path(), &["config"]).out;
    std::fs::write(directory.path().join("shown.toml"), &text).expect("written");
    let again = run(directory.path(), &["config", "--config", "shown.toml"]).out;
    assert_eq!(again, text, "what is shown is a configuration file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_answered_with_what_is_near() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let meter = json!({"event_type": "call", "aggregation": "count"});
    app.admin().put("/v1/meters/tokens", &meter).await;
    let refused = call(&app, &["usage", "tokns", "--json"]).await.refusal();
    assert_eq!(
        (&refused["kind"], &refused["exit_code"]),
        (&json!("refused"), &json!(4))
    );
    assert_eq!(refused["problem"]["code"], "not_found");
    let detail = refused["detail"].as_str().expect("words");
    assert!(detail.ends_with("Did you mean \"tokens\"?"), "{detail}");
    for step in ["show", "pay", "void", "uncollectible", "verify", "html"] {
        let refused = call(&app, &["invoice", step, "INV-000001", "--json"])
            .await
            .refusal();
        let detail = refused["detail"].as_str().expect("words");
        assert_eq!(refused["problem"]["code"], "not_found", "{step}: {detail}");
        assert!(
            detail.contains("There is no invoice at all yet: turnpike invoice run"),
            "{step}: {detail}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_with_a_grace() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let made = call(&app, &["keys", "create", "report", "--scope", "read", "--json"])
        .await
        .json();
    let (id, key) = (
        made["id"].as_str().expect("an id"),
        made["key"].as_str().expect("a key"),
    );
    let next = call(&app, &["keys", "rotate", id, "--grace-s", "3600", "--json"])
        .await
        .json();
    let next_key = next["key"].as_str().expect("a key");
    assert_eq!(
        app.caller(key).get("/v1/meters").await.0,
        200,
        "the old one goes on for an hour"
    );
    assert_eq!(app.caller(next_key).get("/v1/meters").await.0, 200);
    let next_id = next["id"].as_str().expect("an id");
    let told = call(&app, &["keys", "rotate", next_id, "--grace-s", "0"]).await;
    assert_eq!(told.code, Some(0), "{}", told.error);
    assert_eq!(
        app.caller(next_key).get("/v1/meters").await.0,
        401,
        "{}",
        told.out
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_other_countries_are_imported() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let meter = json!({"event_type": "call", "aggregation": "sum", "value": "$.n"});
    app.admin().put("/v1/meters/cost", &meter).await;
    let files = tempfile::tempdir().expect("a directory");
    let table = files.path().join("kosten.csv").display().to_string();
    std::fs::write(&table, "wer;n\na;12,50\nb;1,5\n").expect("written");
    let import = [
        "import",
        &table,
        "--type",
        "call",
        "--subject-column",
        "wer",
        "--delimiter",
        ";",
        "--decimal-comma",
        "--now",
        "--json",
    ];
    assert_eq!(call(&app, &import).await.json()["accepted"], 2);
    assert_eq!(call(&app, &import).await.json()["duplicates"], 2);
    assert_eq!(app.admin().total("cost", "").await.as_deref(), Some("14"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_comes_back_as_the_files_that_it_is_applied_from() {
    let directory = tempfile::tempdir().expect("a directory");
    let app = App::start(BINARY, directory.path()).await;
    let sample = include_str!("../../config/sample-catalog.toml");
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let file = write("sample.toml", sample);
    let applied = call(&app, &["apply", &file, "--yes", "--json"]).await.json();
    assert!(!applied["created"].as_array().expect("a list").is_empty());
    let exported = directory.path().join("exported.toml").display().to_string();
    let ended = call(&app, &["export", "catalog", "-o", &exported]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.error);
    let again = call(&app, &["apply", &exported, "--dry-run", "--json"])
        .await
        .json();
    for part in ["created", "changed", "removed"] {
        assert_eq!(again[part], json!([]), "{part} of {again}");
    }

    let broken = format!(
        "{sample}\n[[plans]]\nkey = \"broken\"\ncurrency = \"USD\"\ntrial_days = 1\n\
        prices = [\n  {{key = \"x\", model = \"flat\", amount = \"1,5\"}}]\n"
    );
    let line = broken
        .lines()
        .position(|line| line.contains("1,5"))
        .expect("the line")
        + 1;
    let refused = call(&app, &["apply", &write("broken.toml", &broken), "--yes"]).await;
    assert_eq!(refused.code, Some(4), "{}", refused.error);
    let place = format!("broken.toml:{line}: /plans/");
    assert!(refused.error.contains(&place), "{place} {}", refused.error);
    let ended = call(&app, &["export", "catalog", "--format", "csv"]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.error);
}
