//! A B A B: the engine and its floor in turns, the median of the ratios.

use std::path::Path;

use crate::billing::BY_THE_RUN;
use crate::engine::{API_KEY, Engine};
use crate::floor::{Floor, FloorProcess};
use crate::job::{Job, run};
use crate::stats::Summary;
use crate::{Failure, Load, cpu, verify};

/// Runs `rounds` of both, the job's own floor unless another is named, and prints each, the ratios, and what the engine used.
pub async fn compare(
    (job, floor): (Job, Option<Floor>),
    binary: &Path,
    rounds: usize,
    load: &Load,
) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let engine = Engine::start(binary, &directory.path().join("engine"), &BY_THE_RUN).await?;
    println!("{job:?}: setting up {} customers", load.customers);
    engine.set_up(load).await?;
    let floor = match floor.or_else(|| Floor::of(job)) {
        Some(floor) => Some(FloorProcess::start(floor, directory.path()).await?),
        None => None,
    };
    let (mut ratios, mut cpu_ratios, mut acknowledged) = (Vec::new(), Vec::new(), 0);
    for round in 0..rounds {
        let before = cpu::used(engine.pid());
        let ours = run(job, engine.address, API_KEY, load, round as u64 + 1).await?;
        let our_cpu = cpu::each(engine.pid(), before, &ours);
        println!("engine {ours}  processor {our_cpu:.2?}");
        acknowledged += check(job, &engine, &ours, acknowledged).await?;
        if let Some(floor) = &floor {
            let before = cpu::used(floor.pid());
            let load = Load {
                wire: floor.wire.clone(),
                ..load.clone()
            };
            let least = run(job, floor.address, API_KEY, &load, round as u64 + 1).await?;
            if least.tally.errors > 0 {
                return Err(format!("{} requests to the floor failed: no figure", least.tally.errors).into());
            }
            let its_cpu = cpu::each(floor.pid(), before, &least);
            println!("floor  {least}  processor {its_cpu:.2?}");
            ratios.push(ours.rate() / least.rate());
            cpu_ratios.push(its_cpu.as_secs_f64() / our_cpu.as_secs_f64());
        }
    }
    say_median("ratio", ratios);
    say_median("ratio of processor time", cpu_ratios);
    let megabytes = |bytes: u64| bytes / 1_000_000;
    println!(
        "peak memory {} MB, disk {} MB",
        megabytes(engine.peak_memory_bytes()),
        megabytes(engine.disk_bytes())
    );
    if let Some(bytes) = engine.disk_bytes().checked_div(acknowledged) {
        println!("disk per event: {bytes} bytes");
    }
    Ok(())
}

/// Prints the median of the rounds' ratios, and all of them.
pub fn say_median(what: &str, mut ratios: Vec<f64>) {
    ratios.sort_by(f64::total_cmp);
    if let Some(median) = ratios.get(ratios.len() / 2) {
        println!("{what}: median {median:.3} of {ratios:.3?}");
    }
}

/// The events that this run acknowledged, after a check that the engine counts them and those `before`, and no other.
async fn check(job: Job, engine: &Engine, ours: &Summary, before: u64) -> Result<u64, Failure> {
    if ours.tally.errors > 0 {
        return Err(format!("{} requests failed: no figure", ours.tally.errors).into());
    }
    if !matches!(job, Job::Ingest | Job::Event) {
        return Ok(0);
    }
    verify::counted(engine, before + ours.tally.acknowledged).await?;
    Ok(ours.tally.acknowledged)
}
