//! The real binary under test: started on a free port with a data directory of its own, killed and started again.

mod caller;
mod process;

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use reqwest::StatusCode;

pub use caller::{Answer, Caller};
pub use process::{Ended, run};

/// The admin key of every app under test.
pub const ADMIN_KEY: &str = "test-bootstrap-key-0123456789";
/// How long a start may take.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// The signal of `abort`, with which a fail point ends the process.
const SIGABRT: i32 = 6;

/// How the binary is started.
#[derive(Debug, Clone)]
pub struct AppOptions {
    /// The binary: `env!("CARGO_BIN_EXE_turnpike-under-test")`.
    pub binary: PathBuf,
    /// The data directory.
    pub directory: PathBuf,
    /// More environment.
    pub environment: Vec<(String, String)>,
}

impl AppOptions {
    /// The engine with its defaults.
    pub fn new(binary: &str, directory: &Path) -> Self {
        Self {
            binary: binary.into(),
            directory: directory.to_owned(),
            environment: Vec::new(),
        }
    }

    /// An engine whose views are checkpointed and merged after every few events, so that a short test passes all
    /// durable steps.
    pub fn small(binary: &str, directory: &Path) -> Self {
        let mut options = Self::new(binary, directory);
        options.set("TURNPIKE_ENGINE_CHECKPOINT_EVENTS", "500");
        options.set("TURNPIKE_ENGINE_SEGMENT_BYTES", "65536");
        options
    }

    /// Sets a variable of the environment.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }
}

/// A running server.
pub struct App {
    options: AppOptions,
    child: Option<Child>,
    address: SocketAddr,
    client: reqwest::Client,
    log: tempfile::NamedTempFile,
    /// How the last process ended that ended by itself.
    ended: Option<ExitStatus>,
}

impl App {
    /// Starts the server and waits until it is ready.
    pub async fn start(binary: &str, directory: &Path) -> Self {
        Self::start_with(AppOptions::new(binary, directory)).await
    }

    /// The same with options.
    pub async fn start_with(options: AppOptions) -> Self {
        // The second test of a process finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .build()
            .expect("a client");
        let log = tempfile::NamedTempFile::new().expect("a file for the log");
        let (child, address) = process::spawn(&options, log.path()).expect("the server starts");
        let mut app = Self {
            options,
            child: Some(child),
            address,
            client,
            log,
            ended: None,
        };
        app.must_be_ready().await;
        app
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends SIGTERM and waits for the end; the exit code and how long it took.
    pub fn terminate(&mut self) -> (Option<i32>, Duration) {
        let begin = Instant::now();
        self.signal("TERM");
        let mut child = self.child.take().expect("a running server");
        (child.wait().expect("an end").code(), begin.elapsed())
    }

    /// Sends a signal by its name, from outside, as an operator's would be.
    pub fn signal(&self, name: &str) {
        assert!(signal(self.pid(), name), "SIG{name} was not sent");
    }

    /// Whether the process ends by itself within a time.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        let begin = Instant::now();
        while !self.has_ended() {
            if begin.elapsed() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Whether the process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait().expect("a state")
        {
            self.ended = Some(status);
            self.child = None;
        }
        self.child.is_none()
    }

    /// Whether the last process that ended by itself was ended by this fail point, for it says so and aborts.
    pub fn died_at(&self, fail_point: &str) -> bool {
        let point = fail_point.split(':').next().unwrap_or_default();
        let says = format!("fail point {point} ends the process");
        // What is shown on the terminal is not in the log.
        let told = std::env::var_os("TURNPIKE_TEST_SHOW").is_some() || self.log().contains(&says);
        told && self.ended.and_then(|status| status.signal()) == Some(SIGABRT)
    }

    /// What all processes on this directory wrote to standard error.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log.path()).expect("the server's log");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running server").id()
    }

    /// The most memory that the process had resident, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        kib.and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") * 1024
    }

    /// Sets a variable of the environment for all later starts.
    pub fn set(&mut self, name: &str, value: &str) {
        self.options.set(name, value);
    }

    /// Starts again on the same data directory with a fail point armed. False: it died before it was ready.
    pub async fn restart_armed(&mut self, fail_point: &str) -> bool {
        self.kill();
        self.ended = None;
        let mut options = self.options.clone();
        options.set("TURNPIKE_TEST_FAIL_POINT", fail_point);
        match process::spawn(&options, self.log.path()) {
            Err(status) => {
                self.ended = Some(status);
                false
            }
            Ok((child, address)) => {
                (self.child, self.address) = (Some(child), address);
                self.is_ready().await
            }
        }
    }

    /// Kills and starts again on the same data directory; how long it took to be ready.
    pub async fn restart(&mut self) -> Duration {
        self.kill();
        let begin = Instant::now();
        let (child, address) =
            process::spawn(&self.options, self.log.path()).expect("the server starts again");
        (self.child, self.address) = (Some(child), address);
        self.must_be_ready().await;
        begin.elapsed()
    }

    async fn must_be_ready(&mut self) {
        assert!(self.is_ready().await, "the server was not ready: {}", self.log());
    }

    /// Whether it becomes ready, before it ends or its time is over.
    async fn is_ready(&mut self) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < READY_WITHIN && !self.has_ended() {
            let answer = self.client.get(self.url("/readyz")).send().await;
            if answer.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Where the server listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The data directory.
    pub fn directory(&self) -> &Path {
        &self.options.directory
    }

    /// A caller with the admin key.
    pub fn admin(&self) -> Caller {
        self.caller(ADMIN_KEY)
    }

    /// A caller with another key.
    pub fn caller(&self, api_key: &str) -> Caller {
        Caller {
            base: format!("http://{}", self.address),
            api_key: api_key.to_owned(),
            client: self.client.clone(),
        }
    }

    /// Makes a tenant; the admin key of it.
    pub async fn tenant(&self, declared: &serde_json::Value) -> String {
        let made = self.admin().created("/v1/tenants", declared).await;
        let key = made["api_key"].as_str().expect("a key").to_owned();
        assert_ne!(key, ADMIN_KEY);
        key
    }

    /// Runs a command of the binary on the data directory, which no server must hold; what it said with `--json`.
    pub fn offline(&self, command: &str) -> serde_json::Value {
        let binary = self.options.binary.to_string_lossy();
        let directory = self.directory().to_string_lossy();
        let arguments = [command, "--json", "--data-dir", &directory];
        let ended = run(&binary, Path::new("/"), &arguments);
        assert_eq!(ended.code, Some(0), "{command}: {}{}", ended.out, ended.error);
        serde_json::from_str(&ended.out).unwrap_or(serde_json::Value::Null)
    }
}

/// Sends a signal to a process; whether it was there.
pub fn signal(pid: u32, name: &str) -> bool {
    let sent = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status();
    sent.expect("kill runs").success()
}

impl Drop for App {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(4_000);
            let from = (from..log.len())
                .find(|at| log.is_char_boundary(*at))
                .unwrap_or(0);
            println!("the end of the server's log:\n{}", &log[from..]);
        }
    }
}
