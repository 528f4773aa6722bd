//! A client of the mix: what it draws, and what of its own it can go on with.

use std::sync::Arc;

use crate::Load;
use crate::client::request;
use crate::engine::{API_KEY, key_of};
use crate::job::mix;

/// What all clients ask about.
pub struct World {
    /// Of the events.
    pub load: Load,
    /// The numbers of the customers that have been billed.
    pub billed: std::ops::Range<u32>,
    /// Ids of subscriptions.
    pub subscriptions: Vec<String>,
    /// Ids of invoices.
    pub invoices: Vec<String>,
}

/// How much meters change by a request that was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Of `requests`.
    pub requests: i64,
    /// Of `tokens` and `by_model`.
    pub tokens: i64,
    /// Of `calls`.
    pub calls: i64,
}

impl Change {
    /// Adds another.
    pub const fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.tokens += other.tokens;
        self.calls += other.calls;
    }
}

/// What a client can go on with when a request was done.
pub enum Then {
    /// Nothing.
    Nothing,
    /// An event stands, with so many tokens, and may be amended or voided.
    Stands(String, u64),
    /// A reservation is open.
    Open(String),
}

/// A request.
pub struct Call {
    /// Whole.
    pub bytes: Vec<u8>,
    /// What the answer says when it was done.
    pub says: &'static str,
    /// What it changes.
    pub change: Change,
    /// What follows.
    pub then: Then,
}

impl Call {
    /// A request that changes no usage.
    pub fn new(method: &str, path: &str, body: &str, says: &'static str) -> Self {
        Self::of((method, path, "application/json"), body.as_bytes(), says)
    }

    /// The same with the type of its body.
    pub fn of((method, path, media): (&str, &str, &str), body: &[u8], says: &'static str) -> Self {
        Self {
            bytes: request(method, path, API_KEY, media, body),
            says,
            change: Change::default(),
            then: Then::Nothing,
        }
    }

    /// Whether an answer says that it was done.
    pub fn is_done(&self, status: u16, body: &[u8]) -> bool {
        (200..300).contains(&status) && memchr::memmem::find(body, self.says.as_bytes()).is_some()
    }

    /// The same, which changes usage.
    pub fn changes(self, change: Change) -> Self {
        Self { change, ..self }
    }

    /// The same, that something follows.
    pub fn then(self, then: Then) -> Self {
        Self { then, ..self }
    }
}

/// A client.
pub struct Client {
    /// What it asks about.
    pub world: Arc<World>,
    number: u64,
    drawn: u64,
    named: u64,
    standing: Vec<(String, u64)>,
    open: Vec<String>,
}

impl Client {
    /// Client `number`.
    pub const fn new(world: Arc<World>, number: u64) -> Self {
        Self {
            world,
            number,
            drawn: 0,
            named: 0,
            standing: Vec::new(),
            open: Vec::new(),
        }
    }

    /// A number below `bound` that looks random and is the same in each run.
    pub const fn draw(&mut self, bound: u64) -> u64 {
        self.drawn += 1;
        mix(self.number << 40 ^ self.drawn) % bound
    }

    /// A number that no other request has.
    pub const fn name(&mut self) -> u64 {
        self.named += 1;
        self.number << 32 | self.named
    }

    /// A customer's key.
    pub fn customer(&mut self) -> String {
        let customers = u64::from(self.world.load.customers);
        key_of(self.draw(customers) as u32)
    }

    /// The key of a customer that has been billed.
    pub fn billed(&mut self) -> String {
        let billed = self.world.billed.clone();
        key_of(billed.start + self.draw(u64::from(billed.end - billed.start)) as u32)
    }

    /// A subscription's id.
    pub fn subscription(&mut self) -> String {
        let at = self.draw(self.world.subscriptions.len() as u64) as usize;
        self.world.subscriptions[at].clone()
    }

    /// An invoice's id.
    pub fn invoice(&mut self) -> String {
        let at = self.draw(self.world.invoices.len() as u64) as usize;
        self.world.invoices[at].clone()
    }

    /// An event of its own that stands; it is taken.
    pub fn standing(&mut self) -> Option<(String, u64)> {
        self.standing.pop()
    }

    /// A reservation of its own that is open; it is taken.
    pub fn open(&mut self) -> Option<String> {
        self.open.pop()
    }

    /// Notes what follows a request that was done.
    pub fn note(&mut self, then: Then) {
        match then {
            Then::Nothing => {}
            Then::Stands(id, tokens) => self.standing.push((id, tokens)),
            Then::Open(id) => self.open.push(id),
        }
    }
}
