//! The simulation: the real log, views and partition owners on a disk that fails, under a clock that jumps, driven by one
//! seeded thread with several tenants; an auditor compares with the oracle after every step.
//!
//! Determinism: one step is awaited before the next begins, checkpoints and merges are steps of their own, and the log
//! seals nothing by itself. So with one partition the order of what happens to the disk follows from the seed, and a
//! trace of all outcomes must be the same for the same seed. With several, their threads race for the log.

mod declared;
mod engine;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use turnpike_domain::port::intake::{Correction, Outcome};
use turnpike_stores::fault::{FaultCounts, Operation};

use crate::oracle::{Oracle, OracleEvent, Verdict};
use engine::Engine;

/// Tenants of a simulation.
const TENANTS: u32 = 3;

/// What a simulation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// A hash over every step and its outcome.
    pub trace: u64,
    /// Events that were acknowledged.
    pub acknowledged: usize,
    /// What the disk did.
    pub faults: FaultCounts,
    /// Starts after a crash.
    pub restarts: u64,
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
        let mut simulation = Simulation::new(seed, partitions);
        for step in 0..steps {
            simulation.step(step).await;
        }
        simulation.settle().await;
        simulation.audit_fully().await;
        simulation.report()
    })
}

struct Simulation {
    random: StdRng,
    engine: Engine,
    oracles: Vec<Oracle>,
    sent: Vec<Vec<OracleEvent>>,
    /// Sent without an answer: to be sent again until there is one.
    unanswered: Vec<(u32, Vec<OracleEvent>)>,
    uncorrected: Vec<(u32, OracleEvent, Correction)>,
    next: u64,
    restarts: u64,
    trace: DefaultHasher,
}

impl Simulation {
    fn new(seed: u64, partitions: u32) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            engine: Engine::new(seed, TENANTS, partitions),
            oracles: (0..TENANTS).map(|_| Oracle::default()).collect(),
            sent: (0..TENANTS).map(|_| Vec::new()).collect(),
            unanswered: Vec::new(),
            uncorrected: Vec::new(),
            next: 0,
            restarts: 0,
            trace: DefaultHasher::new(),
        }
    }

    fn note(&mut self, what: &str, outcome: impl std::hash::Hash) {
        what.hash(&mut self.trace);
        outcome.hash(&mut self.trace);
    }

    async fn step(&mut self, step: usize) {
        let tenant = self.random.random_range(0..TENANTS);
        match self.random.random_range(0..100) {
            0..55 => {
                let batch = self.batch(tenant);
                self.send(tenant, batch).await;
            }
            55..70 => self.correct(tenant).await,
            70..80 => {
                let done = self.engine.checkpoint().await;
                self.note("checkpoint", done);
            }
            80..84 => {
                let merges = self.engine.merge();
                self.note("merge", merges);
            }
            84..88 => {
                let operation = [Operation::Sync, Operation::Write][self.random.random_range(0..2)];
                self.engine.disk.fail(operation, self.random.random_range(0..4));
            }
            88..91 => self.engine.disk.cut_power_after(self.random.random_range(1..30)),
            91..94 => self
                .engine
                .jump(self.random.random_range(-3_600_000_000..3_600_000_000)),
            _ => self.restart().await,
        }
        if !self.engine.is_sound() {
            self.restart().await;
        }
        self.audit(step).await;
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
        match self.engine.submit(tenant, &batch).await {
            Ok(outcomes) => self.acknowledge(tenant, batch, &outcomes, false),
            Err(code) => {
                self.note("submit", code);
                self.unanswered.push((tenant, batch));
            }
        }
    }

    fn acknowledge(&mut self, tenant: u32, batch: Vec<OracleEvent>, outcomes: &[Outcome], again: bool) {
        assert_eq!(batch.len(), outcomes.len());
        for (event, outcome) in batch.into_iter().zip(outcomes) {
            let verdict = self.oracles[tenant as usize].send(event.clone());
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
            self.note("event", verdict as u8);
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

    async fn apply_correction(&mut self, tenant: u32, event: OracleEvent, change: Correction) {
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
                self.note("correct", known);
            }
            Err(code) => {
                self.note("correct", code);
                self.uncorrected.push((tenant, event, change));
            }
        }
    }

    /// The process ends: by a kill or a loss of power. What was not answered is sent again.
    async fn restart(&mut self) {
        let power = self.random.random_bool(0.6);
        self.engine.restart(power).await;
        self.restarts += 1;
        self.note("restart", power);
        self.settle().await;
        self.audit_fully().await;
    }

    async fn settle(&mut self) {
        for (tenant, batch) in std::mem::take(&mut self.unanswered) {
            let outcomes = self
                .engine
                .submit(tenant, &batch)
                .await
                .expect("nothing fails after a restart");
            self.acknowledge(tenant, batch, &outcomes, true);
        }
        for (tenant, event, change) in std::mem::take(&mut self.uncorrected) {
            self.apply_correction(tenant, event, change).await;
            assert!(self.uncorrected.is_empty(), "nothing fails after a restart");
        }
    }

    /// I1, I2 and I3 in short: each tenant's count and sum.
    async fn audit(&mut self, step: usize) {
        if !self.unanswered.is_empty() || !self.uncorrected.is_empty() {
            return;
        }
        for tenant in 0..TENANTS {
            let found = self.engine.totals(tenant).await;
            let expected = engine::expected(&self.oracles[tenant as usize]);
            assert_eq!(found, expected, "I1, I2, I3: tenant {tenant} after step {step}");
            self.note("audit", found);
        }
    }

    /// The same from the raw log, and every view against one that was built anew.
    async fn audit_fully(&mut self) {
        for tenant in 0..TENANTS {
            let found = self.engine.totals_from_log(tenant).await;
            assert_eq!(
                found,
                engine::expected(&self.oracles[tenant as usize]),
                "the raw log of tenant {tenant}"
            );
        }
    }

    fn report(&self) -> Report {
        Report {
            trace: self.trace.finish(),
            acknowledged: self.oracles.iter().map(Oracle::len).sum(),
            faults: self.engine.disk.counts(),
            restarts: self.restarts,
        }
    }
}
