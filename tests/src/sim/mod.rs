//! The simulation (R25, with R11): the real log, views, partition owners, quota engine, billing and handlers, on a disk
//! that fails and fills up, with fail points that turn durable steps into failures, under a clock that jumps, driven by
//! one seeded thread with several tenants. One of them does business: quotas, reservations, corrections, billing. Every
//! answer is compared with the oracle, and an auditor compares totals after every step.
//!
//! Determinism: one step is awaited before the next begins, checkpoints and merges are steps of their own, and the log
//! seals nothing by itself. So with one partition the order of what happens to the disk follows from the seed, and a
//! trace of all outcomes must be the same for the same seed. With several, their threads race for the log; there a call
//! is also cut off at any point where it waits. The control store is SQLite on a real disk: it fails at fail points, but
//! its sectors are its own.
//!
//! A run that panics prints its trace. As a run of fewer steps is the beginning of a longer one, the last line is where
//! it broke.

mod engine;
mod hatch;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use turnpike_domain::port::intake::{Correction, Outcome};
use turnpike_domain::problem::Code;
use turnpike_stores::fault::{FaultCounts, Operation, POINTS};

use crate::commerce::{Commerce, Step};
use crate::oracle::{Oracle, OracleEvent, Verdict};
use engine::Engine;

/// Tenants that count events. The one behind them does business.
const TENANTS: u32 = 3;
/// What can be made to fail once. Reads are left out: a failed read is an answer, not a fault to recover from.
const OPERATIONS: [Operation; 8] = [
    Operation::Write,
    Operation::Sync,
    Operation::Allocate,
    Operation::SetLen,
    Operation::Create,
    Operation::Rename,
    Operation::Remove,
    Operation::SyncDirectory,
];

/// What a simulation came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// A hash over every step and its outcome.
    pub trace: u64,
    /// Events that were acknowledged.
    pub acknowledged: usize,
    /// What the disk did.
    pub faults: FaultCounts,
    /// Starts after a crash.
    pub restarts: u64,
    /// Steps that were not answered, and taken again after a restart.
    pub unanswered: u64,
    /// Jumps of the clock.
    pub jumps: u64,
    /// Calls that were cut off while they waited.
    pub cut_off: u64,
    /// Quota decisions that were compared.
    pub decisions: u64,
    /// Invoices that were compared.
    pub invoices: u64,
}

impl std::ops::AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.faults += other.faults;
        self.restarts += other.restarts;
        self.unanswered += other.unanswered;
        self.jumps += other.jumps;
        self.cut_off += other.cut_off;
        self.decisions += other.decisions;
        self.invoices += other.invoices;
    }
}

/// Runs `steps` steps from a seed, with a number of partitions.
///
/// # Panics
/// When an invariant does not hold.
pub fn run(seed: u64, steps: usize, partitions: u32) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut simulation = Simulation::new(seed, partitions).await;
        for step in 0..steps {
            simulation.step(step).await;
        }
        // The faults stop here: one restart later everything must be right, without any time passing.
        simulation.restart_with(false, None).await;
        simulation.audit_fully().await;
        simulation.report()
    })
}

struct Simulation {
    random: StdRng,
    engine: Engine,
    oracles: Vec<Oracle>,
    sent: Vec<Vec<OracleEvent>>,
    commerce: Commerce,
    /// Without an answer: to be done again until there is one.
    unanswered: Vec<Unanswered>,
    racing: bool,
    next: u64,
    trace: DefaultHasher,
    history: Vec<String>,
    report: Report,
}

enum Unanswered {
    Events(u32, Vec<OracleEvent>),
    Correction(u32, OracleEvent, Correction),
    Business(Step),
}

impl Drop for Simulation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the trace up to the failure:");
            for line in &self.history {
                println!("  {line}");
            }
        }
    }
}

impl Simulation {
    async fn new(seed: u64, partitions: u32) -> Self {
        let engine = Engine::new(seed, TENANTS, partitions).await;
        let commerce = Commerce::open(seed, &engine.hatch(TENANTS)).await;
        Self {
            random: StdRng::seed_from_u64(seed),
            engine,
            oracles: (0..TENANTS).map(|_| Oracle::default()).collect(),
            sent: (0..TENANTS).map(|_| Vec::new()).collect(),
            commerce,
            unanswered: Vec::new(),
            racing: partitions > 1,
            next: 0,
            trace: DefaultHasher::new(),
            history: Vec::new(),
            report: Report::default(),
        }
    }

    fn note(&mut self, what: &str, outcome: impl std::fmt::Debug) {
        let line = format!("{what}: {outcome:?}");
        line.hash(&mut self.trace);
        self.history.push(line);
    }

    async fn step(&mut self, step: usize) {
        let tenant = self.random.random_range(0..TENANTS);
        match self.random.random_range(0..100) {
            0..30 => {
                let batch = self.batch(tenant);
                self.send(tenant, batch).await;
            }
            30..40 => self.correct(tenant).await,
            40..70 => {
                let step = self.commerce.next_step();
                self.business(step, false).await;
            }
            70..77 => {
                let done = self.engine.checkpoint().await;
                self.note("checkpoint", done);
            }
            77..81 => {
                let merges = self.engine.merge();
                self.note("merge", merges);
            }
            81..83 => {
                let done = self.engine.tick().await;
                self.note("tick", done);
            }
            83..94 => self.harm(),
            _ => self.restart().await,
        }
        if !self.engine.is_sound() || !self.unanswered.is_empty() {
            self.restart().await;
        }
        self.audit(step, tenant).await;
    }

    /// Something goes wrong: now, or soon.
    fn harm(&mut self) {
        match self.random.random_range(0..10) {
            0..4 => {
                let operation = OPERATIONS[self.random.random_range(0..OPERATIONS.len())];
                let before = self.random.random_range(0..4);
                self.engine.disk.fail(operation, before);
                self.note("to fail", (operation, before));
            }
            4..6 => {
                let operations = self.random.random_range(1..30);
                self.engine.disk.cut_power_after(operations);
                self.note("power ends after", operations);
            }
            6..8 => {
                let bytes = self.random.random_range(0..8_192);
                self.engine.disk.leave_free(bytes);
                self.note("bytes left on the disk", bytes);
            }
            _ => {
                let us = self.random.random_range(-3_600_000_000..3_600_000_000_i64);
                self.engine.jump(us);
                self.report.jumps += 1;
                self.note("the clock jumps", us);
            }
        }
    }

    fn batch(&mut self, tenant: u32) -> Vec<OracleEvent> {
        let size = self.random.random_range(1..40);
        (0..size).map(|_| self.event(tenant)).collect()
    }

    fn event(&mut self, tenant: u32) -> OracleEvent {
        let sent = &self.sent[tenant as usize];
        if !sent.is_empty() && self.random.random_bool(0.15) {
            let mut again = sent[self.random.random_range(0..sent.len())].clone();
            if self.random.random_bool(0.3) {
                again.data["v"] = json!("999999.125");
            }
            return again;
        }
        self.next += 1;
        OracleEvent {
            source: "simulation".to_owned(),
            // The same ids in every tenant: they must not meet.
            id: format!("id-{}", self.next / u64::from(TENANTS)),
            kind: "t".to_owned(),
            subject: format!("s{}", self.random.random_range(0..4)),
            time_us: engine::START_US + self.random.random_range(0..3 * 86_400) * 1_000_000,
            data: json!({"v": format!("{}.{}", self.random.random_range(-50..500), self.random.random_range(0..1000))}),
        }
    }

    async fn send(&mut self, tenant: u32, batch: Vec<OracleEvent>) {
        let cut_after =
            (self.racing && self.random.random_bool(0.1)).then(|| self.random.random_range(0..20));
        let answer = match cut_after {
            None => self.engine.submit(tenant, &batch).await,
            // The caller goes away while the call waits, and the process dies right behind it.
            Some(turns) => {
                let turns = async {
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::select! {
                    biased;
                    answer = self.engine.submit(tenant, &batch) => answer,
                    () = turns => Err(Code::Unavailable),
                }
            }
        };
        match answer {
            Ok(outcomes) => self.acknowledge(tenant, batch, &outcomes, false),
            Err(code) => {
                self.report.cut_off += u64::from(cut_after.is_some());
                self.note("submit", code);
                self.unanswered.push(Unanswered::Events(tenant, batch));
            }
        }
    }

    /// A step of the tenant that does business. False: no answer; it is to be done again.
    async fn business(&mut self, step: Step, again: bool) -> bool {
        let hatch = self.engine.hatch(TENANTS);
        let done = self.commerce.take(&hatch, &step, again).await;
        self.note("business", (&step, done));
        if !done {
            self.engine.fail_unless(false);
            self.unanswered.push(Unanswered::Business(step));
        }
        done
    }

    fn acknowledge(&mut self, tenant: u32, batch: Vec<OracleEvent>, outcomes: &[Outcome], again: bool) {
        assert_eq!(batch.len(), outcomes.len());
        for (event, outcome) in batch.into_iter().zip(outcomes) {
            let verdict = self.oracles[tenant as usize].send(event.clone());
            let id = event.id.clone();
            self.sent[tenant as usize].push(event);
            let agrees = match outcome {
                Outcome::Accepted(_) => verdict == Verdict::Accepted,
                // What had no answer may have been taken before.
                Outcome::Duplicate(_) => {
                    verdict == Verdict::Duplicate || (again && verdict == Verdict::Accepted)
                }
                Outcome::Conflict(_) => verdict == Verdict::Conflict,
            };
            assert!(agrees, "I1: the oracle says {verdict:?}, the engine {outcome:?}");
            self.note("event", (&id, verdict));
        }
    }

    async fn correct(&mut self, tenant: u32) {
        let sent = &self.sent[tenant as usize];
        if sent.is_empty() {
            return;
        }
        let event = sent[self.random.random_range(0..sent.len())].clone();
        let change = if self.random.random_bool(0.4) {
            Correction::Void
        } else {
            Correction::Amend {
                data: Some(json!({"v": self.random.random_range(0..100)}).to_string()),
                time: None,
            }
        };
        self.apply_correction(tenant, event, change).await;
    }

    /// False: no answer; it is to be done again.
    async fn apply_correction(&mut self, tenant: u32, event: OracleEvent, change: Correction) -> bool {
        match self.engine.correct(tenant, &event, change.clone()).await {
            Ok(known) => {
                let oracle = &mut self.oracles[tenant as usize];
                let expected = match &change {
                    Correction::Void => oracle.void(&event.source, &event.id),
                    Correction::Amend { data, .. } => {
                        let data = data
                            .as_deref()
                            .map(|text| serde_json::from_str(text).expect("JSON"));
                        oracle.amend(&event.source, &event.id, data, None)
                    }
                };
                assert_eq!(known, expected, "a correction of {}", event.id);
                self.note("correct", (&event.id, known));
                true
            }
            Err(code) => {
                self.note("correct", (&event.id, code));
                self.unanswered
                    .push(Unanswered::Correction(tenant, event, change));
                false
            }
        }
    }

    /// The process ends: by a kill or a loss of power. What was not answered is done again. In the next life a durable
    /// step may fail, as early as in the start.
    async fn restart(&mut self) {
        let power = self.random.random_bool(0.6);
        let point = POINTS[self.random.random_range(0..POINTS.len())];
        let nth = self.random.random_range(1..12);
        let armed = self
            .random
            .random_bool(0.4)
            .then(|| format!("{point}:{nth}:error"));
        self.restart_with(power, armed).await;
        self.audit_fully().await;
    }

    async fn restart_with(&mut self, power: bool, armed: Option<String>) {
        self.note("restart", (power, &armed));
        self.engine.restart(power, armed.as_deref()).await;
        self.report.restarts += 1;
        if self.settle().await {
            return;
        }
        self.note("restart", "without faults");
        self.engine.restart(power, None).await;
        self.report.restarts += 1;
        assert!(
            self.settle().await,
            "nothing fails after a restart without faults"
        );
    }

    /// Does again what was not answered. False: something failed once more.
    async fn settle(&mut self) -> bool {
        for unanswered in std::mem::take(&mut self.unanswered) {
            self.report.unanswered += 1;
            let done = match unanswered {
                Unanswered::Events(tenant, batch) => {
                    if let Ok(outcomes) = self.engine.submit(tenant, &batch).await {
                        self.acknowledge(tenant, batch, &outcomes, true);
                        true
                    } else {
                        self.unanswered.push(Unanswered::Events(tenant, batch));
                        false
                    }
                }
                Unanswered::Correction(tenant, event, change) => {
                    self.apply_correction(tenant, event, change).await
                }
                Unanswered::Business(step) => self.business(step, true).await,
            };
            if !done {
                return false;
            }
        }
        self.engine.is_sound()
    }

    /// I1, I2 and I3 in short: a tenant's count and sum.
    async fn audit(&mut self, step: usize, tenant: u32) {
        let found = self.engine.totals(tenant, engine::QUICK).await;
        let expected = engine::expected(&self.oracles[tenant as usize], engine::QUICK);
        assert_eq!(found, expected, "I1, I2, I3: tenant {tenant} after step {step}");
        self.note("audit", found);
    }

    /// All tenants: every meter from the views and from the raw log; limits and invoices of the one that does business.
    async fn audit_fully(&mut self) {
        for tenant in 0..TENANTS {
            let expected = engine::expected(&self.oracles[tenant as usize], engine::all_meters());
            let found = self.engine.totals(tenant, engine::all_meters()).await;
            assert_eq!(found, expected, "I1, I2, I3: tenant {tenant}");
            let found = self.engine.totals_from_log(tenant).await;
            assert_eq!(found, expected, "the raw log of tenant {tenant}");
        }
        let hatch = self.engine.hatch(TENANTS);
        self.commerce.verify(&hatch).await;
    }

    fn report(&self) -> Report {
        let count = |what: &[&str]| {
            what.iter()
                .filter_map(|what| self.commerce.counts.get(what))
                .sum()
        };
        Report {
            trace: self.trace.finish(),
            acknowledged: self.oracles.iter().map(Oracle::len).sum(),
            faults: self.engine.disk.counts(),
            decisions: count(&["consumes", "reservations", "commits", "checks"]),
            invoices: count(&["invoices"]),
            ..self.report.clone()
        }
    }
}
