//! OpenMeter's official clients, unchanged, against our server. They are installed from their registries into a cache
//! outside the project; where that cannot be done, the test says so and proves nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use turnpike_tests::app::{ADMIN_KEY, App};

const BINARY: &str = env!("CARGO_BIN_EXE_turnpike-under-test");
const PYTHON_CLIENT: &str = "openmeter==1.0.0b236";
const NODE_CLIENT: &str = "@openmeter/sdk@1.0.0-beta.232";

fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into())).join(".cache");
    base.unwrap_or_else(home).join("turnpike/clients")
}

/// Runs a command; false, and a plain line, where it cannot run or fails.
fn done(what: &str, command: &mut Command) -> bool {
    match command.output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            println!(
                "NOT RUN: {what} failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            false
        }
        Err(error) => {
            println!("NOT RUN: {what} cannot be started: {error}");
            false
        }
    }
}

fn python() -> Option<PathBuf> {
    let directory = cache().join("python");
    let python = directory.join("bin/python");
    let marker = directory.join(PYTHON_CLIENT);
    if marker.exists() {
        return Some(python);
    }
    let made = done(
        "python3 -m venv",
        Command::new("python3").args(["-m", "venv"]).arg(&directory),
    ) && done(
        "pip install",
        Command::new(&python).args(["-m", "pip", "install", "-q", "--pre", PYTHON_CLIENT]),
    );
    made.then(|| std::fs::write(marker, "").ok()).flatten()?;
    Some(python)
}

fn node() -> Option<PathBuf> {
    let directory = cache().join("node");
    if directory.join("installed").exists() {
        return Some(directory);
    }
    std::fs::create_dir_all(&directory).ok()?;
    let npm = ["install", "--no-audit", "--no-fund", "--prefix"];
    done(
        "npm install",
        Command::new("npm").args(npm).arg(&directory).arg(NODE_CLIENT),
    )
    .then_some(())?;
    std::fs::write(directory.join("installed"), "").ok()?;
    Some(directory)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

async fn server(directory: &Path) -> App {
    let app = App::start(BINARY, directory).await;
    let meter = json!({"event_type": "prompt", "aggregation": "sum", "value": "$.tokens", "group_by": {"model": "$.model"}});
    app.admin().put("/v1/meters/tokens_total", &meter).await;
    app
}

fn runs(app: &App, command: &mut Command) {
    let output = command
        .env("TURNPIKE_URL", app.url(""))
        .env("TURNPIKE_API_KEY", ADMIN_KEY)
        .output()
        .expect("the client starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client() {
    let Some(python) = python() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let app = server(directory.path()).await;
    tokio::task::block_in_place(|| runs(&app, Command::new(python).arg(script("openmeter_client.py"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_javascript_client() {
    let Some(directory) = node() else { return };
    let data = tempfile::tempdir().expect("a directory");
    let app = server(data.path()).await;
    let mut command = Command::new("node");
    command
        .arg(script("openmeter_client.mjs"))
        .env("CLIENTS_DIR", directory);
    tokio::task::block_in_place(|| runs(&app, &mut command));
}
