//! The engine under load: its own process, a data directory of its own, a catalog and customers.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::client::{Connection, Wire, request};
use crate::{Failure, Load};

/// The key that the engine is started with.
pub const API_KEY: &str = "load-generator-key-0123456789";

/// Seconds after which a start or a stop is given up.
const READY_S_MAX: u64 = 120;

/// A running engine. Killed when dropped.
pub struct Engine {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its data directory.
    pub directory: PathBuf,
}

impl Engine {
    /// Starts `binary` on a free port, with more environment, and waits until it says where it listens and is ready.
    pub async fn start(
        binary: &Path,
        directory: &Path,
        environment: &[(&str, &str)],
    ) -> Result<Self, Failure> {
        Self::start_by(Command::new(binary), directory, environment).await
    }

    /// The same by a command that runs the binary.
    pub async fn start_by(
        mut command: Command,
        directory: &Path,
        environment: &[(&str, &str)],
    ) -> Result<Self, Failure> {
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(directory)
            .env("TURNPIKE_BOOTSTRAP_API_KEY", API_KEY)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{command:?} cannot be started: {error}"))?;
        let lines = BufReader::new(child.stdout.take().ok_or("no output")?);
        let found = tokio::task::spawn_blocking(move || {
            let mut lines = lines.lines().map_while(Result::ok);
            let address = lines.find_map(|line| listening(&line));
            // Reads on, so that the engine never waits for a full pipe.
            std::thread::spawn(move || lines.for_each(drop));
            address
        });
        let address = found
            .await?
            .ok_or("the engine ended without saying where it listens")?;
        let engine = Self {
            child,
            address,
            directory: directory.to_owned(),
        };
        engine.wait_until_ready().await?;
        Ok(engine)
    }

    async fn wait_until_ready(&self) -> Result<(), Failure> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(READY_S_MAX) {
            if let Ok((200, _)) = self.get("/readyz").await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(format!("the engine was not ready within {READY_S_MAX} s").into())
    }

    /// Three meters on one event type, three features, one plan, and customers with a subscription each.
    pub async fn set_up(&self, load: &Load) -> Result<(), Failure> {
        for (key, body) in [
            (
                "tokens",
                json!({"event_type": "llm.request", "aggregation": "sum", "value": "$.tokens"}),
            ),
            (
                "requests",
                json!({"event_type": "llm.request", "aggregation": "count"}),
            ),
            (
                "by_model",
                json!({"event_type": "llm.request", "aggregation": "sum", "value": "$.tokens", "group_by": {"model": "$.model"}}),
            ),
            (
                "calls",
                json!({"event_type": "api.call", "aggregation": "sum", "value": "$.amount"}),
            ),
        ] {
            self.put(&format!("/v1/meters/{key}"), &body).await?;
        }
        let feature = |n: u32| format!("feature_{n}");
        for n in 0..3 {
            self.put(
                &format!("/v1/features/{}", feature(n)),
                &json!({"kind": "metered", "meter": "calls"}),
            )
            .await?;
        }
        let entitlement =
            |n: u32| json!({"feature": feature(n), "limits": [{"limit": "1000000000", "period": "billing"}]});
        let plan =
            json!({"currency": "USD", "entitlements": [entitlement(0), entitlement(1), entitlement(2)]});
        self.put("/v1/plans/load", &plan).await?;
        self.subscribe(0..load.customers, "load").await
    }

    /// Makes customers, each with a subscription to `plan` since the start of January 2026.
    pub async fn subscribe(&self, customers: Range<u32>, plan: &str) -> Result<(), Failure> {
        let mut connection = Connection::open(self.address, Wire::Http).await?;
        for n in customers {
            let key = key_of(n);
            let path = format!("/v1/customers/{key}");
            let put = request("PUT", &path, API_KEY, "application/json", b"{}");
            expect(connection.call(&put).await?)?;
            let body = json!({"customer": key, "plan": plan, "start": "2026-01-01T00:00:00Z"}).to_string();
            let post = request(
                "POST",
                "/v1/subscriptions",
                API_KEY,
                "application/json",
                body.as_bytes(),
            );
            expect(connection.call(&post).await?)?;
        }
        Ok(())
    }

    /// Makes or replaces something.
    pub async fn put(&self, path: &str, body: &Value) -> Result<(), Failure> {
        let mut connection = Connection::open(self.address, Wire::Http).await?;
        let bytes = request(
            "PUT",
            path,
            API_KEY,
            "application/json",
            body.to_string().as_bytes(),
        );
        expect(connection.call(&bytes).await?)
    }

    /// Status and JSON of a GET.
    pub async fn get(&self, path: &str) -> Result<(u16, Value), Failure> {
        let mut connection = Connection::open(self.address, Wire::Http).await?;
        let (status, body) = connection
            .call(&request("GET", path, API_KEY, "application/json", b""))
            .await?;
        Ok((status, serde_json::from_slice(body).unwrap_or(Value::Null)))
    }

    /// Ends it as kill -9 does.
    pub fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        let pid = Pid::from_raw(self.pid().cast_signed()).ok_or("no process")?;
        kill_process(pid, Signal::TERM)?;
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begin.elapsed() > Duration::from_secs(READY_S_MAX) {
                return Err(format!("the engine did not end within {READY_S_MAX} s").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory it has had resident, in bytes.
    pub fn peak_memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kibibytes.unwrap_or(0) * 1_024
    }

    /// Bytes of its data directory, as allocated.
    pub fn disk_bytes(&self) -> u64 {
        bytes_below(&self.directory, "")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The key of a customer.
pub fn key_of(n: u32) -> String {
    format!("c{n:07}")
}

fn expect((status, body): (u16, &[u8])) -> Result<(), Failure> {
    if (200..300).contains(&status) {
        return Ok(());
    }
    Err(format!("{status}: {}", String::from_utf8_lossy(body)).into())
}

/// The address in a line such as `listening on http://127.0.0.1:8080`.
fn listening(line: &str) -> Option<SocketAddr> {
    let at = line.find("127.0.0.1:")?;
    let text: String = line[at..]
        .chars()
        .take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':'))
        .collect();
    text.parse().ok()
}

/// Bytes of all files below `directory` whose names begin with `prefix`, as allocated.
pub fn bytes_below(directory: &Path, prefix: &str) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    let is_meant = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(prefix);
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path(), prefix),
            Ok(metadata) if is_meant(&entry) => metadata.blocks() * 512,
            Ok(_) | Err(_) => 0,
        })
        .sum()
}
