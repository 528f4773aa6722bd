//! The process: how it is started, and what it writes.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{ADMIN_KEY, AppOptions};

/// What a test is told by its environment, which is not the server's.
const OF_THE_TESTS: [&str; 5] = [
    "TURNPIKE_TEST_SEED",
    "TURNPIKE_TEST_NIGHTLY",
    "TURNPIKE_TEST_SHOW",
    "TURNPIKE_TEST_KEEP_FORMAT",
    "TURNPIKE_TEST_RELEASE",
];

/// Starts the server and waits until it listens. What it writes to standard error is appended to `log`, or shown where
/// `TURNPIKE_TEST_SHOW` is set. `Err`: how it ended before it listened.
pub(super) fn spawn(
    options: &AppOptions,
    log: &Path,
) -> Result<(Child, SocketAddr), std::process::ExitStatus> {
    let errors = if std::env::var_os("TURNPIKE_TEST_SHOW").is_some() {
        Stdio::inherit()
    } else {
        let log = std::fs::File::options().append(true).open(log);
        log.expect("the server's log").into()
    };
    let mut command = Command::new(&options.binary);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&options.directory)
        .env("TURNPIKE_BOOTSTRAP_API_KEY", ADMIN_KEY);
    for name in OF_THE_TESTS {
        command.env_remove(name);
    }
    command.envs(options.environment.iter().map(|(name, value)| (name, value)));
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .expect("the binary");
    let out = child.stdout.take().expect("standard output");
    let mut lines = BufReader::new(out).lines().map_while(Result::ok);
    let Some(address) = lines.find_map(|line| listening(&line)) else {
        return Err(child.wait().expect("an end"));
    };
    // Reads on, so that the server never waits for a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Ok((child, address))
}

fn listening(line: &str) -> Option<SocketAddr> {
    let at = line.find("127.0.0.1:")?;
    let text: String = line[at..]
        .chars()
        .take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':'))
        .collect();
    text.parse().ok()
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub error: String,
}

/// Runs the binary with arguments, for 60 s at the most, in an environment without settings of the engine.
pub fn run(binary: &str, directory: &Path, arguments: &[&str]) -> Ended {
    let mut command = Command::new("timeout");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TURNPIKE_") {
            command.env_remove(name);
        }
    }
    let out = command
        .current_dir(directory)
        .args(["60", binary])
        .args(arguments)
        .output()
        .expect("it runs");
    Ended {
        code: out.status.code(),
        out: String::from_utf8_lossy(&out.stdout).into_owned(),
        error: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}
