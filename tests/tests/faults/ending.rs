//! R21: SIGTERM under load, and a process that sleeps while another wants its directory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use turnpike_tests::app::{App, run};
use turnpike_tests::compare::{must_send, ndjson};
use turnpike_tests::oracle::{Oracle, OracleEvent};
use turnpike_tests::run::times;

use super::{BINARY, declare, event, verify};

/// Events of one request.
const BATCH: u64 = 20;
const SENDERS: u64 = 4;

/// Senders at work, each of which repeats a batch until it is answered.
struct Load {
    stop: Arc<AtomicBool>,
    senders: Vec<JoinHandle<Sent>>,
}

/// What a sender's batches came to.
#[derive(Default)]
struct Sent {
    acknowledged: Vec<Vec<OracleEvent>>,
    /// Batches that had no answer when the sender was stopped.
    unanswered: Vec<Vec<OracleEvent>>,
}

impl Load {
    fn start(app: &App) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |sender: u64| {
            let (caller, stop) = (app.admin(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut sent = Sent::default();
                for round in 0.. {
                    let ids = (0..BATCH).map(|n| (sender << 32) + round * BATCH + n);
                    let batch: Vec<_> = ids.map(|id| event("load", id, id % 1_000)).collect();
                    loop {
                        match caller.send_lines(ndjson(&batch)).await {
                            Some((200, _)) => break,
                            // Cut off or refused by the drain, which has begun.
                            _ if stop.load(Ordering::SeqCst) => {
                                sent.unanswered.push(batch);
                                return sent;
                            }
                            _ => tokio::time::sleep(Duration::from_millis(10)).await,
                        }
                    }
                    sent.acknowledged.push(batch);
                    if stop.load(Ordering::SeqCst) {
                        return sent;
                    }
                }
                sent
            })
        };
        let senders = (0..SENDERS).map(start).collect();
        Self { stop, senders }
    }

    async fn stop(self) -> Sent {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Sent::default();
        for sender in self.senders {
            let sent = sender.await.expect("a sender ends");
            all.acknowledged.extend(sent.acknowledged);
            all.unanswered.extend(sent.unanswered);
        }
        all
    }
}

impl Sent {
    /// What was acknowledged counts once, and what was not counts once when it is sent again.
    async fn verify(&self, app: &App) {
        let mut oracle = Oracle::default();
        for event in self.acknowledged.iter().flatten() {
            oracle.send(event.clone());
        }
        for batch in &self.acknowledged {
            let again = must_send(&app.admin(), &mut oracle, batch).await;
            assert_eq!(again.duplicates, BATCH, "an acknowledged event was lost");
        }
        for batch in &self.unanswered {
            let sent = turnpike_tests::compare::send(&app.admin(), &mut oracle, batch, true).await;
            assert!(sent.is_some(), "the server is back");
        }
        verify(&app.admin(), &oracle).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r21_a_drain_under_load_loses_nothing() {
    let drains = times(3, 30);
    for _ in 0..drains {
        let directory = tempfile::tempdir().expect("a directory");
        let mut app = App::start(BINARY, directory.path()).await;
        declare(&app.admin()).await;
        let load = Load::start(&app);
        tokio::time::sleep(Duration::from_millis(700)).await;
        let (code, took) = tokio::task::block_in_place(|| app.terminate());
        let sent = load.stop().await;
        assert_eq!(code, Some(0));
        assert!(took <= Duration::from_secs(10), "it took {took:?}");
        println!(
            "drained in {took:?}; {} batches acknowledged",
            sent.acknowledged.len()
        );
        assert!(
            sent.acknowledged.len() > 8 && !sent.unanswered.is_empty(),
            "vacuous: there was no load"
        );
        app.restart().await;
        sent.verify(&app).await;
    }
    println!("injected {drains} drains");
}

/// In one process there is no takeover: who sleeps keeps the directory, so no second writer can ever be.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r21_a_sleeping_process_keeps_its_directory_and_goes_on() {
    let asleep = Duration::from_secs(times(2, 60) as u64);
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start(BINARY, directory.path()).await;
    declare(&app.admin()).await;
    let load = Load::start(&app);
    tokio::time::sleep(Duration::from_millis(500)).await;
    app.signal("STOP");
    let data = app.directory().display().to_string();
    let began = std::time::Instant::now();
    let mut refused = 0;
    while began.elapsed() < asleep {
        let second = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &data];
        let ended = tokio::task::block_in_place(|| run(BINARY, directory.path(), &second));
        assert_ne!(ended.code, Some(0));
        let told = ended.out + &ended.error;
        assert!(told.contains("in use by another process"), "{told}");
        refused += 1;
        tokio::time::sleep(asleep / 8).await;
    }
    app.signal("CONT");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let sent = load.stop().await;
    println!(
        "injected one sleep of {asleep:?}; {refused} starts on its directory refused; {} batches acknowledged",
        sent.acknowledged.len()
    );
    assert!(refused > 0 && sent.acknowledged.len() > 8, "vacuous");
    sent.verify(&app).await;
    app.restart().await;
    sent.verify(&app).await;
    assert_eq!(app.terminate().0, Some(0));
    assert_eq!(app.offline("rebuild")["different"], 0);
}
