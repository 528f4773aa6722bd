//! Customers that move: a parent counts what was timed while it was one, whatever moves, ends or starts anew.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;
use support::{TENANT, World, at};
use turnpike_domain::port::directory::DirectoryChange;
use turnpike_domain::time::{Clock as _, Timestamp};

/// Customers with a subscription each, whose limits refuse nothing.
async fn world(customers: &[&str], limit: &str, mode: &str) -> World {
    let world = World::new().await;
    world.put_feature("tokens", json!({"kind": "metered", "meter": "tokens"}));
    let limits = json!([{"limit": limit, "period": "month", "mode": mode}, {"limit": limit, "period": "minute", "mode": mode}]);
    world.put_plan("pro", json!([{"feature": "tokens", "limits": limits}]));
    for key in customers {
        world.put_customer(key, json!({}));
        world.subscribe(key, "pro", &[]);
    }
    world
}

/// What the customer's own month limit shows as used.
async fn used(world: &World, customer: &str) -> i64 {
    let answer = world.check(customer, "tokens", "0").await;
    let limits = answer["limits"].as_array().unwrap().iter();
    let month = limits
        .clone()
        .find(|limit| limit["customer"] == customer && limit["period"] == "month");
    month.unwrap()["used"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_limit_cannot_be_evaded_by_moving_away_and_back() {
    let mut world = world(&["org", "other", "team"], "10", "hard").await;
    world.put_customer("user", json!({"parent": "team"}));
    world.move_customer("team", Some("org"));
    world.clock.pass_s(60);
    assert_eq!(world.consume("1", "user", "10").await["allowed"], true);
    assert_eq!(world.consume("2", "user", "1").await["allowed"], false);
    for parent in [None, Some("other"), Some("org")] {
        world.clock.pass_s(60);
        world.move_customer("team", parent);
        assert_eq!(used(&world, "org").await, 10, "under {parent:?}");
        assert_eq!(used(&world, "other").await, 0);
        assert_eq!(world.check("org", "tokens", "1").await["allowed"], false);
    }
    world = world.restart().await;
    assert_eq!(used(&world, "org").await, 10);
    assert_eq!(world.consume("3", "team", "1").await["reason"], "limit_reached");
    // A month later the window is another; the parents are not.
    world.clock.set("2026-02-03T00:00:00Z");
    assert_eq!(world.consume("4", "user", "4").await["allowed"], true);
    assert_eq!((used(&world, "org").await, used(&world, "other").await), (4, 0));
}

#[tokio::test]
async fn what_is_reserved_counts_for_the_parent_of_its_time() {
    let mut world = world(&["org", "other", "team"], "10", "hard").await;
    world.move_customer("team", Some("org"));
    world.clock.pass_s(60);
    assert_eq!(world.reserve("r", "team", "6", 3_600).await["allowed"], true);
    world.clock.pass_s(60);
    world.move_customer("team", Some("other"));
    for restarted in [false, true] {
        if restarted {
            world = world.restart().await;
        }
        assert_eq!(
            world.figures("org").await,
            ["0", "6", "4"],
            "restarted: {restarted}"
        );
        assert_eq!(world.figures("other").await, ["0", "0", "10"]);
    }
    // What is committed beyond it is taken where it was reserved.
    let (_, beyond) = world.commit("r", json!({"amount": "11"})).await;
    assert_eq!(beyond["allowed"], false, "{beyond}");
    let (_, within) = world.commit("r", json!({"amount": "9"})).await;
    assert_eq!(within["allowed"], true, "{within}");
    assert_eq!(world.figures("org").await, ["9", "0", "1"]);
    assert_eq!(world.figures("other").await, ["0", "0", "10"]);
}

/// Grants that race moves: whatever the order was, the figures are those of a fresh count. A move is cut to its minute, so
/// what was granted in its minute counts for the new parent.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_move_is_atomic_for_decisions_that_race_it() {
    let world = Arc::new(world(&["org", "other", "team"], "1000", "overage").await);
    world.move_customer("team", Some("org"));
    let (mut expected, mut moves) = ([0, 0], 0);
    for round in 0..20usize {
        world.clock.pass_s(60);
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..40 {
            let world = Arc::clone(&world);
            calls.spawn(async move {
                world.consume(&format!("{round}-{n}"), "team", "1").await["allowed"] == true
            });
        }
        tokio::task::yield_now().await;
        world.move_customer("team", Some(["other", "org"][round % 2]));
        moves += 1;
        let granted = calls.join_all().await;
        expected[round % 2] += granted.into_iter().map(i64::from).sum::<i64>();
    }
    println!("{moves} moves raced {expected:?} grants");
    assert_eq!(expected, [400, 400]);
    assert_eq!([used(&world, "other").await, used(&world, "org").await], expected);
    let world = Arc::into_inner(world).unwrap().restart().await;
    assert_eq!([used(&world, "other").await, used(&world, "org").await], expected);
}

#[derive(Debug, Clone)]
enum Step {
    Move(usize, Option<usize>),
    Event {
        customer: usize,
        minutes_ago: i64,
        amount: i64,
    },
    Consume {
        customer: usize,
        amount: i64,
    },
    Reserve {
        customer: usize,
        amount: i64,
    },
    /// Commits or releases the oldest reservation.
    Close {
        commit: bool,
    },
    Pass(i64),
    Look(usize),
    Restart,
}

const CUSTOMERS: [&str; 5] = ["c0", "c1", "c2", "c3", "c4"];

fn step() -> impl Strategy<Value = Step> {
    let one = 0..CUSTOMERS.len();
    prop_oneof![
        4 => (one.clone(), prop::option::of(one.clone())).prop_map(|(one, parent)| Step::Move(one, parent)),
        3 => (one.clone(), 0i64..40, 1i64..20).prop_map(|(customer, minutes_ago, amount)| Step::Event { customer, minutes_ago, amount }),
        3 => (one.clone(), 1i64..20).prop_map(|(customer, amount)| Step::Consume { customer, amount }),
        1 => (one.clone(), 1i64..20).prop_map(|(customer, amount)| Step::Reserve { customer, amount }),
        1 => any::<bool>().prop_map(|commit| Step::Close { commit }),
        3 => (1i64..200).prop_map(Step::Pass),
        2 => one.prop_map(Step::Look),
        1 => Just(Step::Restart),
    ]
}

/// The parent of each customer in each minute, and what was used when: summed up anew at each look.
#[derive(Default)]
struct Model {
    parents: Vec<Vec<Option<usize>>>,
    used: Vec<(usize, i64, i64)>,
    reserved: std::collections::VecDeque<(String, usize, i64, i64)>,
}

const MINUTES: usize = 400;

impl Model {
    fn is_above(&self, above: usize, one: usize, minute: i64) -> bool {
        let mut next = Some(one);
        while let Some(customer) = next {
            if customer == above {
                return true;
            }
            next = self.parents[customer][minute as usize];
        }
        false
    }

    fn used(&self, customer: usize) -> i64 {
        let ours = self
            .used
            .iter()
            .filter(|(one, minute, _)| self.is_above(customer, *one, *minute));
        ours.map(|(.., amount)| amount).sum()
    }

    fn reserved(&self, customer: usize) -> i64 {
        let ours = self
            .reserved
            .iter()
            .filter(|(_, one, minute, _)| self.is_above(customer, *one, *minute));
        ours.map(|(.., amount)| amount).sum()
    }
}

async fn follows(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = world(&CUSTOMERS, "100000", "overage").await;
    let begin = at("2026-01-10T11:00:00Z");
    let minute = |time: Timestamp| (time.micros() - begin.micros()) / 60_000_000;
    let mut model = Model {
        parents: vec![vec![None; MINUTES]; CUSTOMERS.len()],
        ..Model::default()
    };
    for (n, step) in steps.into_iter().enumerate() {
        let now = world.clock.machine_now();
        match step {
            Step::Move(one, parent) => {
                // The store refuses circles.
                if parent.is_some_and(|parent| model.is_above(one, parent, minute(now))) {
                    continue;
                }
                world.move_customer(CUSTOMERS[one], parent.map(|parent| CUSTOMERS[parent]));
                model.parents[one][minute(now) as usize..].fill(parent);
            }
            Step::Event {
                customer,
                minutes_ago,
                amount,
            } => {
                let time = now.plus_micros(-minutes_ago * 60_000_000);
                world.log.tokens(CUSTOMERS[customer], time, amount);
                model.used.push((customer, minute(time), amount));
            }
            Step::Consume { customer, amount } => {
                let answer = world
                    .consume(&format!("c{n}"), CUSTOMERS[customer], &amount.to_string())
                    .await;
                prop_assert_eq!(&answer["allowed"], true);
                model.used.push((customer, minute(now), amount));
            }
            Step::Reserve { customer, amount } => {
                let id = format!("r{n}");
                world
                    .reserve(&id, CUSTOMERS[customer], &amount.to_string(), 86_400)
                    .await;
                model.reserved.push_back((id, customer, minute(now), amount));
            }
            Step::Close { commit } => {
                let Some((id, customer, made, amount)) = model.reserved.pop_front() else {
                    continue;
                };
                if commit {
                    world.commit(&id, json!({})).await;
                    model.used.push((customer, made, amount));
                } else {
                    world.release(&id).await;
                }
            }
            Step::Pass(seconds) => world.clock.pass_s(seconds),
            Step::Look(customer) => {
                let found = used(&world, CUSTOMERS[customer]).await;
                prop_assert_eq!(found, model.used(customer), "step {}: {}", n, CUSTOMERS[customer]);
            }
            Step::Restart => world = world.restart().await,
        }
    }
    agrees(&world, &model).await?;
    agrees(&world.restart().await, &model).await
}

/// Used and reserved of every customer.
async fn agrees(world: &World, model: &Model) -> Result<(), TestCaseError> {
    for (n, customer) in CUSTOMERS.iter().enumerate() {
        prop_assert_eq!(used(world, customer).await, model.used(n), "{}", customer);
        let answer = world.check(customer, "tokens", "0").await;
        let limits = answer["limits"].as_array().unwrap();
        let own = limits
            .iter()
            .find(|limit| limit["customer"] == *customer && limit["period"] == "month");
        let reserved: i64 = own.unwrap()["reserved"].as_str().unwrap().parse().unwrap();
        prop_assert_eq!(reserved, model.reserved(n), "{}", customer);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn figures_follow_a_plain_model(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(follows(steps))?;
    }
}

#[tokio::test]
async fn a_change_that_moves_nobody_makes_nothing_anew() {
    let world = world(&["org", "team"], "10", "hard").await;
    world.move_customer("team", Some("org"));
    assert_eq!(world.consume("1", "team", "1").await["allowed"], true);
    let reads = world.log.reads.load(std::sync::atomic::Ordering::SeqCst);
    world.told(DirectoryChange::Customer(TENANT, "team".to_owned()));
    assert_eq!(world.consume("2", "team", "1").await["allowed"], true);
    assert_eq!(world.log.reads.load(std::sync::atomic::Ordering::SeqCst), reads);
}
