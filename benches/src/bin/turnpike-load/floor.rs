//! The floors: the least work that any program must do for a job, on the same runtime and framework.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use crate::Failure;
use crate::client::Wire;
use crate::job::Job;
use crate::redis;

/// Which floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Floor {
    /// Reads the body and answers (T2, T5).
    Echo,
    /// Reads the same JSON as a quota check and writes the same JSON (T3).
    Json,
    /// Parses, appends and makes durable by group, without dedup or counting (T1).
    Append,
    /// A script of `redis-server`, which must be on this machine, for each decision (jobs `check` and `consume`).
    Redis,
    /// Limitador in memory behind HTTP (beyond T3).
    #[cfg(feature = "peers")]
    Limitador,
}

impl Floor {
    /// The floor of a job; none where the target names none.
    pub const fn of(job: Job) -> Option<Self> {
        match job {
            Job::Ingest => Some(Self::Append),
            Job::Event | Job::Consume => Some(Self::Echo),
            Job::Check => Some(Self::Json),
            Job::Batch | Job::Usage | Job::Top => None,
        }
    }
}

/// A floor in a process of its own, as the engine has one. Killed when dropped.
pub struct FloorProcess {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it speaks.
    pub wire: Wire,
}

impl FloorProcess {
    /// Starts this program as `floor`, or what stands for it.
    pub async fn start(floor: Floor, directory: &Path) -> Result<Self, Failure> {
        if floor == Floor::Redis {
            let (child, address) = redis::start(directory)?;
            let mut started = Self {
                child,
                address,
                wire: Wire::Http,
            };
            started.wire = redis::prepare(address).await?;
            return Ok(started);
        }
        let name = floor.to_possible_value().ok_or("a floor has no name")?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["floor", name.get_name(), "--directory"])
            .arg(directory)
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .ok_or("the floor did not start")?
            .parse()?;
        Ok(Self {
            child,
            address,
            wire: Wire::Http,
        })
    }
}

impl FloorProcess {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for FloorProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Serving = tokio::task::JoinHandle<()>;

/// Serves a floor on a free port.
pub async fn serve(floor: Floor, directory: &Path) -> Result<(SocketAddr, Serving), Failure> {
    let router = match floor {
        Floor::Redis => return Err("Redis is a program of its own".into()),
        #[cfg(feature = "peers")]
        Floor::Limitador => return Ok((crate::limitador::serve()?, tokio::spawn(std::future::pending()))),
        Floor::Echo => Router::new().fallback(post(echo)),
        Floor::Json => Router::new().fallback(post(json)),
        Floor::Append => {
            let file = File::create(directory.join("floor.log"))?;
            let (sender, receiver) = mpsc::channel(1_024);
            std::thread::spawn(move || write_groups(file, receiver));
            Router::new().fallback(post(append)).with_state(Arc::new(sender))
        }
    };
    let router = router.layer(axum::extract::DefaultBodyLimit::disable());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    });
    Ok((address, serving))
}

async fn echo(body: Bytes) -> String {
    format!(
        "{{\"accepted\":{},\"allowed\":true,\"conflicts\":0,\"rejected\":0,\"errors\":[]}}",
        u8::from(!body.is_empty())
    )
}

#[derive(Deserialize)]
struct CheckRequest<'a> {
    customer: &'a str,
    feature: &'a str,
    amount: &'a str,
}

#[derive(Serialize)]
struct CheckAnswer<'a> {
    allowed: bool,
    customer: &'a str,
    feature: &'a str,
    limit: &'a str,
    used: &'a str,
    reserved: &'a str,
    remaining: &'a str,
    overage: &'a str,
    resets_at: &'a str,
    reason: &'a str,
    as_of: &'a str,
    max_overshoot: &'a str,
    limits: [LimitAnswer<'a>; 1],
}

#[derive(Serialize)]
struct LimitAnswer<'a> {
    limit: &'a str,
    used: &'a str,
    reserved: &'a str,
    remaining: &'a str,
    period: &'a str,
    mode: &'a str,
    resets_at: &'a str,
}

async fn json(body: Bytes) -> Result<Vec<u8>, axum::http::StatusCode> {
    let bad = |_| axum::http::StatusCode::BAD_REQUEST;
    let check: CheckRequest<'_> = serde_json::from_slice(&body).map_err(bad)?;
    let resets_at = "2026-02-01T00:00:00Z";
    let limit = LimitAnswer {
        limit: "1000000000",
        used: "0",
        reserved: "0",
        remaining: "1000000000",
        period: "billing",
        mode: "hard",
        resets_at,
    };
    let answer = CheckAnswer {
        allowed: check.amount != "0",
        customer: check.customer,
        feature: check.feature,
        limit: "1000000000",
        used: "0",
        reserved: "0",
        remaining: "1000000000",
        overage: "0",
        resets_at,
        reason: "within_limit",
        as_of: "2026-01-15T00:00:00.000000Z",
        max_overshoot: "0",
        limits: [limit],
    };
    serde_json::to_vec(&answer).map_err(bad)
}

#[derive(Deserialize)]
struct Event<'a> {
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    subject: &'a str,
    time: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

type Group = (Vec<u8>, oneshot::Sender<()>);

async fn append(
    State(writer): State<Arc<mpsc::Sender<Group>>>,
    body: Bytes,
) -> Result<String, axum::http::StatusCode> {
    let mut bytes = Vec::with_capacity(body.len());
    let mut count = 0;
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let event: Event<'_> =
            serde_json::from_slice(line).map_err(|_| axum::http::StatusCode::BAD_REQUEST)?;
        for text in [
            event.source,
            event.id,
            event.kind,
            event.subject,
            event.time,
            event.data.get(),
        ] {
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        count += 1;
    }
    let (sender, receiver) = oneshot::channel();
    let gone = axum::http::StatusCode::SERVICE_UNAVAILABLE;
    writer.send((bytes, sender)).await.map_err(|_| gone)?;
    receiver.await.map_err(|_| gone)?;
    Ok(format!(
        "{{\"accepted\":{count},\"duplicates\":0,\"conflicts\":0,\"rejected\":0,\"errors\":[]}}"
    ))
}

/// One write and one fdatasync for all that came meanwhile.
fn write_groups(mut file: File, mut receiver: mpsc::Receiver<Group>) {
    while let Some((mut bytes, sender)) = receiver.blocking_recv() {
        let mut waiting = vec![sender];
        while let Ok((more, sender)) = receiver.try_recv() {
            bytes.extend_from_slice(&more);
            waiting.push(sender);
        }
        if file.write_all(&bytes).and_then(|()| file.sync_data()).is_err() {
            return;
        }
        for sender in waiting {
            let _ = sender.send(());
        }
    }
}
