//! `turnpike serve`, for people and for programs that start it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::rig::{Server, alone, bare, wait_until};

#[test]
fn a_key_that_nobody_would_see_is_not_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let serve = "exec \"$0\" serve --data-dir data --listen 127.0.0.1:0";
    for nowhere in [">&-", ">/dev/null", ">/dev/full"] {
        let mut shell = bare(directory.path(), "sh");
        let ended = shell
            .args([
                "-c",
                &format!("{serve} {nowhere}"),
                env!("CARGO_BIN_EXE_turnpike"),
            ])
            .output()
            .expect("it runs");
        let error = String::from_utf8(ended.stderr).expect("UTF-8");
        assert_eq!(ended.status.code(), Some(1), "{nowhere}: {error}");
        assert!(error.contains("TURNPIKE_BOOTSTRAP_API_KEY"), "{nowhere}: {error}");
    }
    let mut child = bare(directory.path(), env!("CARGO_BIN_EXE_turnpike"))
        .args([
            "serve",
            "--data-dir",
            "data",
            "--listen",
            "127.0.0.1:0",
            "--json",
            "--stop-with-stdin",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let said: Vec<Value> = lines
        .take(2)
        .map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON"))
        .collect();
    assert!(
        said[0]["api_key"].as_str().is_some_and(|key| key.len() > 20),
        "{said:?}"
    );
    let base = said[1]["listens"].as_str().expect("an address").to_owned();
    let key = said[0]["api_key"].as_str().expect("a key").to_owned();
    let listed = alone(
        directory.path(),
        &["keys", "list", "--server", &base, "--api-key", &key],
    );
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let mut input = child.stdin.take().expect("its input");
    input
        .write_all(b"what is said to it means nothing\n")
        .expect("taken");
    drop(input);
    assert!(
        child.wait().expect("it ends").success(),
        "it stops with its standard input"
    );
}

#[test]
fn the_server_of_a_demo_ends_with_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut demo = bare(directory.path(), env!("CARGO_BIN_EXE_turnpike"))
        .args(["demo", "--data-dir", "kept"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let told = BufReader::new(demo.stdout.take().expect("its story"));
    let ready = told
        .lines()
        .map_while(Result::ok)
        .any(|line| line.contains("is ready after"));
    assert!(ready, "it told of no server");
    demo.kill().expect("killed");
    demo.wait().expect("it ends");
    // A server holds the lock of its data directory as long as it lives.
    wait_until(|| alone(directory.path(), &["verify", "--data-dir", "kept/data"]).code == Some(0));
}

#[test]
fn every_command_says_as_json_that_nobody_listens() {
    let mut server = Server::start();
    server.kill();
    let file = server.file("a.csv", "who,n\na,1\n");
    for command in [
        &["apply", "catalog.toml", "--yes"][..],
        &[
            "import",
            &file,
            "--type",
            "call",
            "--subject-column",
            "who",
            "--now",
        ],
        &["usage", "tokens"],
        &["check", "acme", "tokens"],
        &["invoice", "list"],
        &["invoice", "show", "x"],
        &["invoice", "upcoming", "acme"],
        &["invoice", "run", "--period-end", "2026-01-01T00:00:00Z"],
        &["invoice", "finalize", "x"],
        &["invoice", "html", "x"],
        &["keys", "list"],
        &["keys", "revoke", "x"],
        &["export", "usage"],
        &["export", "catalog"],
        &["verify"],
    ] {
        let error = server.call(&[command, &["--json"]].concat());
        assert_eq!(error.out, "", "{command:?}");
        let said: Value = serde_json::from_str(&error.failed(3)).expect("JSON alone");
        assert_eq!(said["error"]["kind"], "unreachable", "{command:?}");
    }
}

#[test]
fn a_reader_of_errors_that_went_away_changes_no_exit_code() {
    let mut server = Server::start();
    let unheard = |server: &Server, arguments: &[&str]| {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = server.command(arguments);
        let status = command.stdout(Stdio::null()).stderr(writer).status();
        status.expect("it runs").code()
    };
    for json in [&[][..], &["--json"]] {
        assert_eq!(unheard(&server, &[&["usage", "nope"], json].concat()), Some(4));
        assert_eq!(unheard(&server, &[&["usage"], json].concat()), Some(2));
        assert_eq!(
            unheard(&server, &[&["check", "acme", "tokens", "--odd"], json].concat()),
            Some(2)
        );
    }
    server.kill();
    assert_eq!(unheard(&server, &["usage", "tokens"]), Some(3));
}

#[test]
fn a_demo_that_is_stopped_leaves_nothing_behind() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let temporary = tempfile::tempdir().expect("a directory");
        let mut demo = bare(temporary.path(), env!("CARGO_BIN_EXE_turnpike"))
            .arg("demo")
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut told = BufReader::new(demo.stdout.take().expect("its story")).lines();
        let ready = told.any(|line| line.is_ok_and(|line| line.contains("is ready after")));
        assert!(ready, "it told of no server");
        let left = || std::fs::read_dir(temporary.path()).expect("a directory").count();
        assert_eq!(left(), 1);
        rustix::process::kill_process(Pid::from_child(&demo), signal).expect("stopped");
        told.for_each(drop);
        assert_eq!(demo.wait().expect("it ends").code(), Some(code));
        assert_eq!(left(), 0);
    }
}

#[test]
fn what_is_written_with_json_is_json() {
    let server = Server::start();
    let file = server.file("a.csv", "who,n\nacme,1\nacme,2\n");
    let import = [
        "import",
        &file,
        "--type",
        "call",
        "--subject-column",
        "who",
        "--now",
    ];
    server.call(&import).succeeded();
    let catalog = server.call(&["export", "catalog", "--json"]).json();
    assert_eq!(catalog["plans"][0]["key"], "pro");
    let lines = server
        .call(&["export", "usage", "--with", "meter=tokens", "--json"])
        .succeeded();
    let rows: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(rows[0]["value"], "3", "{lines}");
    let both = ["export", "audit", "--format", "csv", "--json"];
    assert!(server.call(&both).failed(2).contains("leave out"));
    assert!(
        server
            .call(&["apply", "catalog.toml", "--json"])
            .failed(2)
            .contains("--yes")
    );
    let made = server
        .call(&["keys", "create", "a", "--scope", "read", "--json"])
        .json();
    let id = made["id"].as_str().expect("an id");
    assert_eq!(
        server.call(&["keys", "revoke", id, "--json"]).json()["revoked"],
        true
    );
}

#[test]
fn an_unknown_invoice_stops_no_other() {
    let server = Server::start();
    server.send(
        reqwest::Method::PUT,
        "/v1/customers/acme",
        &serde_json::json!({"name": "Acme"}),
    );
    server.send(
        reqwest::Method::POST,
        "/v1/subscriptions",
        &serde_json::json!({"customer": "acme", "plan": "pro", "start": "2025-01-01T00:00:00Z"}),
    );
    server
        .call(&["invoice", "run", "--period-end", "2025-03-01T00:00:00Z"])
        .succeeded();
    let page = server.call(&["invoice", "html", "INV-000001", "--json"]).json();
    assert!(
        page["html"]
            .as_str()
            .is_some_and(|html| html.contains("INV-000001"))
    );
    let named = ["verify", "NO-1", "INV-000001", "NO-2", "INV-000002", "--json"];
    let ended = server.call(&named);
    let found: Value = serde_json::from_str(&ended.out).expect("JSON");
    let outcome = |at: usize| (found[at]["invoice"].as_str(), found[at]["verified"].as_bool());
    assert_eq!(
        [0, 1, 2, 3].map(outcome),
        [
            (Some("NO-1"), None),
            (Some("INV-000001"), Some(true)),
            (Some("NO-2"), None),
            (Some("INV-000002"), Some(true))
        ]
    );
    assert_eq!(found[0]["reason"], "not_found");
    assert!(ended.failed(5).contains("2 of 4 invoices could not be verified"));
}
