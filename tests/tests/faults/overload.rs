//! R20: ten times the load that the engine takes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use turnpike_tests::app::{App, AppOptions, Caller};
use turnpike_tests::compare::{Verdicts, ndjson};
use turnpike_tests::oracle::{Oracle, OracleEvent};
use turnpike_tests::run::times;
use turnpike_tests::waits::Waits;

use super::{BINARY, declare, event, verify};

/// Events of one request, and bytes that each carries beside its figures: requests reach the bound of bytes in flight
/// before they run out of connections.
const EVENTS: u64 = 100;
const CARRIED_BYTES: usize = 8 * 1024;
/// Tenants, each of which may hold as much as it leaves to the others: one of them comes to half, three to three quarters.
const TENANTS: usize = 3;
/// Senders that wait for their answers, as many as keep the engine busy.
const SENDERS: usize = 8;
/// Requests under way at once, of a client that does not wait for answers before it sends more.
const UNDER_WAY_MAX: usize = 600;
/// The smallest bound that the engine takes for bytes in flight.
const IN_FLIGHT_BYTES: u64 = 128 << 20;
/// The most memory that the process may take: what is in flight, as much again for what is freed but not given back, and the
/// engine. Measured: 309 to 392 MiB.
const MEMORY_BYTES_MAX: u64 = 2 * IN_FLIGHT_BYTES + (256 << 20);

/// The part of the peak that must be left, to find a stall; `tests/README.md` says what was measured.
const GOODPUT_MIN: f64 = 0.2;

/// One batch, by its number.
#[derive(Clone, Copy)]
struct Batch {
    number: u64,
    /// Whether it was refused before.
    again: bool,
}

impl Batch {
    const fn tenant(self) -> usize {
        self.number as usize % TENANTS
    }

    fn events(self) -> Vec<OracleEvent> {
        let ids = self.number * EVENTS..(self.number + 1) * EVENTS;
        ids.map(|id| event("load", id, id % 1_000)).collect()
    }

    /// Made cheaply, for the generator shares the processors with the engine.
    fn lines(self) -> Vec<u8> {
        let carried = format!("\"data\":{{\"carried\":\"{}\",", "x".repeat(CARRIED_BYTES));
        let lines = String::from_utf8(ndjson(&self.events())).expect("text");
        lines.replace("\"data\":{", &carried).into_bytes()
    }
}

/// What is sent, and what came of it.
#[derive(Default)]
struct Load {
    /// Refused, and to be sent again.
    refused: VecDeque<Batch>,
    /// Batches made so far.
    made: u64,
    taken: Vec<Batch>,
    /// Answers 429 and 503.
    refusals: [u64; 2],
    waits: Waits,
}

#[derive(Clone)]
struct Client {
    callers: Arc<Vec<Caller>>,
    load: Arc<Mutex<Load>>,
}

impl Client {
    async fn new(app: &App) -> Self {
        let mut callers = Vec::new();
        for number in 0..TENANTS {
            let key = app.tenant(&json!({"key": format!("t{number}")})).await;
            let caller = app.caller(&key);
            declare(&caller).await;
            callers.push(caller);
        }
        Self {
            callers: Arc::new(callers),
            load: Arc::default(),
        }
    }

    /// The same client of a server that has started again, on another port.
    fn at(&self, app: &App) -> Self {
        let callers = self.callers.iter().map(|caller| app.caller(&caller.api_key()));
        Self {
            callers: Arc::new(callers.collect()),
            load: Arc::clone(&self.load),
        }
    }

    fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().expect("no sender has failed")
    }

    /// The next batch: one that was refused, or else a new one.
    fn next(&self) -> Batch {
        let mut load = self.load();
        if let Some(batch) = load.refused.pop_front() {
            return batch;
        }
        let number = load.made;
        load.made += 1;
        Batch { number, again: false }
    }

    /// Sends one batch; whether it was taken.
    async fn send(&self, batch: Batch) -> bool {
        let begin = Instant::now();
        let answer = self.callers[batch.tenant()].send_lines(batch.lines()).await;
        let (status, answer) = answer.expect("an answer, also when there is too much to do");
        let mut load = self.load();
        match status {
            200 => {
                let all = Verdicts {
                    accepted: EVENTS,
                    ..Verdicts::default()
                };
                all.assert_said(&answer, batch.again);
                load.waits.add(begin.elapsed());
                load.taken.push(batch);
            }
            429 => load.refusals[0] += 1,
            503 => load.refusals[1] += 1,
            _ => panic!("{status} {answer}"),
        }
        if status != 200 {
            load.refused.push_back(Batch { again: true, ..batch });
        }
        status == 200
    }

    /// As many senders as keep the engine busy, each of which waits for its answer. Batches that were taken a second.
    async fn peak(&self, length: Duration) -> f64 {
        let begin = Instant::now();
        let mut senders = JoinSet::new();
        for _ in 0..SENDERS {
            let client = self.clone();
            senders.spawn(async move {
                while begin.elapsed() < length {
                    client.send(client.next()).await;
                }
            });
        }
        senders.join_all().await;
        self.load().taken.len() as f64 / begin.elapsed().as_secs_f64()
    }

    /// Sends so many batches a second, whatever becomes of them; batches that were to be sent, and were taken a second.
    async fn overload(&self, per_s: f64, length: Duration) -> (u64, f64) {
        let (begin, before) = (Instant::now(), self.load().taken.len());
        let mut pause = tokio::time::interval(Duration::from_secs_f64(1.0 / per_s));
        let (mut offered, mut under_way) = (0, JoinSet::new());
        while begin.elapsed() < length {
            pause.tick().await;
            offered += 1;
            while under_way
                .try_join_next()
                .is_some_and(|sent| sent.expect("a sender"))
            {}
            if under_way.len() < UNDER_WAY_MAX {
                let client = self.clone();
                under_way.spawn(async move { client.send(client.next()).await });
            }
        }
        // Those under way are served side by side, so they end together.
        under_way.join_all().await;
        let taken = self.load().taken.len() - before;
        (offered, taken as f64 / begin.elapsed().as_secs_f64())
    }

    /// Sends again what was refused, until all is in.
    async fn settle(&self) {
        let mut senders = JoinSet::new();
        for _ in 0..SENDERS {
            let client = self.clone();
            senders.spawn(async move {
                loop {
                    let Some(batch) = client.load().refused.pop_front() else {
                        return;
                    };
                    client.send(batch).await;
                }
            });
        }
        senders.join_all().await;
        assert!(self.load().refused.is_empty(), "so few at once are never refused");
    }

    /// What was acknowledged must be there once, and nothing else.
    async fn verify(&self) {
        let taken = self.load().taken.clone();
        for (tenant, caller) in self.callers.iter().enumerate() {
            let mut oracle = Oracle::default();
            for batch in taken.iter().filter(|batch| batch.tenant() == tenant) {
                Verdicts::of(&mut oracle, &batch.events());
            }
            verify(caller, &oracle).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r20_ten_times_the_load_is_refused_without_loss() {
    let length = Duration::from_secs(times(10, 300) as u64);
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = AppOptions::new(
        &std::env::var("TP_BIN").unwrap_or(BINARY.into()),
        directory.path(),
    );
    options.set(
        "TURNPIKE_INGEST_IN_FLIGHT_BYTES_MAX",
        &IN_FLIGHT_BYTES.to_string(),
    );
    let mut app = App::start_with(options).await;
    let client = Client::new(&app).await;
    let peak = client.peak(length / 3).await;
    let (offered, goodput) = client.overload(10.0 * peak, length).await;
    let memory = app.peak_bytes();
    let ([too_many, overloaded], p99) = {
        let load = client.load();
        (load.refusals, load.waits.p99())
    };
    println!(
        "injected {offered} batches at 10 × {peak:.0} a second for {length:?}: {too_many} answers 429 and {overloaded} 503; \
         goodput {:.2} of the peak, p99 {p99:?}, {} MiB at the peak",
        goodput / peak,
        memory >> 20
    );
    assert!(too_many + overloaded > 10, "vacuous: nothing was too much");
    assert!(memory <= MEMORY_BYTES_MAX, "{memory} bytes");
    assert!(goodput >= peak * GOODPUT_MIN, "goodput {goodput}, peak {peak}");
    client.settle().await;
    client.verify().await;
    app.restart().await;
    client.at(&app).verify().await;
}
