//! The real binary: as a server, and as the commands that call it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

const TURNPIKE: &str = env!("CARGO_BIN_EXE_turnpike");
const KEY: &str = "test-bootstrap-key-0123456789";
/// What all tests measure and sell.
const CATALOG: &str = r#"
[[meters]]
key = "tokens"
event_type = "call"
aggregation = "sum"
value = "$.n"
group_by = { model = "$.model" }

[[meters]]
key = "requests"
event_type = "http.request"
aggregation = "count"

[[features]]
key = "tokens"
name = "Tokens"
kind = "metered"
meter = "tokens"

[[plans]]
key = "pro"
name = "Pro"
currency = "USD"
prices = [
    { key = "base", model = "flat", amount = "29.00" },
    { key = "tokens", meter = "tokens", model = "per_unit", unit_amount = "0.01", included = "100" },
]
entitlements = [
    { feature = "tokens", limits = [
        { limit = "10000", period = "month", mode = "hard" },
        { limit = "500", period = "day", mode = "hard" },
    ] },
]
"#;

/// A running server, killed when it is let go of.
pub(crate) struct Server {
    directory: tempfile::TempDir,
    child: Option<Child>,
    address: String,
}

impl Server {
    /// A server with the catalog of all tests.
    pub(crate) fn start() -> Self {
        let mut server = Self {
            directory: tempfile::tempdir().expect("a directory"),
            child: None,
            address: "127.0.0.1:0".to_owned(),
        };
        server.serve();
        std::fs::write(server.path("catalog.toml"), CATALOG).expect("written");
        server.call(&["apply", "catalog.toml", "--yes"]).succeeded();
        server
    }

    /// Starts it at the address that it has, or at a free one.
    pub(crate) fn serve(&mut self) {
        let mut child = bare(&self.path(""), TURNPIKE)
            .args(["serve", "--data-dir", "data", "--listen", &self.address])
            .env("TURNPIKE_BOOTSTRAP_API_KEY", KEY)
            .env("TURNPIKE_TELEMETRY_LOG_FILTER", "error")
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut said = String::new();
        BufReader::new(child.stdout.take().expect("its output"))
            .read_line(&mut said)
            .expect("a line");
        match said.trim().strip_prefix("turnpike listens on http://") {
            Some(address) => address.clone_into(&mut self.address),
            None => panic!("it said: {said}"),
        }
        self.child = Some(child);
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("it ends");
        }
    }

    /// A file of this test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A call of the API that succeeds, for what has no command.
    pub(crate) fn send(&self, method: reqwest::Method, path: &str, body: &serde_json::Value) {
        // The second test of a process finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let answer = runtime.block_on(async {
            let url = format!("http://{}{path}", self.address);
            let call = reqwest::Client::new()
                .request(method, url)
                .bearer_auth(KEY)
                .json(body);
            let answer = call.send().await.expect("an answer");
            (answer.status(), answer.text().await.expect("its text"))
        });
        assert!(answer.0.is_success(), "{path}: {answer:?}");
    }

    /// Writes a file and gives its name.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), content).expect("written");
        name.to_owned()
    }

    /// Runs a command against this server, beside its files.
    pub(crate) fn call(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output().expect("it runs"))
    }

    /// Starts a command that reads what is written to it.
    pub(crate) fn fed(&self, arguments: &[&str]) -> Fed {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let input = child.stdin.take();
        Fed { child, input }
    }

    /// All usage of the meter of tokens.
    pub(crate) fn total(&self) -> String {
        let rows = self.call(&["usage", "tokens", "--json"]).json();
        rows[0]["value"].as_str().unwrap_or("0").to_owned()
    }

    /// A command that speaks to this server.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare(&self.path(""), TURNPIKE);
        command
            .args(arguments)
            .env("TURNPIKE_SERVER", format!("http://{}", self.address))
            .env("TURNPIKE_API_KEY", KEY);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command that waits for more input.
pub(crate) struct Fed {
    child: Child,
    input: Option<ChildStdin>,
}

impl Fed {
    pub(crate) fn write(&mut self, text: &str) {
        let input = self.input.as_mut().expect("an open input");
        input.write_all(text.as_bytes()).expect("taken");
        input.flush().expect("taken");
    }

    /// Sends a signal, with the input still open, and waits.
    pub(crate) fn stop(mut self, signal: rustix::process::Signal) -> Ended {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("sent");
        // `wait_with_output` would close what it has of the input.
        let _open = self.input.take();
        Ended::of(self.child.wait_with_output().expect("it ends"))
    }

    /// Ends the input and waits.
    pub(crate) fn end(mut self) -> Ended {
        self.input = None;
        Ended::of(self.child.wait_with_output().expect("it ends"))
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) error: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            error: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// What it wrote, and that it succeeded.
    pub(crate) fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.error);
        self.out
    }

    /// The JSON document that it wrote.
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.succeeded()).expect("JSON alone")
    }

    /// What it wrote to standard error, and that it ended with `code`.
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.error);
        self.error
    }
}

/// Runs a command that needs no server.
pub(crate) fn alone(directory: &Path, arguments: &[&str]) -> Ended {
    Ended::of(
        bare(directory, TURNPIKE)
            .args(arguments)
            .output()
            .expect("it runs"),
    )
}

/// Looks again and again, for a minute at the most.
pub(crate) fn wait_until(mut reached: impl FnMut() -> bool) {
    for _ in 0..1_200 {
        if reached() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("it was waited for in vain");
}

/// A program in an environment without settings of the engine, as wide as a usual terminal.
pub(crate) fn bare(directory: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TURNPIKE_") {
            command.env_remove(name);
        }
    }
    command.current_dir(directory).env("COLUMNS", "100");
    command
}
