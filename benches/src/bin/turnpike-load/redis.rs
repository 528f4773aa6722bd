//! A raw Redis script that takes from a limit, in the place of an engine: what a limiter over Redis costs before anything around it.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::client::{Connection, Wire};

/// Takes ARGV[1] from the limit ARGV[2] where as much is left.
const TAKE: &str = "if tonumber(redis.call('GET', KEYS[1]) or '0') + tonumber(ARGV[1]) > tonumber(ARGV[2]) then return 0 end \
                    redis.call('INCRBY', KEYS[1], ARGV[1]) return 1";
/// Never reached.
const LIMIT: &str = "1000000000";
const SECONDS_MAX: u64 = 10;

/// Starts `redis-server` on a free port, in memory only.
pub fn start(directory: &Path) -> Result<(Child, SocketAddr), Failure> {
    // The port is free again when this goes; whoever takes it before Redis does makes its start fail.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let child = Command::new("redis-server")
        .args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--port",
        ])
        .arg(address.port().to_string())
        .arg("--dir")
        .arg(directory)
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| {
            format!("redis-server is not on this machine (Debian has it as a package): {error}")
        })?;
    Ok((child, address))
}

/// Waits until it answers, and gives it the script.
pub async fn prepare(address: SocketAddr) -> Result<Wire, Failure> {
    let begin = Instant::now();
    let mut connection = loop {
        match Connection::open(address, Wire::Redis(String::new())).await {
            Ok(connection) => break connection,
            Err(error) if begin.elapsed() > Duration::from_secs(SECONDS_MAX) => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let (_, line) = connection.call(&command(&["SCRIPT", "LOAD", TAKE])).await?;
    if !line.starts_with(b"$40") {
        return Err(format!("SCRIPT LOAD: {}", String::from_utf8_lossy(line)).into());
    }
    let (_, sha) = connection.call(b"").await?;
    Ok(Wire::Redis(String::from_utf8(sha.to_vec())?))
}

/// Takes one for a customer and feature.
pub fn take(sha: &str, customer: &str, feature: &str) -> Vec<u8> {
    let key = format!("load/{customer}/{feature}");
    command(&["EVALSHA", sha, "1", &key, "1", LIMIT])
}

fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}
