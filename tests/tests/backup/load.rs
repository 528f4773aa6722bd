//! A load that can be led back to any of its steps: what it does next comes from a seed and from what it was answered, and the
//! answers are kept.

use std::collections::BTreeSet;
use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use turnpike_tests::app::{Answer, App, Caller};
use turnpike_tests::commerce::Commerce;
use turnpike_tests::door::Door;
use turnpike_tests::workload::{Workload, declare};

/// Answers, in the order of their calls.
#[derive(Default)]
pub struct Tape {
    answers: Mutex<Vec<(u16, Value)>>,
}

/// A way in whose answers are kept.
pub struct Recording<'t> {
    caller: Caller,
    tape: &'t Tape,
}

impl Door for Recording<'_> {
    async fn call(&self, method: &'static str, path: &str, body: Option<&Value>) -> Answer {
        let answer = self.caller.call(method, path, body).await;
        self.tape.answers.lock().expect("a tape").extend(answer.clone());
        answer
    }
}

/// The same answers once more, without a server.
pub struct Playing<'t> {
    tape: &'t Tape,
    at: Mutex<usize>,
}

impl Door for Playing<'_> {
    async fn call(&self, _method: &'static str, _path: &str, _body: Option<&Value>) -> Answer {
        let mut at = self.at.lock().expect("a place");
        *at += 1;
        Some(self.tape.answers.lock().expect("a tape")[*at - 1].clone())
    }
}

impl Tape {
    /// Calls through `caller`, whose answers are kept.
    pub fn record(&self, caller: Caller) -> Recording<'_> {
        Recording { caller, tape: self }
    }
}

/// Usage and corrections of one tenant, quotas and billing of another.
pub struct Load {
    seed: u64,
    workload: Workload,
    pub commerce: Commerce,
    random: StdRng,
    /// Steps that were taken, each before the next.
    pub steps: u64,
    /// Those that had perhaps been taken before.
    again: BTreeSet<u64>,
}

impl Load {
    /// Declares everything to a new server.
    pub async fn begin(seed: u64, app: &App, lab: &Recording<'_>) -> Self {
        declare(&app.admin()).await;
        let marker = json!({"event_type": "marker", "aggregation": "count"});
        app.admin().put("/v1/meters/markers", &marker).await;
        Self::new(seed, lab).await
    }

    async fn new(seed: u64, lab: &impl Door) -> Self {
        Self {
            seed,
            workload: Workload::new(seed),
            commerce: Commerce::open(seed, lab).await,
            random: StdRng::seed_from_u64(seed),
            steps: 0,
            again: BTreeSet::new(),
        }
    }

    /// The same load as it was behind so many steps; what was answered later is forgotten.
    pub async fn led_back(&self, steps: u64, tape: &Tape) -> Self {
        let playing = Playing {
            tape,
            at: Mutex::new(0),
        };
        let mut load = Self::new(self.seed, &playing).await;
        for step in 1..=steps {
            let again = self.again.contains(&step);
            load.take(None, &playing, again).await;
        }
        let used = playing.at.into_inner().expect("a place");
        tape.answers.lock().expect("a tape").truncate(used);
        load
    }

    /// Takes the next step and marks it as taken. `again`: it may have been taken before.
    pub async fn step(&mut self, app: &App, lab: &Recording<'_>, again: bool) {
        let admin = app.admin();
        self.take(Some(&admin), lab, again).await;
        let marker = json!({"id": format!("marker-{}", self.steps), "source": "load", "type": "marker", "subject": "load"});
        let (status, answer) = admin.post("/v1/events", &marker).await;
        assert_eq!(
            (status, answer["accepted"].as_u64()),
            (200, Some(1)),
            "step {}: {answer}",
            self.steps
        );
    }

    /// Without somebody to call, the oracle alone is told.
    async fn take(&mut self, admin: Option<&Caller>, lab: &impl Door, again: bool) {
        self.steps += 1;
        if again {
            self.again.insert(self.steps);
        }
        match self.random.random_range(0..10) {
            0..4 => {
                let size = self.random.random_range(1..60);
                let batch = self.workload.batch(size);
                match admin {
                    Some(caller) => assert!(self.workload.send(caller, &batch, again).await),
                    None => self.workload.tell(&batch),
                }
            }
            4 => match (self.workload.correction(), admin) {
                (Some(correction), Some(caller)) => {
                    assert!(self.workload.correct(caller, &correction).await);
                }
                (Some(correction), None) => self.workload.tell_correction(&correction),
                (None, _) => {}
            },
            _ => {
                let step = self.commerce.next_step();
                assert!(self.commerce.take(lab, &step, again).await, "{step:?}");
            }
        }
    }

    /// Totals, limits and invoices must be what the oracle says.
    pub async fn verify(&mut self, app: &App, lab: &Caller) {
        self.workload.verify(&app.admin()).await;
        self.commerce.verify(lab).await;
    }

    /// Events that were accepted.
    pub fn events(&self) -> usize {
        self.workload.oracle.len()
    }
}

/// The steps that a server has, by their marks.
pub async fn steps_kept(app: &App) -> u64 {
    let marks = app.admin().total("markers", "").await;
    marks.map_or(0, |marks| marks.parse().expect("a count"))
}
