//! T8, T9 and T10: what so many events behind it cost an engine: the restart after kill -9, intake against an empty store in
//! turns (also with a cold page cache), memory, and bytes on disk against zstd of the raw NDJSON.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{Advice, fadvise};

use crate::engine::{API_KEY, Engine, bytes_below};
use crate::job::{Job, event, run};
use crate::{Failure, Load, billing, cpu, verify};

/// Events that are packed by zstd.
const PACKED: u64 = 1_000_000;
/// The level of the command line tool, unless said.
const ZSTD_LEVEL: i32 = 3;

/// How much history.
#[derive(clap::Args, Clone, Debug)]
pub struct History {
    /// Events, in requests of 1,000.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Rounds of intake behind the events and into an empty store, with a warm and with a cold page cache.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Seconds of a round.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Minutes that the events' times are spread over; 44,640 are a month.
    #[arg(long, default_value_t = 44_640)]
    minutes: u32,
    /// Customers.
    #[arg(long, default_value_t = 1_000)]
    customers: u32,
    /// Where the data directories are made; the system's place for temporary files unless said.
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// An engine with events behind it.
struct Full<'a> {
    binary: &'a Path,
    engine: Engine,
    load: Load,
    acknowledged: u64,
    runs: u64,
}

/// Measures all three and prints them.
pub async fn measure(binary: &Path, history: &History) -> Result<(), Failure> {
    let place = history.directory.clone().unwrap_or_else(std::env::temp_dir);
    let directory = tempfile::tempdir_in(place)?;
    let load = Load {
        connections: 16,
        minutes: history.minutes,
        customers: history.customers,
        ..Load::unbounded()
    };
    let mut full = Full {
        binary,
        engine: start(binary, &directory.path().join("full"), &load).await?,
        load: load.clone(),
        acknowledged: 0,
        runs: 0,
    };
    let fill = Load {
        requests: history.events.div_ceil(1_000),
        ..load.clone()
    };
    println!("filled at {:.0} events/s", full.ingest(&fill).await?);
    full.print_memory("filled");
    for cold in [false, true] {
        full.restart(cold).await?;
    }
    full.stop_and_weigh().await?;
    let round = Load {
        seconds: history.seconds,
        ..load
    };
    for cold in [false, true] {
        let mut ratios = Vec::new();
        for number in 0..history.rounds {
            if cold {
                forget_pages(&full.engine.directory)?;
            }
            let behind = full.ingest(&round).await?;
            let empty = empty(
                binary,
                &directory.path().join(format!("empty-{cold}-{number}")),
                &round,
            )
            .await?;
            println!("{}  behind {behind:>9.0}/s  empty {empty:>9.0}/s", cache(cold));
            ratios.push(behind / empty);
        }
        ratios.sort_by(f64::total_cmp);
        if let Some(median) = ratios.get(ratios.len() / 2) {
            println!("T9 {}: median {median:.3} of {ratios:.3?}", cache(cold));
        }
    }
    full.print_memory("at the end");
    Ok(())
}

const fn cache(cold: bool) -> &'static str {
    if cold {
        "cold page cache"
    } else {
        "warm page cache"
    }
}

impl Full<'_> {
    /// Events a second; the totals are right behind it.
    async fn ingest(&mut self, load: &Load) -> Result<f64, Failure> {
        self.runs += 1;
        let summary = run(Job::Ingest, self.engine.address, API_KEY, load, self.runs).await?;
        if summary.tally.errors > 0 {
            return Err(format!("{} requests failed: no figure", summary.tally.errors).into());
        }
        self.acknowledged += summary.tally.acknowledged;
        verify::counted(&self.engine, self.acknowledged).await?;
        Ok(summary.rate())
    }

    /// T8: kill -9, and how long until it is ready and its totals are right.
    async fn restart(&mut self, cold: bool) -> Result<(), Failure> {
        let place = self.engine.directory.clone();
        self.engine.kill()?;
        if cold {
            forget_pages(&place)?;
        }
        let begin = Instant::now();
        self.engine = Engine::start(self.binary, &place, &billing::BY_THE_RUN).await?;
        let (ready, used) = (begin.elapsed(), cpu::used(self.engine.pid()));
        verify::counted(&self.engine, self.acknowledged).await?;
        println!(
            "T8 {}: ready {ready:.2?} after kill -9 (processor {used:.2?}) behind {} events, totals read {:.2?} after it",
            cache(cold),
            self.acknowledged,
            begin.elapsed()
        );
        Ok(())
    }

    /// T10: bytes on disk of an event once all is in checkpoints, against zstd of its NDJSON.
    async fn stop_and_weigh(&mut self) -> Result<(), Failure> {
        let place = self.engine.directory.clone();
        self.engine.stop().await?;
        let each = |bytes: u64| bytes as f64 / self.acknowledged as f64;
        let (log, views) = (place.join("log"), place.join("views"));
        let (log, ids) = (bytes_below(&log, ""), bytes_below(&views, "ids-"));
        let windows = bytes_below(&views, "") - ids;
        let all = log + ids + windows;
        let packed = packed(self.acknowledged.min(PACKED), &self.load)?;
        println!(
            "T10: {:.1} bytes an event on disk (log {:.1}, ids {:.1}, windows {:.1}), zstd of NDJSON {packed:.1}: ratio {:.2}",
            each(all),
            each(log),
            each(ids),
            each(windows),
            each(all) / packed
        );
        self.engine = Engine::start(self.binary, &place, &billing::BY_THE_RUN).await?;
        Ok(())
    }

    fn print_memory(&self, when: &str) {
        let megabytes = self.engine.peak_memory_bytes() / 1_000_000;
        println!(
            "peak memory {when}: {megabytes} MB behind {} events",
            self.acknowledged
        );
    }
}

async fn start(binary: &Path, directory: &Path, load: &Load) -> Result<Engine, Failure> {
    let engine = Engine::start(binary, directory, &billing::BY_THE_RUN).await?;
    engine.set_up(load).await?;
    Ok(engine)
}

/// Events a second into a store that has none; it is removed behind it.
async fn empty(binary: &Path, directory: &Path, load: &Load) -> Result<f64, Failure> {
    let mut empty = Full {
        binary,
        engine: start(binary, directory, load).await?,
        load: load.clone(),
        acknowledged: 0,
        runs: 0,
    };
    let rate = empty.ingest(load).await?;
    drop(empty);
    std::fs::remove_dir_all(directory)?;
    Ok(rate)
}

/// Bytes of an event of NDJSON under zstd.
fn packed(events: u64, load: &Load) -> Result<f64, Failure> {
    let mut encoder = zstd::Encoder::new(Bytes(0), ZSTD_LEVEL)?;
    let mut line = Vec::with_capacity(256);
    for number in 0..events {
        line.clear();
        event(1, number, load, &mut line);
        line.push(b'\n');
        encoder.write_all(&line)?;
    }
    Ok(encoder.finish()?.0 as f64 / events.max(1) as f64)
}

/// Counts what is written.
struct Bytes(u64);

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Drops all files below `directory` from the page cache. What was not yet on disk is written first, for only then it can go.
fn forget_pages(directory: &Path) -> Result<(), Failure> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            forget_pages(&path)?;
        } else if let Ok(file) = File::open(&path) {
            file.sync_all()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}
