//! `turnpike-load`: one load generator for all figures, in its own process, on loopback, bounded in time.
//!
//! `compare` starts the engine and its floor in turns (A B A B …) and prints the median of the ratios; `run` loads a
//! server that is already there; `floor` is a floor on its own. A run whose totals are wrong has no figure.

mod billing;
mod client;
mod compare;
mod cpu;
mod engine;
mod floor;
mod history;
mod instructions;
mod job;
#[cfg(feature = "peers")]
mod limitador;
mod mixed;
mod reading;
mod redis;
mod stats;
mod verify;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::client::Wire;
use crate::floor::Floor;
use crate::history::History;
use crate::job::Job;
use crate::mixed::Mix;

/// The error of a benchmark: told to the person who ran it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(
    name = "turnpike-load",
    about = "Loads Turnpike and its floors, and compares them"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Loads the engine and its floor in turns and prints the ratios.
    Compare {
        /// What is done.
        job: Job,
        /// Path of the `turnpike` binary.
        #[arg(long, default_value = "target/release/turnpike")]
        binary: PathBuf,
        /// Rounds of A and B.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// What the engine is compared with, in place of the job's floor.
        #[arg(long)]
        floor: Option<Floor>,
        #[command(flatten)]
        load: Load,
    },
    /// Loads a server that is already there.
    Run {
        /// What is done.
        job: Job,
        /// Where the server listens.
        #[arg(long, default_value = "127.0.0.1:8080")]
        address: SocketAddr,
        /// The API key.
        #[arg(long, env = "TURNPIKE_API_KEY", default_value = "")]
        api_key: String,
        #[command(flatten)]
        load: Load,
    },
    /// Measures one billing run (T11).
    Billing {
        /// Path of the `turnpike` binary.
        #[arg(long, default_value = "target/release/turnpike")]
        binary: PathBuf,
        /// Subscriptions, with three metered prices each.
        #[arg(long, default_value_t = 100_000)]
        subscriptions: u32,
    },
    /// Measures what many events behind it cost the engine: T8, T9, T10.
    History {
        /// Path of the `turnpike` binary.
        #[arg(long, default_value = "target/release/turnpike")]
        binary: PathBuf,
        #[command(flatten)]
        history: History,
    },
    /// Measures every kind of request from many clients at once, open-loop.
    Mixed {
        /// Path of the `turnpike` binary.
        #[arg(long, default_value = "target/release/turnpike")]
        binary: PathBuf,
        #[command(flatten)]
        mix: Mix,
    },
    /// Counts the instructions of one request of T1, T2, T3, T5 and of a batch of checks and compares them with `benches/instructions.txt`.
    Instructions {
        /// Path of the `turnpike` binary.
        #[arg(long, default_value = "target/release/turnpike")]
        binary: PathBuf,
        /// Keeps the counts from now on, for this reason.
        #[arg(long, value_name = "REASON")]
        keep: Option<String>,
    },
    /// Runs a floor until it is killed.
    Floor {
        /// Which one.
        floor: Floor,
        /// Where it keeps its file.
        #[arg(long, default_value = ".")]
        directory: PathBuf,
    },
}

/// How much load.
#[derive(clap::Args, Clone, Debug)]
pub struct Load {
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Seconds before that are not.
    #[arg(long, default_value_t = 1)]
    pub warm_up_seconds: u64,
    /// Events in a request of the job `ingest`, checks in one of `batch`.
    #[arg(long, default_value_t = 1_000)]
    pub batch: usize,
    /// Requests a second, latency from the intended send time; none: as fast as answers come, latency from the send.
    #[arg(long)]
    pub rate: Option<u64>,
    /// Minutes that the events' times are spread over, from the start of January 2026 on; 44,640 are the whole month.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=44_640))]
    pub minutes: u32,
    /// Number of customers.
    #[arg(long, default_value_t = 10_000)]
    pub customers: u32,
    /// Events behind the readings of the jobs `usage` and `top`; a hundredth of them behind those that they are compared with.
    #[arg(long, default_value_t = 1_500_000)]
    pub events: u64,
    /// Requests after which a run ends before its time.
    #[arg(skip = u64::MAX)]
    pub requests: u64,
    /// What the server speaks.
    #[arg(skip)]
    pub wire: Wire,
}

impl Load {
    /// Few customers and nothing that depends on time, for counts.
    pub const fn of_counts() -> Self {
        Self {
            connections: 1,
            seconds: 0,
            warm_up_seconds: 0,
            batch: 1_000,
            rate: None,
            minutes: 60,
            customers: 100,
            events: 0,
            requests: u64::MAX,
            wire: Wire::Http,
        }
    }

    /// Batches of 1,000 that end with their number and not with time.
    pub fn unbounded() -> Self {
        Self {
            seconds: 24 * 60 * 60,
            ..Self::of_counts()
        }
    }

    /// What is measured and what is not, together.
    pub fn whole(&self) -> Duration {
        Duration::from_secs(self.seconds + self.warm_up_seconds)
    }
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    // One thread to load with, so that the generator takes little of the cores that it shares; a floor has as many as the engine.
    let mut runtime = match arguments.command {
        Command::Floor { .. } => tokio::runtime::Builder::new_multi_thread(),
        Command::Compare { .. }
        | Command::Run { .. }
        | Command::Billing { .. }
        | Command::History { .. }
        | Command::Mixed { .. }
        | Command::Instructions { .. } => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime.enable_all().build()?;
    runtime.block_on(async {
        match arguments.command {
            Command::Compare {
                job,
                binary,
                rounds,
                floor: None,
                load,
            } if matches!(job, Job::Usage | Job::Top) => reading::compare(job, &binary, rounds, &load).await,
            Command::Compare {
                job,
                binary,
                rounds,
                floor,
                load,
            } => compare::compare((job, floor), &binary, rounds, &load).await,
            Command::Run {
                job,
                address,
                api_key,
                load,
            } => {
                let summary = job::run(job, address, &api_key, &load, 0).await?;
                println!("{summary}");
                Ok(())
            }
            Command::Billing {
                binary,
                subscriptions,
            } => billing::measure(&binary, subscriptions).await,
            Command::History { binary, history } => history::measure(&binary, &history).await,
            Command::Mixed { binary, mix } => mixed::measure(&binary, &mix).await,
            Command::Instructions { binary, keep } => instructions::count(&binary, keep.as_deref()).await,
            Command::Floor { floor, directory } => {
                let (address, serving) = floor::serve(floor, &directory).await?;
                println!("listening on {address}");
                serving.await?;
                Ok(())
            }
        }
    })
}
