use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cli::{Client, CommandError};

/// How long a server may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Lines of its log that are told when it does not start.
const LAST_WORDS: usize = 10;
const POLL: Duration = Duration::from_millis(10);

/// A real server in a process of its own; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) base: String,
}

/// What every start of it has in common.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) data_dir: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) key: String,
}

impl Setting {
    /// Starts a server on a free port and waits until it is ready.
    pub(crate) async fn start(&self) -> Result<Server, CommandError> {
        let failed = |what: &str, error: std::io::Error| CommandError::failed(format!("{what}: {error}"));
        let program = std::env::current_exe().map_err(|error| failed("cannot find this program", error))?;
        let log = std::fs::File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(|error| failed(&format!("cannot write {}", self.log.display()), error))?;
        let mut command = Command::new(program);
        // The settings of the caller are for servers of its own.
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_setting(name)) {
            command.env_remove(name);
        }
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--stop-with-stdin", "--data-dir"])
            .arg(&self.data_dir)
            .env("TURNPIKE_BOOTSTRAP_API_KEY", &self.key)
            // Ctrl-C is for the demo, which ends it.
            .process_group(0)
            // It ends with the demo, however that ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|error| failed("cannot start the server", error))?;
        let base = child.stdout.take().and_then(listening);
        let server = Server {
            child,
            base: base.ok_or_else(|| ended_early(&self.log))?,
        };
        server.ready(&self.key, &self.log).await?;
        Ok(server)
    }
}

fn is_setting(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("TURNPIKE_"))
}

/// The address from the server's own words. What it says later is read on, so that it never waits for a full pipe.
fn listening(out: std::process::ChildStdout) -> Option<String> {
    let mut lines = BufReader::new(out).lines().map_while(Result::ok);
    let base = lines.find_map(|line| line.strip_prefix("turnpike listens on ").map(str::to_owned));
    std::thread::spawn(move || lines.for_each(drop));
    base
}

/// Its last words are told, for the log may be gone with a temporary directory.
fn ended_early(log: &Path) -> CommandError {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut last: Vec<_> = text.lines().rev().take(LAST_WORDS).collect();
    last.reverse();
    CommandError::failed(format!(
        "the server ended before it was ready. Its last words:\n{}",
        last.join("\n")
    ))
}

impl Server {
    async fn ready(&self, key: &str, log: &Path) -> Result<(), CommandError> {
        let client = Client::new(&self.base, key)?;
        let mut waited = Duration::ZERO;
        while waited < READY_WITHIN {
            let answer = client
                .send(reqwest::Method::GET, "/readyz", crate::cli::Body::None)
                .await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
            waited += POLL;
        }
        Err(ended_early(log))
    }

    /// SIGKILL: no warning, no chance to write anything.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<(), CommandError> {
        let failed = |error: String| CommandError::failed(format!("the server did not stop: {error}"));
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .map_err(|error| failed(error.to_string()))?;
        let status = self.child.wait().map_err(|error| failed(error.to_string()))?;
        if status.success() {
            Ok(())
        } else {
            Err(failed(status.to_string()))
        }
    }

    fn end(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}
