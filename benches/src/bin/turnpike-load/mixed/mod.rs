//! Every kind of request from many clients at once, each kind with its own latencies, open-loop: each client sends at instants
//! that are fixed beforehand (exponentially distributed pauses), and latency counts from those.

mod client;
mod kinds;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use self::client::{Change, Client, World};
use self::kinds::{KINDS, Kind};
use crate::client::{Connection, Wire};
use crate::engine::{API_KEY, Engine};
use crate::job::{Job, mix};
use crate::stats::Tally;
use crate::{Failure, Load, billing, cpu, job, verify};

/// The run whose events are there before the mix.
const FILL: u64 = 99;
/// Customers that have been billed once before the mix.
const BILLED: u32 = 500;
/// The target: so long at the most in 95 of 100 requests of each kind.
const P95_MAX: Duration = Duration::from_millis(50);
/// Failures that are printed.
const SHOWN: u64 = 10;

/// How much of a mix.
#[derive(clap::Args, Clone, Debug)]
pub struct Mix {
    /// Clients, each with a connection and one request at a time.
    #[arg(long, default_value_t = 100)]
    clients: u64,
    /// Requests a second of all clients together.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seconds of the mix before that are not.
    #[arg(long, default_value_t = 5)]
    warm_up_seconds: u64,
    /// Customers.
    #[arg(long, default_value_t = 10_000)]
    customers: u32,
    /// Events in requests of 1,000 that are there before the mix, their times over a month.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// In place of the mix so many requests of each kind, one at a time: what each costs by itself.
    #[arg(long)]
    alone: Option<u32>,
    /// Of those only the kinds with this in their name.
    #[arg(long, requires = "alone", default_value = "")]
    kind: String,
}

/// What the mix did so far.
struct Done {
    tallies: Vec<Tally>,
    change: Change,
    failed: u64,
    /// From the first measured instant until the last answer.
    seconds: f64,
}

/// Runs the mix against an engine of its own and prints the latencies of each kind, slowest first.
pub async fn measure(binary: &Path, mix: &Mix) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let engine = Engine::start(binary, &directory.path().join("engine"), &billing::BY_THE_RUN).await?;
    let world = Arc::new(prepare(&engine, mix).await?);
    if let Some(times) = mix.alone {
        return alone(&engine, world, (times, &mix.kind)).await;
    }
    let before = totals(&engine).await?;
    let used = cpu::used(engine.pid());
    let done = run(&engine, &world, mix).await?;
    let used = cpu::used(engine.pid()).saturating_sub(used);
    if done.failed > 0 {
        return Err(format!("{} requests failed: no figure", done.failed).into());
    }
    let (mut expected, after) = (before, totals(&engine).await?);
    expected.add(done.change);
    if after != expected {
        return Err(format!("the totals are wrong: {after:?}, not {expected:?}").into());
    }
    print(mix, &done);
    println!(
        "totals are right: {:?} by the mix; processor {:.1?} in {:.0} s; peak memory {} MB",
        done.change,
        used,
        done.seconds + mix.warm_up_seconds as f64,
        engine.peak_memory_bytes() / 1_000_000
    );
    Ok(())
}

/// A catalog, customers, events, and some customers that have been billed for January 2026.
async fn prepare(engine: &Engine, mix: &Mix) -> Result<World, Failure> {
    let load = Load {
        customers: mix.customers,
        minutes: 44_640,
        requests: mix.events.div_ceil(1_000),
        connections: 16,
        ..Load::unbounded()
    };
    println!("setting up {} customers", load.customers);
    engine.set_up(&load).await?;
    billing::declare(engine, "billed").await?;
    let billed = load.customers..load.customers + BILLED;
    engine.subscribe(billed.clone(), "billed").await?;
    println!(
        "filled: {}",
        job::run(Job::Ingest, engine.address, API_KEY, &load, FILL).await?
    );
    let mut connection = Connection::open(engine.address, Wire::Http).await?;
    billing::send(&mut connection, billed.clone()).await?;
    let ran = billing::run(&mut connection).await?;
    if ran["failed"] != 0 {
        return Err(format!("billing failed: {ran}").into());
    }
    let ids = async |path: &str| -> Result<Vec<String>, Failure> {
        let (status, page) = engine.get(path).await?;
        let data = page["data"]
            .as_array()
            .ok_or_else(|| format!("{path}: {status} {page}"))?;
        Ok(data
            .iter()
            .filter_map(|one| Some(one["id"].as_str()?.to_owned()))
            .collect())
    };
    let world = World {
        load,
        billed,
        subscriptions: ids("/v1/subscriptions?limit=1000").await?,
        invoices: ids("/v1/invoices?limit=1000").await?,
    };
    println!("billed: {} invoices", world.invoices.len());
    Ok(world)
}

async fn totals(engine: &Engine) -> Result<Change, Failure> {
    let (tokens, by_model) = (
        verify::total(engine, "tokens").await?,
        verify::total(engine, "by_model").await?,
    );
    if tokens != by_model {
        return Err(format!("the totals are wrong: {tokens} tokens, {by_model} by model").into());
    }
    Ok(Change {
        requests: verify::total(engine, "requests").await? as i64,
        tokens: tokens as i64,
        calls: verify::total(engine, "calls").await? as i64,
    })
}

async fn run(engine: &Engine, world: &Arc<World>, mix: &Mix) -> Result<Done, Failure> {
    let done = Arc::new(Mutex::new(Done {
        tallies: KINDS.iter().map(|_| Tally::new()).collect(),
        change: Change::default(),
        failed: 0,
        seconds: 0.0,
    }));
    let begin = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..mix.clients {
        let connection = Connection::open(engine.address, Wire::Http).await?;
        let pace = Pace {
            number,
            next: begin,
            pause: Duration::from_secs(1) * mix.clients as u32 / mix.rate.max(1) as u32,
            measured: begin + Duration::from_secs(mix.warm_up_seconds),
            end: begin + Duration::from_secs(mix.warm_up_seconds + mix.seconds),
        };
        let client = Client::new(Arc::clone(world), number + 1);
        clients.spawn(send(client, connection, pace, Arc::clone(&done)));
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    let done = Arc::into_inner(done).ok_or("a client is still there")?;
    let mut done = done.into_inner().map_err(|_| "a client panicked")?;
    done.seconds = begin.elapsed().as_secs_f64() - mix.warm_up_seconds as f64;
    Ok(done)
}

/// Sends `times` requests of each kind, one at a time, and prints the median of their latencies and their mean processor time.
async fn alone(engine: &Engine, world: Arc<World>, (times, named): (u32, &str)) -> Result<(), Failure> {
    let mut client = Client::new(world, 0);
    let mut connection = Connection::open(engine.address, Wire::Http).await?;
    println!("{:<28} {:>10} {:>10}", "kind", "p50", "processor");
    for kind in KINDS.iter().filter(|kind| kind.name.contains(named)) {
        let mut tally = Tally::new();
        let before = cpu::used(engine.pid());
        for call in (0..times)
            .map_while(|_| kind.make(&mut client))
            .collect::<Vec<_>>()
        {
            let begin = Instant::now();
            let (status, body) = connection.call(&call.bytes).await?;
            if !call.is_done(status, body) {
                return Err(format!("{}: {status} {}", kind.name, String::from_utf8_lossy(body)).into());
            }
            tally
                .latency
                .saturating_record(begin.elapsed().as_micros() as u64);
            tally.answers += 1;
            client.note(call.then);
        }
        let used = cpu::used(engine.pid()).saturating_sub(before) / times.max(1);
        println!("{:<28} {:>10.2?} {used:>10.2?}", kind.name, quantile(&tally, 0.5));
    }
    Ok(())
}

/// When a client sends.
struct Pace {
    number: u64,
    next: Instant,
    pause: Duration,
    measured: Instant,
    end: Instant,
}

impl Pace {
    /// The instant of request `count`: behind a pause that is exponentially distributed, as those of many independent people.
    fn next(&mut self, count: u64) -> Instant {
        let drawn = mix(self.number << 32 ^ count) >> 11;
        let uniform = (drawn + 1) as f64 / (1_u64 << 53) as f64;
        self.next += self.pause.mul_f64(-uniform.ln());
        self.next
    }
}

async fn send(
    mut client: Client,
    mut connection: Connection,
    mut pace: Pace,
    done: Arc<Mutex<Done>>,
) -> Result<(), Failure> {
    for count in 0.. {
        let intended = pace.next(count);
        if intended >= pace.end {
            return Ok(());
        }
        let (kind, call) = drawn(&mut client);
        tokio::time::sleep_until(intended.into()).await;
        let (status, body) = connection.call(&call.bytes).await?;
        let taken = intended.elapsed();
        let good = call.is_done(status, body);
        let mut done = done.lock().map_err(|_| "a client panicked")?;
        if good {
            done.change.add(call.change);
        } else {
            done.failed += 1;
            if done.failed <= SHOWN {
                let body = String::from_utf8_lossy(&body[..body.len().min(500)]);
                eprintln!("{}: {status} {body}", KINDS[kind].name);
            }
        }
        let tally = &mut done.tallies[kind];
        if good && intended >= pace.measured {
            tally.answers += 1;
            tally.latency.saturating_record(taken.as_micros() as u64);
        }
        drop(done);
        if good {
            client.note(call.then);
        }
    }
    Ok(())
}

/// A kind by its share, and a request of it.
fn drawn(client: &mut Client) -> (usize, client::Call) {
    let shares: u32 = KINDS.iter().map(|kind| kind.share).sum();
    loop {
        let mut at = client.draw(u64::from(shares)) as u32;
        let before = |kind: &Kind| {
            let is_this = at < kind.share;
            at = at.wrapping_sub(kind.share);
            is_this
        };
        let kind = KINDS.iter().position(before).unwrap_or(0);
        if let Some(call) = KINDS[kind].make(client) {
            return (kind, call);
        }
    }
}

fn quantile(tally: &Tally, q: f64) -> Duration {
    Duration::from_micros(tally.latency.value_at_quantile(q))
}

fn print(mix: &Mix, done: &Done) {
    let mut all = Tally::new();
    let mut rows: Vec<(&str, &Tally)> = KINDS.iter().map(|kind| kind.name).zip(&done.tallies).collect();
    rows.sort_by_key(|(_, tally)| std::cmp::Reverse(quantile(tally, 0.95)));
    for (_, tally) in &rows {
        all.add(tally);
    }
    rows.push(("all", &all));
    println!(
        "{:<28} {:>8} {:>10} {:>10} {:>10}",
        "kind", "requests", "p50", "p95", "p99"
    );
    for (name, tally) in rows {
        let p95 = quantile(tally, 0.95);
        println!(
            "{name:<28} {:>8} {:>10.2?} {p95:>10.2?} {:>10.2?}{}",
            tally.answers,
            quantile(tally, 0.5),
            quantile(tally, 0.99),
            if p95 > P95_MAX { "  above 50 ms" } else { "" },
        );
    }
    println!(
        "{} clients, {:.0} requests a second of {} intended",
        mix.clients,
        all.answers as f64 / done.seconds,
        mix.rate
    );
}
