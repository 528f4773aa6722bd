//! What is done next: drawn from the seed, and valid for what was done before.

use rand::RngExt as _;
use serde_json::{Value, json};

use super::Commerce;
use super::catalog::{CUSTOMERS, KIND};
use crate::instant::{DAY_US, HOUR_US};
use crate::oracle::{Ask, OracleEvent};

#[derive(Debug, Clone)]
pub enum Step {
    /// Events are sent, some of them again.
    Events(Vec<OracleEvent>),
    /// An event is taken back, or gets other data.
    Correct(String, Option<Value>),
    /// A customer asks for an amount and uses it.
    Consume(usize, Ask),
    /// A customer holds an amount for so many seconds.
    Reserve(usize, Ask, i64),
    /// A reservation becomes usage of an amount.
    Commit(String, String),
    /// A reservation is given back.
    Release(String),
    /// The tenant's clock moves; what falls due is done.
    Advance(i64),
    /// A customer's limits are looked at.
    Check(usize),
}

impl Commerce {
    /// What is done next.
    pub fn next_step(&mut self) -> Step {
        let customer = self.random.random_range(0..CUSTOMERS.len());
        match self.random.random_range(0..100) {
            0..25 => Step::Events(self.events()),
            25..33 if !self.sent.is_empty() => {
                let at = self.random.random_range(0..self.sent.len());
                let data = self.random.random_bool(0.6).then(|| self.data());
                Step::Correct(self.sent[at].id.clone(), data)
            }
            33..55 => Step::Consume(customer, self.ask("c", customer)),
            55..65 => {
                let ask = self.ask("r", customer);
                Step::Reserve(customer, ask, self.random.random_range(1..3 * 3_600))
            }
            65..80 if !self.reservations.is_empty() => {
                let at = self.random.random_range(0..self.reservations.len());
                let id = self.reservations.keys().nth(at).expect("a reservation").clone();
                if self.random.random_bool(0.7) {
                    Step::Commit(id, self.amount())
                } else {
                    Step::Release(id)
                }
            }
            80..90 => Step::Advance(self.later()),
            _ => Step::Check(customer),
        }
    }

    fn amount(&mut self) -> String {
        let whole = self.random.random_range(1..60);
        format!("{whole}.{}", self.random.random_range(1..10))
    }

    fn ask(&mut self, kind: &str, customer: usize) -> Ask {
        self.next += 1;
        Ask {
            id: format!("{kind}-{}", self.next),
            subject: CUSTOMERS[customer].2[0].to_owned(),
            amount: self.amount(),
            at_us: self.now_us,
        }
    }

    fn data(&mut self) -> Value {
        let region = ["eu", "us", "ap"][self.random.random_range(0..3)];
        json!({"n": self.amount(), "region": region})
    }

    fn events(&mut self) -> Vec<OracleEvent> {
        let size = self.random.random_range(1..15);
        (0..size).map(|_| self.event()).collect()
    }

    fn event(&mut self) -> OracleEvent {
        if !self.sent.is_empty() && self.random.random_bool(0.15) {
            let at = self.random.random_range(0..self.sent.len());
            let mut again = self.sent[at].clone();
            if self.random.random_bool(0.3) {
                again.data["n"] = json!("77777.5");
            }
            return again;
        }
        self.next += 1;
        let (_, _, subjects, _) = CUSTOMERS[self.random.random_range(0..CUSTOMERS.len())];
        // Some are late for a period that was billed.
        let back_us = if self.random.random_bool(0.2) {
            60 * DAY_US
        } else {
            2 * DAY_US
        };
        let earliest_us = self.start_us.max(self.now_us - back_us);
        OracleEvent {
            source: "gateway".to_owned(),
            id: format!("e-{}", self.next),
            kind: KIND.to_owned(),
            subject: subjects[self.random.random_range(0..subjects.len())].to_owned(),
            time_us: self.random.random_range(earliest_us..=self.now_us),
            data: self.data(),
        }
    }

    fn later(&mut self) -> i64 {
        let step_us = match self.random.random_range(0..4) {
            0 => self.random.random_range(1..60) * 1_000_000,
            1 => self.random.random_range(1..30) * HOUR_US / 10,
            2 => self.random.random_range(1..10) * DAY_US,
            // Over the end of a period, at times of two.
            _ => self.random.random_range(10..40) * DAY_US,
        };
        self.now_us + step_us
    }
}
