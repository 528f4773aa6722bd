//! Instructions of one request, in all threads of the engine: the real binary under callgrind, one connection, one request at a
//! time, so that every request is a group of its own.

use std::path::Path;

use turnpike_benches::callgrind::{self, Kept};

use crate::client::{Connection, Wire};
use crate::engine::{API_KEY, Engine};
use crate::job::{Job, Requests};
use crate::{Failure, Load};

/// What is counted: its name, the job, and how many requests.
const PATHS: [(&str, Job, u64); 5] = [
    ("ingest", Job::Ingest, 10),
    ("event", Job::Event, 500),
    ("check", Job::Check, 1_000),
    ("consume", Job::Consume, 500),
    ("batch", Job::Batch, 10),
];

/// Counts all paths of `binary` and compares them with what is kept; `reason` keeps them.
pub async fn count(binary: &Path, reason: Option<&str>) -> Result<(), Failure> {
    if !callgrind::is_here() {
        println!("valgrind is not on this machine: instructions were not counted");
        return Ok(());
    }
    let mut counted = Vec::new();
    for (name, job, requests) in PATHS {
        counted.push((name, count_path(binary, job, requests).await?));
    }
    Kept::read()?.compare(&counted, reason)
}

/// Instructions of one request of `job`.
async fn count_path(binary: &Path, job: Job, requests: u64) -> Result<u64, Failure> {
    let directory = tempfile::tempdir()?;
    let out = directory.path().join("callgrind");
    let engine = Engine::start_by(
        callgrind::command(binary, &out),
        &directory.path().join("engine"),
        &[],
    )
    .await?;
    let load = Load::of_counts();
    engine.set_up(&load).await?;
    let made = Requests {
        job,
        api_key: API_KEY.to_owned(),
        load,
        epoch: 1,
    };
    let mut connection = Connection::open(engine.address, Wire::Http).await?;
    send(&mut connection, &made, 0..requests / 5).await?;
    callgrind::zero(engine.pid())?;
    send(&mut connection, &made, requests / 5..requests / 5 + requests).await?;
    Ok(callgrind::counted(engine.pid(), &out)? / requests)
}

async fn send(
    connection: &mut Connection,
    made: &Requests,
    numbers: std::ops::Range<u64>,
) -> Result<(), Failure> {
    for number in numbers {
        let (status, body) = connection.call(&made.request(number)).await?;
        if !(200..300).contains(&status) || !made.is_done(body) {
            return Err(format!("{status}: {}", String::from_utf8_lossy(body)).into());
        }
    }
    Ok(())
}
