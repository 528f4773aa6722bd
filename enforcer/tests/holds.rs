//! What is held counts against every limit whose window it lies in: also against those that come into force later, and for
//! customers above whose limits did not decide.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Faults, World, at};
use turnpike_domain::port::usage::UsageReader as _;
use turnpike_domain::record::{Record, decode};
use turnpike_domain::time::{Clock as _, Timestamp};

fn limits(limit: &str, period: &str) -> Value {
    json!({"feature": "tokens", "limits": [{"limit": limit, "period": period}]})
}

/// Eight are held; nobody may have more than the four that are left of twelve.
async fn four_are_left(world: &World) {
    assert_eq!(world.figures("acme").await, ["0", "8", "4"]);
    assert_eq!(world.consume("x", "acme", "12").await["allowed"], false);
    assert_eq!(world.consume("y", "acme", "4").await["allowed"], true);
    assert_eq!(world.commit("r", json!({})).await.1["allowed"], true);
    assert_eq!(world.figures("acme").await, ["12", "0", "0"]);
}

#[tokio::test]
async fn a_hold_counts_for_a_plan_that_was_looked_at_before_and_chosen_later() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "day"}]));
    world.put_plan("q", json!([limits("12", "month")]));
    let options = world.check("acme", "tokens", "11").await["upgrade_options"].clone();
    assert_eq!(options[0]["key"], "q");
    world.reserve("r", "acme", "8", 600).await;
    let answer = world.check("acme", "tokens", "5").await;
    assert_eq!(answer["upgrade_options"], json!([]), "four are left on it");
    world.subscribe("acme", "q", &[]);
    four_are_left(&world).await;
}

#[tokio::test]
async fn a_hold_counts_for_limits_that_stood_before_and_come_back() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "day"}]));
    world.put_override("acme", limits("12", "month"));
    world.check("acme", "tokens", "1").await;
    world.remove_override("acme", "tokens");
    world.reserve("r", "acme", "8", 600).await;
    world.put_override("acme", limits("12", "month"));
    four_are_left(&world).await;
}

#[tokio::test]
async fn a_hold_is_shown_to_an_unlimited_customer_above() {
    let world = World::new().await;
    world.metered(json!([]));
    world.put_customer("kid", json!({"parent": "acme"}));
    world.put_plan("own", json!([limits("10", "day")]));
    world.subscribe("kid", "own", &[]);
    assert_eq!(world.figures("acme").await, ["0", "0", "-"]);
    world.reserve("r", "kid", "8", 600).await;
    assert_eq!(world.figures("acme").await, ["0", "8", "-"]);
    world.put_override("acme", limits("12", "month"));
    assert_eq!(world.consume("x", "acme", "5").await["allowed"], false);
    world.release("r").await;
    assert_eq!(world.figures("acme").await, ["0", "0", "12"]);
    world.remove_override("acme", "tokens");
    assert_eq!(world.figures("acme").await, ["0", "0", "-"]);
}

/// One above the other; both have limits of their own.
const CUSTOMERS: [&str; 2] = ["acme", "kid"];
const PERIODS: [&str; 4] = ["minute", "hour", "day", "month"];

#[derive(Debug, Clone)]
enum Step {
    Consume(usize, i64),
    Reserve(usize, i64),
    /// One of the open reservations, by how much more or less than was reserved.
    Commit(usize, i64),
    Release(usize),
    /// An event that nobody decided on.
    Event(usize, i64),
    /// Other limits, or those of the plan.
    Limits(usize, Option<(usize, i64)>),
    Pass(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..CUSTOMERS.len();
    prop_oneof![
        4 => (who.clone(), 1i64..9).prop_map(|(who, amount)| Step::Consume(who, amount)),
        4 => (who.clone(), 1i64..9).prop_map(|(who, amount)| Step::Reserve(who, amount)),
        3 => (0usize..8, -4i64..5).prop_map(|(which, more)| Step::Commit(which, more)),
        2 => (0usize..8).prop_map(Step::Release),
        1 => (who.clone(), 1i64..4).prop_map(|(who, amount)| Step::Event(who, amount)),
        4 => (who, prop::option::of((0..PERIODS.len(), 4i64..30))).prop_map(|(who, limit)| Step::Limits(who, limit)),
        3 => (1i64..5_000).prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

/// What was used and is held, as plain sums.
#[derive(Default)]
struct Model {
    used: Vec<(usize, Timestamp, i64)>,
    held: BTreeMap<String, (usize, Timestamp, i64)>,
}

/// Since when a window of that kind, which holds `now`, lasts.
fn start_of(period: &str, now: Timestamp) -> Timestamp {
    let text = now.to_string();
    at(&match period {
        "minute" => format!("{}:00Z", &text[..16]),
        "hour" => format!("{}:00:00Z", &text[..13]),
        "day" => format!("{}T00:00:00Z", &text[..10]),
        _ => format!("{}-01T00:00:00Z", &text[..7]),
    })
}

impl Model {
    /// Used and held in the window around `time`, of a customer and of the one below it.
    fn counts(&self, who: usize, period: &str, time: Timestamp) -> (i64, i64) {
        let start = start_of(period, time);
        let ours = |(whose, time, amount): &(usize, Timestamp, i64)| {
            (*whose >= who && *time >= start).then_some(*amount)
        };
        let in_window = |one: &&(usize, Timestamp, i64)| start_of(period, one.1) == start;
        let used = self.used.iter().filter(in_window).filter_map(ours).sum();
        (used, self.held.values().filter(in_window).filter_map(ours).sum())
    }

    /// Compares all that is told of a customer with the sums; returns its limits, with whose they are.
    async fn compare(&self, world: &World, who: usize) -> Result<Vec<(usize, String, i64)>, TestCaseError> {
        let answer = world.check(CUSTOMERS[who], "tokens", "0").await;
        let mut limits = Vec::new();
        for limit in answer["limits"].as_array().unwrap() {
            let whose = CUSTOMERS
                .iter()
                .position(|key| limit["customer"] == *key)
                .unwrap();
            let period = limit["period"].as_str().unwrap();
            let (used, held) = self.counts(whose, period, world.clock.machine_now());
            let told = (limit["used"].clone(), limit["reserved"].clone());
            prop_assert_eq!(
                told,
                (json!(used.to_string()), json!(held.to_string())),
                "{} {}",
                whose,
                period
            );
            if let Some(most) = limit["limit"].as_str() {
                limits.push((whose, period.to_owned(), most.parse().unwrap()));
            }
        }
        Ok(limits)
    }

    fn fits(&self, limits: &[(usize, String, i64)], time: Timestamp, amount: i64) -> bool {
        limits.iter().all(|(whose, period, most)| {
            let (used, held) = self.counts(*whose, period, time);
            used + held + amount <= *most
        })
    }

    fn nth(&self, which: usize) -> Option<String> {
        let at = which.checked_rem(self.held.len())?;
        self.held.keys().nth(at).cloned()
    }

    async fn commit(&mut self, world: &World, id: &str, more: i64) -> Result<(), TestCaseError> {
        let (who, time, held) = self.held[id];
        let amount = (held + more).max(0);
        let limits = self.compare(world, who).await?;
        let fits = amount <= held || self.fits(&limits, time, amount - held);
        let (_, answer) = world.commit(id, json!({"amount": amount.to_string()})).await;
        prop_assert_eq!(
            &answer["allowed"],
            fits,
            "commit {} of {}: {}",
            amount,
            held,
            answer
        );
        if fits {
            self.held.remove(id);
            self.used.push((who, time, amount));
        }
        Ok(())
    }

    async fn take(&mut self, world: &World, id: String, step: &Step) -> Result<(), TestCaseError> {
        let (Step::Consume(who, amount) | Step::Reserve(who, amount)) = *step else {
            return Ok(());
        };
        let now = world.clock.machine_now();
        let limits = self.compare(world, who).await?;
        let fits = self.fits(&limits, now, amount);
        let (customer, sent) = (CUSTOMERS[who], amount.to_string());
        let answer = match step {
            Step::Reserve(..) => world.reserve(&id, customer, &sent, 86_400).await,
            _ => world.consume(&id, customer, &sent).await,
        };
        prop_assert_eq!(&answer["allowed"], fits, "{:?}: {}", step, answer);
        if fits {
            match step {
                Step::Reserve(..) => drop(self.held.insert(id, (who, now, amount))),
                _ => self.used.push((who, now, amount)),
            }
        }
        Ok(())
    }
}

async fn follows_plain_sums(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::new().await;
    world.metered(json!([]));
    world.put_customer("kid", json!({"parent": "acme"}));
    world.put_plan("own", json!([limits("20", "day")]));
    world.put_plan("other", json!([limits("25", "month")]));
    world.subscribe("kid", "own", &[]);
    let mut model = Model::default();
    for (n, step) in steps.into_iter().enumerate() {
        match step {
            Step::Consume(..) | Step::Reserve(..) => {
                model.take(&world, format!("{n:03}"), &step).await?;
            }
            Step::Commit(which, more) => {
                if let Some(id) = model.nth(which) {
                    model.commit(&world, &id, more).await?;
                }
            }
            Step::Release(which) => {
                if let Some(id) = model.nth(which) {
                    prop_assert_eq!(world.release(&id).await.0.as_u16(), 200);
                    model.held.remove(&id);
                }
            }
            Step::Event(who, amount) => {
                let now = world.clock.machine_now();
                world.log.tokens(CUSTOMERS[who], now, amount);
                model.used.push((who, now, amount));
            }
            Step::Limits(who, Some((period, limit))) => {
                world.put_override(CUSTOMERS[who], limits(&limit.to_string(), PERIODS[period]));
            }
            Step::Limits(who, None) => world.remove_override(CUSTOMERS[who], "tokens"),
            Step::Pass(seconds) => {
                world.clock.pass_s(seconds);
                let now = world.clock.machine_now();
                world.enforcer.tick().await.unwrap();
                let ends = |time: &Timestamp| time.plus_micros(86_400_000_000);
                model.held.retain(|_, (_, time, _)| now < ends(time));
            }
            Step::Restart => world = world.restart().await,
        }
        for who in 0..CUSTOMERS.len() {
            model.compare(&world, who).await?;
        }
        // What would help is looked at too: its slots are live from then on.
        world.check("kid", "tokens", "1000").await;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_is_used_and_held_follows_plain_sums(steps in prop::collection::vec(step(), 1..50)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(follows_plain_sums(steps))?;
    }
}

/// Takes, holds, commits and releases at random until it is granted or refused each time.
async fn take_and_end(world: Arc<World>, caller: usize) {
    for number in 0..12 {
        let (customer, id) = (CUSTOMERS[(caller + number) % 2], format!("{caller}-{number}"));
        let mut body = json!({"id": id, "customer": customer, "feature": "tokens", "amount": "2"});
        if number % 4 == 0 {
            while world.post("/v1/quota/consume", body.clone()).await.0 == 503 {}
            continue;
        }
        body["ttl_s"] = 600.into();
        let (mut status, mut answer) = world.post("/v1/quota/reservations", body.clone()).await;
        while status == 503 {
            (status, answer) = world.post("/v1/quota/reservations", body.clone()).await;
        }
        assert_eq!(status, 200, "{answer}");
        if answer["allowed"] == false {
            continue;
        }
        match number % 4 {
            1 => while world.commit(&id, json!({"amount": "1"})).await.0 == 503 {},
            2 => while world.release(&id).await.0 == 503 {},
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn holds_are_counted_once_while_limits_and_slots_come_and_go() {
    for seed in 0..6 {
        let faults = Faults {
            seed,
            delay_us_max: 200,
            fail_before: 31,
            fail_after: 37,
        };
        let world = Arc::new(World::with_faults(faults).await);
        world.metered(json!([{"limit": "300", "period": "month"}, {"limit": "250", "period": "ever"}]));
        world.put_customer("kid", json!({"parent": "acme"}));
        world.put_plan("own", json!([limits("220", "day")]));
        world.put_plan("other", json!([limits("230", "hour")]));
        world.subscribe("kid", "own", &[]);
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..24 {
            callers.spawn(take_and_end(world.clone(), caller));
        }
        let mut n = 0;
        while !callers.is_empty() {
            n += 1;
            match n % 4 {
                0 => world.put_override("kid", limits("230", PERIODS[n / 4 % 4])),
                1 => drop(world.check("kid", "tokens", "1000").await),
                2 => world.remove_override("kid", "tokens"),
                // What was compiled and counted of both goes: it is made anew.
                _ => world.put_customer(
                    "kid",
                    json!({"parent": "acme", "subjects": ["kid", format!("s{n}")]}),
                ),
            }
            let wait = std::time::Duration::from_micros(500);
            if let Ok(Some(done)) = tokio::time::timeout(wait, callers.join_next()).await {
                done.unwrap();
            }
        }
        exact(&world, seed).await;
    }
}

/// What is told of each customer and window is what the log says, and no limit that always stood is exceeded.
async fn exact(world: &World, seed: u64) {
    let open = world.log.open_reservations().await.unwrap();
    let held = |customers: &[&str]| {
        let amounts = open.iter().map(|bytes| match decode(bytes).unwrap() {
            Record::Reserved(one) if customers.contains(&one.grant.customer) => one.grant.amount,
            _ => 0,
        });
        (amounts.sum::<i128>() / 1_000_000_000_000).to_string()
    };
    for (customer, below) in [("acme", &["acme", "kid"][..]), ("kid", &["kid"])] {
        let used = world.log.total("tokens", below).to_string();
        for period in PERIODS {
            world.put_override(customer, limits("1000000", period));
            // The customer's own limits come first.
            let told = &world.check(customer, "tokens", "0").await["limits"][0];
            let sums = (json!(used), json!(held(below)));
            assert_eq!(
                (&told["used"], &told["reserved"]),
                (&sums.0, &sums.1),
                "{seed} {customer} {period}"
            );
        }
    }
    let all: i64 = world
        .log
        .total("tokens", &["acme", "kid"])
        .to_string()
        .parse()
        .unwrap();
    assert!(
        all + held(&["acme", "kid"]).parse::<i64>().unwrap() <= 250,
        "seed {seed}"
    );
}

#[tokio::test]
async fn a_commit_counts_once_for_a_feature_that_got_another_meter() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "day"}]));
    let meter = |key: &str| world.put_feature("tokens", json!({"kind": "metered", "meter": key}));
    world.put_meter("other", "sum", Some("$.n"));
    world.reserve("r", "acme", "4", 600).await;
    world.reserve("s", "acme", "1", 600).await;
    meter("other");
    assert_eq!(world.figures("acme").await, ["0", "5", "5"]);
    assert_eq!(world.commit("r", json!({})).await.0, 200);
    assert_eq!(world.figures("acme").await, ["4", "1", "5"]);
    assert_eq!(world.commit("s", json!({})).await.0, 200);
    assert_eq!(world.figures("acme").await, ["5", "0", "5"]);
    // Nobody asks between the change and the commit, nor before it goes back: the former meter counts nothing of it.
    meter("tokens");
    assert_eq!(world.figures("acme").await, ["0", "0", "10"]);
    world.reserve("t", "acme", "3", 600).await;
    meter("other");
    assert_eq!(world.commit("t", json!({})).await.0, 200);
    meter("tokens");
    assert_eq!(world.figures("acme").await, ["0", "0", "10"]);
    meter("other");
    assert_eq!(world.figures("acme").await, ["8", "0", "2"]);
}
