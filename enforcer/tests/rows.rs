//! What is decided by names, mostly from rows, is what is decided by a handle, from what was compiled: in every state, and
//! whatever changed just before.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use proptest::prelude::*;
use serde_json::json;
use support::{TENANT, World};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::{Clock as _, Timestamp};
use turnpike_enforcer::Decided;

const CUSTOMERS: [&str; 3] = [
    "acme",
    "child",
    "a-customer-whose-key-is-too-long-to-stand-in-a-row-beside-the-feature-that-is-asked-for",
];
const AMOUNTS: [i64; 4] = [0, 1, 30, 1_000];

#[derive(Debug, Clone)]
enum Step {
    Use(usize, i64),
    Consume(usize, u32),
    Reserve(usize, u32),
    Release(usize),
    Pass(i64),
    Tick,
    Limits(usize, usize),
    Plain(usize),
    Move(bool),
    Grant(usize),
    Suspend(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let customer = 0..CUSTOMERS.len();
    prop_oneof![
        4 => (customer.clone(), -5i64..40).prop_map(|(at, amount)| Step::Use(at, amount)),
        2 => (customer.clone(), 1u32..40).prop_map(|(at, amount)| Step::Consume(at, amount)),
        2 => (customer.clone(), 1u32..40).prop_map(|(at, amount)| Step::Reserve(at, amount)),
        1 => (0usize..6).prop_map(Step::Release),
        3 => prop::sample::select(vec![1i64, 20, 61, 3_600, 1_000, 86_400, 2_000_000]).prop_map(Step::Pass),
        2 => Just(Step::Tick),
        2 => (customer.clone(), 0usize..6).prop_map(|(at, limits)| Step::Limits(at, limits)),
        1 => customer.clone().prop_map(Step::Plain),
        1 => any::<bool>().prop_map(Step::Move),
        1 => customer.clone().prop_map(Step::Grant),
        1 => (customer, any::<bool>()).prop_map(|(at, suspended)| Step::Suspend(at, suspended)),
    ]
}

fn limits(kind: usize) -> serde_json::Value {
    match kind {
        0 => json!([{"limit": "60", "period": "month"}]),
        1 => json!([{"limit": "60", "period": "month", "mode": "soft", "grace_percent": 10}]),
        2 => json!([{"limit": "60", "period": "month", "mode": "overage"}]),
        3 => json!([{"limit": "40", "period": "minute"}]),
        4 => json!([{"limit": "60", "period": "day"}, {"limit": "500", "period": "month"}]),
        _ => json!([]),
    }
}

struct Run {
    world: World,
    made: usize,
    reserved: Vec<String>,
    rows: usize,
}

impl Run {
    async fn new() -> Self {
        let world = World::new().await;
        world.metered(limits(0));
        for customer in &CUSTOMERS[1..] {
            world.put_customer(customer, json!({}));
            world.subscribe(customer, "pro", &[]);
        }
        Self {
            world,
            made: 0,
            reserved: Vec::new(),
            rows: 0,
        }
    }

    fn id(&mut self) -> String {
        self.made += 1;
        format!("id-{}", self.made)
    }

    async fn apply(&mut self, step: &Step) {
        let now = self.world.clock.machine_now();
        let id = self.id();
        match *step {
            Step::Use(at, amount) => self.world.log.tokens(CUSTOMERS[at], now, amount),
            Step::Consume(at, amount) => {
                drop(self.world.consume(&id, CUSTOMERS[at], &amount.to_string()).await);
            }
            Step::Reserve(at, amount) => {
                self.world
                    .reserve(&id, CUSTOMERS[at], &amount.to_string(), 300)
                    .await;
                self.reserved.push(id);
            }
            Step::Release(at) if at < self.reserved.len() => {
                self.world.release(&self.reserved.swap_remove(at)).await;
            }
            Step::Release(_) => {}
            Step::Pass(seconds) => self.world.clock.pass_s(seconds),
            Step::Tick => self.world.enforcer.tick().await.unwrap(),
            Step::Limits(at, kind) => {
                let over = json!({"feature": "tokens", "limits": limits(kind)});
                self.world.put_override(CUSTOMERS[at], over);
            }
            Step::Plain(at) => self.world.remove_override(CUSTOMERS[at], "tokens"),
            Step::Move(below) => self.world.move_customer("child", below.then_some("acme")),
            Step::Grant(at) => {
                let grant = json!({"id": id, "feature": "tokens", "amount": "15", "effective_at": now});
                self.world.put_grant(CUSTOMERS[at], grant);
            }
            Step::Suspend(at, suspended) => {
                let mut customer = serde_json::to_value(
                    &*turnpike_domain::port::directory::Directory::customer(
                        &*self.world.directory,
                        TENANT,
                        CUSTOMERS[at],
                    )
                    .unwrap(),
                )
                .unwrap();
                customer["suspended"] = suspended.into();
                self.world.put_customer(CUSTOMERS[at], customer);
            }
        }
    }

    fn by_names(&self, customer: &str, amount: i64, now: Timestamp) -> Option<Decided> {
        let amount = Quantity::from_units(amount);
        self.world
            .enforcer
            .decide(TENANT, customer, "tokens", amount, now)
    }

    /// Decides first by names, as things stand behind a change; then by a handle; then by names again, from the row if there
    /// is one now; all that with an older instant in between.
    async fn compare(&mut self, after: &Step) {
        let now = self.world.clock.machine_now();
        for customer in CUSTOMERS {
            let first = AMOUNTS.map(|amount| self.by_names(customer, amount, now));
            let handle = self.world.enforcer.handle(TENANT, customer, "tokens").await;
            let mut handle = handle.unwrap();
            let told = AMOUNTS.map(|amount| handle.decide(Quantity::from_units(amount), now));
            for (first, told) in first.iter().zip(&told) {
                assert!(
                    first.is_none() || first == told,
                    "{customer} after {after:?}: {first:?}, {told:?}"
                );
            }
            for _ in 0..2 {
                let again = AMOUNTS.map(|amount| self.by_names(customer, amount, now));
                assert_eq!(again, told, "{customer} behind {after:?}");
            }
            let before = now.plus_micros(-90_000_000);
            let older = self.by_names(customer, 1, before);
            let told = handle.decide(Quantity::ONE, before);
            assert_eq!(older, told, "{customer} before {after:?}");
        }
        self.rows += self.world.enforcer.held().rows;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn by_names_is_decided_what_a_handle_says(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new().await;
            run.compare(&Step::Tick).await;
            assert_eq!(run.rows, 2, "that of the long key has no row");
            for step in &steps {
                run.apply(step).await;
                run.compare(step).await;
            }
        });
    }
}
