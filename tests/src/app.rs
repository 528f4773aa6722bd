//! The real binary under test: started on a free port with a data directory of its own, killed and started again.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::Value;

/// The admin key of every app under test.
pub const ADMIN_KEY: &str = "test-bootstrap-key-0123456789";

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
    /// An engine whose views are checkpointed and merged after every few events, so that a short test passes all
    /// durable steps.
    pub fn small(binary: &str, directory: &Path) -> Self {
        let small = [
            ("TURNPIKE_ENGINE_CHECKPOINT_EVENTS", "500"),
            ("TURNPIKE_ENGINE_SEGMENT_BYTES", "65536"),
        ];
        let environment = small
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        Self {
            binary: binary.into(),
            directory: directory.to_owned(),
            environment,
        }
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
}

impl App {
    /// Starts the server and waits until it is ready.
    pub async fn start(binary: &str, directory: &Path) -> Self {
        let options = AppOptions {
            binary: binary.into(),
            directory: directory.to_owned(),
            environment: Vec::new(),
        };
        Self::start_with(options).await
    }

    /// The same with options.
    pub async fn start_with(options: AppOptions) -> Self {
        // The second test of a process finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .build()
            .expect("a client");
        let (child, address) = spawn(&options).expect("the server starts");
        let app = Self {
            options,
            child: Some(child),
            address,
            client,
        };
        app.wait_until_ready().await;
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
        let mut child = self.child.take().expect("a running server");
        let pid = child.id().to_string();
        let sent = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("kill runs");
        assert!(sent.success());
        (child.wait().expect("an end").code(), begin.elapsed())
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
        self.child
            .as_mut()
            .is_none_or(|child| child.try_wait().expect("a state").is_some())
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running server").id()
    }

    /// Sets a variable of the environment for all later starts.
    pub fn set(&mut self, name: &str, value: &str) {
        self.options.set(name, value);
    }

    /// Starts again on the same data directory with a fail point armed. False: it died before it was ready.
    pub async fn restart_armed(&mut self, fail_point: &str) -> bool {
        self.kill();
        let mut options = self.options.clone();
        options
            .environment
            .push(("TURNPIKE_TEST_FAIL_POINT".to_owned(), fail_point.to_owned()));
        let Some((child, address)) = spawn(&options) else {
            return false;
        };
        (self.child, self.address) = (Some(child), address);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(30) && !self.has_ended() {
            if self
                .client
                .get(self.url("/readyz"))
                .send()
                .await
                .is_ok_and(|answer| answer.status() == StatusCode::OK)
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// Starts again on the same data directory, with other environment; how long it took to be ready.
    pub async fn restart_with(&mut self, environment: Vec<(String, String)>) -> Duration {
        self.kill();
        let begin = Instant::now();
        self.options.environment = environment;
        let (child, address) = spawn(&self.options).expect("the server starts again");
        (self.child, self.address) = (Some(child), address);
        self.wait_until_ready().await;
        begin.elapsed()
    }

    /// Kills and starts again.
    pub async fn restart(&mut self) -> Duration {
        let environment = self.options.environment.clone();
        self.restart_with(environment).await
    }

    async fn wait_until_ready(&self) {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(30) {
            let answer = self.client.get(self.url("/readyz")).send().await;
            if answer.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the server was not ready within 30 s");
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
}

impl Drop for App {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(options: &AppOptions) -> Option<(Child, SocketAddr)> {
    let mut child = Command::new(&options.binary)
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&options.directory)
        .env("TURNPIKE_BOOTSTRAP_API_KEY", ADMIN_KEY)
        .env_remove("TURNPIKE_TEST_SEED")
        .env_remove("TURNPIKE_TEST_NIGHTLY")
        .env_remove("TURNPIKE_TEST_SHOW")
        .envs(
            options
                .environment
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        )
        .stdout(Stdio::piped())
        .stderr(if std::env::var_os("TURNPIKE_TEST_SHOW").is_some() {
            Stdio::inherit()
        } else {
            Stdio::null()
        })
        .spawn()
        .ok()?;
    let mut lines = BufReader::new(child.stdout.take()?).lines().map_while(Result::ok);
    let address = lines.find_map(|line| listening(&line));
    // Reads on, so that the server never waits for a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    if address.is_none() {
        let _ = child.wait();
    }
    Some((child, address?))
}

fn listening(line: &str) -> Option<SocketAddr> {
    let at = line.find("127.0.0.1:")?;
    let text: String = line[at..]
        .chars()
        .take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':'))
        .collect();
    text.parse().ok()
}

/// Somebody with an API key.
#[derive(Clone)]
pub struct Caller {
    base: String,
    api_key: String,
    client: reqwest::Client,
}

/// Status and JSON body; `None` when no answer came.
pub type Answer = Option<(u16, Value)>;

impl Caller {
    /// The key.
    pub fn api_key(&self) -> String {
        self.api_key.clone()
    }

    /// Sends a request with a JSON body, if any.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.api_key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let text = answer.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Sends NDJSON lines.
    pub async fn send_lines(&self, lines: Vec<u8>) -> Answer {
        let request = self
            .client
            .post(format!("{}/v1/events", self.base))
            .bearer_auth(&self.api_key);
        let answer = request
            .header("content-type", "application/x-ndjson")
            .body(lines)
            .send()
            .await
            .ok()?;
        let status = answer.status().as_u16();
        let text = answer.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// GET, which must answer.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send(Method::GET, path, None)
            .await
            .unwrap_or_else(|| panic!("GET {path}: no answer"))
    }

    /// POST, which must answer.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send(Method::POST, path, Some(body))
            .await
            .unwrap_or_else(|| panic!("POST {path}: no answer"))
    }

    /// PUT, which must succeed.
    pub async fn put(&self, path: &str, body: &Value) -> Value {
        let answer = self.send(Method::PUT, path, Some(body)).await;
        let (status, body) = answer.unwrap_or_else(|| panic!("PUT {path}: no answer"));
        assert!((200..300).contains(&status), "PUT {path}: {status} {body}");
        body
    }

    /// POST, which must succeed.
    pub async fn created(&self, path: &str, body: &Value) -> Value {
        let (status, body) = self.post(path, body).await;
        assert!((200..300).contains(&status), "POST {path}: {status} {body}");
        body
    }

    /// The one value of a meter over a range; `None` where it is null or there is no row.
    pub async fn total(&self, meter: &str, query: &str) -> Option<String> {
        let path = format!("/v1/meters/{meter}/usage?{query}");
        let (status, body) = self.get(&path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body["data"][0]["value"].as_str().map(str::to_owned)
    }
}
