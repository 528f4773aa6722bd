//! Grants of a customer and of those below it, under pauses, overrides, late events and restarts, against a plain count
//! minute by minute that shares nothing with the engine.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use proptest::prelude::*;
use serde_json::{Value, json};
use support::{TENANT, World, at};
use turnpike_domain::catalog::Pause;
use turnpike_domain::port::directory::DirectoryChange;
use turnpike_domain::time::{Clock as _, Timestamp};

/// One above the other; the first has the subscription.
const CUSTOMERS: [&str; 3] = ["acme", "team", "user"];
/// What its plan gives a day.
const PLAN: i64 = 20;
/// Minutes from 10 January 2026, 11:00, on; the tests begin an hour later.
const MINUTES: usize = 3 * 1440;
/// Minutes of the first day before them.
const MORNING: usize = 11 * 60;

#[derive(Debug, Clone)]
enum Step {
    Consume {
        customer: usize,
        amount: i64,
    },
    Event {
        customer: usize,
        minutes_ago: usize,
        amount: i64,
    },
    Grant {
        customer: usize,
        given: Given,
    },
    /// `None` takes it away again.
    Override(Option<Kind>),
    PauseOrResume,
    Pass(i64),
    Restart,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Limit(i64),
    Revoked,
}

#[derive(Debug, Clone)]
struct Given {
    id: String,
    amount: i64,
    /// Minutes before it is given; then the minute.
    start: usize,
    minutes: Option<usize>,
    /// Minutes of its recurrence.
    every: Option<usize>,
    rollover: i64,
}

fn step() -> impl Strategy<Value = Step> {
    let one = 0..CUSTOMERS.len();
    let every = prop_oneof![Just(None), Just(Some(60)), Just(Some(1440))];
    let given = (
        1i64..20,
        0usize..60,
        prop::option::of(1usize..900),
        every,
        0i64..10,
    );
    let given = given.prop_map(|(amount, start, minutes, every, rollover)| Given {
        id: String::new(),
        amount,
        start,
        minutes,
        every,
        rollover: if every.is_some() { rollover } else { 0 },
    });
    let kind = prop_oneof![4 => (0i64..40).prop_map(|limit| Some(Kind::Limit(limit))), 1 => Just(Some(Kind::Revoked)), 3 => Just(None)];
    prop_oneof![
        6 => (one.clone(), 1i64..25).prop_map(|(customer, amount)| Step::Consume { customer, amount }),
        3 => (one.clone(), 0usize..60, 1i64..25).prop_map(|(customer, minutes_ago, amount)| Step::Event { customer, minutes_ago, amount }),
        3 => (one, given).prop_map(|(customer, given)| Step::Grant { customer, given }),
        2 => kind.prop_map(Step::Override),
        2 => Just(Step::PauseOrResume),
        5 => prop_oneof![1i64..60, 60i64..3_600, 3_600i64..30_000].prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

struct Model {
    used: Vec<i64>,
    /// What the level was given at the end of each minute.
    kinds: Vec<Kind>,
    over: Option<Kind>,
    paused: bool,
    grants: Vec<Given>,
}

impl Model {
    fn new() -> Self {
        Self {
            used: vec![0; MINUTES],
            kinds: vec![Kind::Limit(PLAN); MINUTES],
            over: None,
            paused: false,
            grants: Vec::new(),
        }
    }

    fn is_denied(&self) -> bool {
        self.over == Some(Kind::Revoked) || (self.paused && self.over.is_none())
    }

    /// What `minute` draws if it is given `kind`, by what no grant covered of each minute before.
    fn due(&self, charged: &[i64], minute: usize, kind: Kind) -> i64 {
        let Kind::Limit(limit) = kind else { return 0 };
        let before: i64 = charged[day_of(minute)..].iter().sum();
        (before + self.used[minute] - limit).max(0) - (before - limit).max(0)
    }

    /// What is left of each grant that counts in minute `now`, in the order of drawing, with what that minute used; and what
    /// no grant covered of its day.
    fn left(&self, now: usize) -> (Vec<(String, i64)>, i64) {
        let mut balances = vec![0i64; self.grants.len()];
        let mut charged = Vec::new();
        for minute in 0..=now {
            for (grant, balance) in self.grants.iter().zip(&mut balances) {
                if minute == grant.start {
                    *balance = grant.amount;
                } else if grant
                    .every
                    .is_some_and(|every| (minute + MORNING).is_multiple_of(every))
                {
                    *balance = grant.amount + (*balance).min(grant.rollover);
                }
            }
            let order = self.order(minute);
            let before = self.kinds[minute.saturating_sub(1)];
            // Of what holds before and after, the lesser; what is taken away covers nothing.
            let sides = [self.kinds[minute], before];
            let sides = sides.iter().filter(|kind| **kind != Kind::Revoked);
            let sides = sides.map(|kind| self.due(&charged, minute, *kind));
            let mut due = sides.min().unwrap_or(0);
            charged.push(self.used[minute]);
            for at in &order {
                let drawn = due.min(balances[*at]);
                balances[*at] -= drawn;
                charged[minute] -= drawn;
                due -= drawn;
            }
            if minute == now {
                let left = order.iter();
                let left = left.map(|at| (self.grants[*at].id.clone(), balances[*at]));
                return (left.collect(), charged[day_of(now)..].iter().sum());
            }
        }
        unreachable!("the last minute returns")
    }

    fn order(&self, minute: usize) -> Vec<usize> {
        let end = |grant: &Given| grant.minutes.map_or(usize::MAX, |minutes| grant.start + minutes);
        let active = |at: &usize| (self.grants[*at].start..end(&self.grants[*at])).contains(&minute);
        let mut order: Vec<_> = (0..self.grants.len()).filter(active).collect();
        order.sort_by_key(|at| {
            let grant = &self.grants[*at];
            let again = grant
                .every
                .map(|every| (minute + MORNING) / every * every + every - MORNING);
            (
                end(grant).min(again.unwrap_or(usize::MAX)),
                grant.start,
                &grant.id,
            )
        });
        order
    }

    /// How much may be used yet.
    fn remaining(&self, now: usize) -> i64 {
        let Kind::Limit(limit) = self.kinds[now] else {
            return 0;
        };
        let (left, charged) = self.left(now);
        left.iter().map(|(_, left)| left).sum::<i64>() + (limit - charged).max(0)
    }
}

/// The first minute of the day of `minute`.
fn day_of(minute: usize) -> usize {
    ((minute + MORNING) / 1440 * 1440).saturating_sub(MORNING)
}

fn minute_of(time: Timestamp) -> usize {
    ((time.micros() - at("2026-01-10T11:00:00Z").micros()) / 60_000_000) as usize
}

fn give(world: &World, customer: &str, given: &Given) {
    let time = |minute: usize| {
        at("2026-01-10T11:00:00Z")
            .plus_micros(minute as i64 * 60_000_000)
            .to_string()
    };
    let mut body = json!({"id": given.id, "feature": "tokens", "amount": given.amount.to_string(), "effective_at": time(given.start)});
    if let Some(minutes) = given.minutes {
        body["expires_at"] = time(given.start + minutes).into();
    }
    if let Some(every) = given.every {
        body["recurrence"] = if every == 60 { "hour" } else { "day" }.into();
        body["rollover_max"] = given.rollover.to_string().into();
    }
    world.put_grant(customer, body);
}

fn pause_or_resume(world: &World) {
    let now = world.clock.machine_now().floor_minute();
    world
        .directory
        .edit_subscription("acme", |s| match s.pauses.last_mut() {
            Some(pause) if pause.until.is_none() => pause.until = Some(now),
            _ => s.pauses.push(Pause {
                from: now,
                until: None,
            }),
        });
    world.told(DirectoryChange::Customer(TENANT, "acme".to_owned()));
}

fn put_override(world: &World, kind: Option<Kind>) {
    match kind {
        Some(Kind::Limit(limit)) => {
            let limits = json!([{"limit": limit.to_string(), "period": "day"}]);
            world.put_override("acme", json!({"feature": "tokens", "limits": limits}));
        }
        Some(Kind::Revoked) => world.put_override("acme", json!({"feature": "tokens", "revoked": true})),
        None => world.remove_override("acme", "tokens"),
    }
}

/// The balances that the engine tells, and what is left of the limit.
async fn told(world: &World) -> (Vec<(String, i64)>, i64) {
    let (_, list, _) = world.call("GET", "/v1/customers/acme/entitlements", None).await;
    let number = |value: &Value| value.as_str().unwrap().parse::<i64>().unwrap();
    let given = list["data"][0]["grants"].as_array().unwrap().iter();
    let balances = given.map(|one| (one["id"].as_str().unwrap().to_owned(), number(&one["balance"])));
    (balances.collect(), number(&list["data"][0]["remaining"]))
}

async fn follows(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::new().await;
    world.metered(json!([{"limit": PLAN.to_string(), "period": "day"}]));
    for pair in CUSTOMERS.windows(2) {
        world.put_customer(pair[1], json!({"parent": pair[0]}));
    }
    let mut model = Model::new();
    for (n, step) in steps.into_iter().enumerate() {
        let changes = matches!(step, Step::Override(_) | Step::Restart);
        let now = minute_of(world.clock.machine_now());
        match step {
            Step::Consume { customer, amount } => {
                let answer = world
                    .consume(&format!("c{n}"), CUSTOMERS[customer], &amount.to_string())
                    .await;
                let (allowed, fits) = (answer["allowed"] == true, amount <= model.remaining(now));
                // In the minute of a change a decision may be stricter, for it goes by what holds after it.
                let strict = model.kinds[now] != model.kinds[now - 1];
                let expected = if model.is_denied() {
                    !allowed
                } else {
                    allowed == fits || (strict && !allowed)
                };
                prop_assert!(expected, "step {}: {} fits {}: {}", n, amount, fits, answer);
                model.used[now] += if allowed { amount } else { 0 };
            }
            Step::Event {
                customer,
                minutes_ago,
                amount,
            } => {
                let time = world
                    .clock
                    .machine_now()
                    .plus_micros(-(minutes_ago as i64) * 60_000_000);
                world.log.tokens(CUSTOMERS[customer], time, amount);
                model.used[now - minutes_ago] += amount;
            }
            Step::Grant { customer, mut given } => {
                given.id = format!("g{n}");
                given.start = now - given.start;
                give(&world, CUSTOMERS[customer], &given);
                model.grants.push(given);
            }
            Step::Override(kind) => {
                put_override(&world, kind);
                model.over = kind;
                model.kinds[now..].fill(kind.unwrap_or(Kind::Limit(PLAN)));
            }
            Step::PauseOrResume => {
                pause_or_resume(&world);
                model.paused = !model.paused;
            }
            Step::Pass(seconds) => world.clock.pass_s(seconds),
            Step::Restart => world = world.restart().await,
        }
        let now = minute_of(world.clock.machine_now());
        if now + 600 > MINUTES {
            break;
        }
        if !model.is_denied() {
            says(&world, &model, changes).await?;
        }
    }
    Ok(())
}

/// What is told is what the model says; within the minute of a change the limit may be lower, save right after it.
async fn says(world: &World, model: &Model, changes: bool) -> Result<(), TestCaseError> {
    let now = minute_of(world.clock.machine_now());
    let (balances, remaining) = told(world).await;
    prop_assert_eq!(balances, model.left(now).0);
    let expected = model.remaining(now);
    if changes || model.kinds[now] == model.kinds[now - 1] {
        prop_assert_eq!(remaining, expected);
    }
    prop_assert!(remaining <= expected, "{} of {}", remaining, expected);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn grants_follow_a_plain_count(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(follows(steps))?;
    }
}
