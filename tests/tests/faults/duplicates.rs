//! R12: a storm of duplicates and conflicts.

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use serde_json::json;
use turnpike_tests::app::{App, AppOptions};
use turnpike_tests::compare::{Verdicts, must_send, ndjson};
use turnpike_tests::oracle::{Oracle, OracleEvent};
use turnpike_tests::run::{seed, times};
use turnpike_tests::waits::Waits;

use super::{BINARY, declare, event, verify};

/// Events of one request.
const CHUNK: usize = 1_000;
/// The most memory that the process may take, all in all. Measured: 50 MiB with 50,000 ids.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// A request whose lines are made once: the storm repeats them.
struct Chunk {
    events: Vec<OracleEvent>,
    lines: Vec<u8>,
}

/// Sends what was sent before; each event must be known.
async fn repeat(app: &App, oracle: &mut Oracle, chunk: &Chunk) -> Verdicts {
    let answer = app.admin().send_lines(chunk.lines.clone()).await;
    let (status, answer) = answer.expect("an answer");
    assert_eq!(status, 200, "{answer}");
    let verdicts = Verdicts::of(oracle, &chunk.events);
    verdicts.assert_said(&answer, false);
    verdicts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r12_a_storm_of_duplicates_counts_once() {
    let (events, repeats) = (times(50_000, 1_000_000), times(20, 100));
    let mut random = StdRng::seed_from_u64(seed("--test faults r12", 12));
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = AppOptions::new(BINARY, directory.path());
    // Ids leave the memory's table for runs on the disk, several times.
    options.set("TURNPIKE_ENGINE_CHECKPOINT_EVENTS", &(events / 10).to_string());
    let mut app = App::start_with(options).await;
    declare(&app.admin()).await;
    let (mut oracle, mut chunks) = (Oracle::default(), Vec::new());
    let (mut normal, mut beside) = (Waits::default(), Waits::default());
    let mut injected = Verdicts::default();
    for from in (0..events).step_by(CHUNK) {
        let events: Vec<_> = (from..from + CHUNK)
            .map(|id| event("storm", id as u64, id as u64))
            .collect();
        let sent = normal.time(must_send(&app.admin(), &mut oracle, &events)).await;
        assert_eq!(sent.accepted, CHUNK as u64);
        let lines = ndjson(&events);
        chunks.push(Chunk { events, lines });
    }
    let (mut peak, mut restarts) = (0, 0);
    for round in 1..repeats {
        chunks.shuffle(&mut random);
        for chunk in &chunks {
            injected += beside.time(repeat(&app, &mut oracle, chunk)).await;
        }
        if round % 7 == 3 {
            peak = peak.max(app.peak_bytes());
            app.restart().await;
            restarts += 1;
        }
    }
    assert!(restarts > 0, "vacuous: it was never restarted");
    assert_eq!(injected.duplicates, (events * (repeats - 1)) as u64);
    // The same ids with other content: every one a conflict, and the first one stands.
    for chunk in &chunks {
        let mut other = chunk.events.clone();
        for event in &mut other {
            event.data = json!({"tokens": 1_000_000, "bytes": 1});
        }
        injected += must_send(&app.admin(), &mut oracle, &other).await;
    }
    assert_eq!((injected.accepted, injected.conflicts), (0, events as u64));
    verify(&app.admin(), &oracle).await;
    peak = peak.max(app.peak_bytes());
    println!(
        "injected {injected:?}, {restarts} restarts; {} MiB at the most",
        peak >> 20
    );
    assert!(peak <= MEMORY_BYTES_MAX, "{peak} bytes");
    beside.assert_at_most(2, &normal);
}
