//! T7: a reading of usage, and the same with a hundredth of the events behind it, in turns.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::client::{Connection, Wire};
use crate::compare::say_median;
use crate::engine::{API_KEY, Engine};
use crate::job::{Job, Requests, run};
use crate::stats::Summary;
use crate::{Failure, Load, cpu, verify};

/// Windows come to checkpoints soon, where those of all but the last minute are.
const OFTEN: [(&str, &str); 1] = [("TURNPIKE_ENGINE_CHECKPOINT_INTERVAL_S", "10")];
/// An engine that uses less of a processor than this in a second has nothing left to write or to merge.
const IDLE: Duration = Duration::from_millis(20);
/// How long it must be so: longer than the interval of checkpoints.
const IDLE_FOR: Duration = Duration::from_secs(12);
/// How long an engine may take to become idle.
const IDLE_WITHIN: Duration = Duration::from_mins(5);

/// Runs `rounds` of both and prints each, and how much longer the reading takes with all of the events.
pub async fn compare(job: Job, binary: &Path, rounds: usize, load: &Load) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let few = Load {
        events: load.events / 100,
        ..load.clone()
    };
    let all = filled(binary, &directory.path().join("all"), load).await?;
    let hundredth = filled(binary, &directory.path().join("hundredth"), &few).await?;
    let (mut ratios, mut cpu_ratios) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let (ours, our_cpu) = read(job, &all, load, round).await?;
        println!("all     {ours}  processor {our_cpu:.2?}");
        let (least, its_cpu) = read(job, &hundredth, load, round).await?;
        println!("1 %     {least}  processor {its_cpu:.2?}");
        ratios.push(median_us(&ours) / median_us(&least));
        cpu_ratios.push(our_cpu.as_secs_f64() / its_cpu.as_secs_f64());
    }
    say_median("time with all events by that with 1 %", ratios);
    say_median("processor time with all events by that with 1 %", cpu_ratios);
    println!("peak memory {} MB", all.peak_memory_bytes() / 1_000_000);
    Ok(())
}

/// An engine that has counted the events of the load and is idle.
async fn filled(binary: &Path, directory: &Path, load: &Load) -> Result<Engine, Failure> {
    let engine = Engine::start(binary, directory, &OFTEN).await?;
    engine.set_up(load).await?;
    let requests = Requests {
        job: Job::Ingest,
        api_key: API_KEY.to_owned(),
        load: load.clone(),
        epoch: 0,
    };
    let count = load.events.div_ceil(load.batch as u64);
    let mut connection = Connection::open(engine.address, Wire::Http).await?;
    for number in 0..count {
        let (status, body) = connection.call(&requests.request(number)).await?;
        if status != 200 || !requests.is_done(body) {
            return Err(format!("{status}: {}", String::from_utf8_lossy(body)).into());
        }
    }
    verify::counted(&engine, count * load.batch as u64).await?;
    let begin = Instant::now();
    let mut idle_since = begin;
    while idle_since.elapsed() < IDLE_FOR {
        let before = cpu::used(engine.pid());
        tokio::time::sleep(Duration::from_secs(1)).await;
        if cpu::used(engine.pid()).saturating_sub(before) > IDLE {
            idle_since = Instant::now();
        }
        if begin.elapsed() > IDLE_WITHIN {
            return Err("the engine does not become idle".into());
        }
    }
    Ok(engine)
}

/// One run, and the processor time of a request.
async fn read(job: Job, engine: &Engine, load: &Load, round: usize) -> Result<(Summary, Duration), Failure> {
    let before = cpu::used(engine.pid());
    let read = run(job, engine.address, API_KEY, load, round as u64 + 1).await?;
    if read.tally.errors > 0 {
        return Err(format!("{} requests failed: no figure", read.tally.errors).into());
    }
    let processor = cpu::each(engine.pid(), before, &read);
    Ok((read, processor))
}

fn median_us(read: &Summary) -> f64 {
    read.tally.latency.value_at_quantile(0.5) as f64
}
