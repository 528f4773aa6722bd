//! Customers that move between parents, get entitlements of their own and lose them, with siblings that use the shared
//! limits up: what is left of every grant, against a plain count minute by minute that shares nothing with the engine.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use proptest::prelude::*;
use serde_json::{Value, json};
use support::{World, at};
use turnpike_domain::time::{Clock as _, Timestamp};

/// The first two stay on top; each of the others is below one of those before it, or alone.
const CUSTOMERS: [&str; 5] = ["acme", "beta", "team", "user", "peer"];
/// Minutes from 10 January 2026, 12:00, on.
const MINUTES: usize = 3 * 1440;
/// Minutes of the first day before them.
const MORNING: usize = 12 * 60;

#[derive(Debug, Clone)]
enum Step {
    Consume(usize, i64),
    Event {
        customer: usize,
        minutes_ago: usize,
        amount: i64,
    },
    Grant(usize, Given),
    /// One of those that were given is taken back.
    TakeBack(usize),
    /// An override of the day, or none any more.
    Limit(usize, Option<i64>),
    Move(usize, Option<usize>),
    Pass(i64),
    Restart,
}

#[derive(Debug, Clone)]
struct Given {
    id: String,
    holder: usize,
    amount: i64,
    /// Minutes before it is given; then the minute.
    start: usize,
    minutes: Option<usize>,
    daily: bool,
    rollover: i64,
    /// In which minute.
    taken_back: Option<usize>,
}

impl Given {
    fn expires(&self) -> usize {
        self.minutes.map_or(usize::MAX, |minutes| self.start + minutes)
    }

    /// When it ends, taken back or not.
    fn ends(&self) -> usize {
        self.taken_back
            .map_or(self.expires(), |taken| taken.min(self.expires()))
    }
}

fn step() -> impl Strategy<Value = Step> {
    let one = 0..CUSTOMERS.len();
    let given = (
        1i64..20,
        0usize..60,
        prop::option::of(1usize..900),
        any::<bool>(),
        0i64..10,
    );
    let given = given.prop_map(|(amount, start, minutes, daily, rollover)| Given {
        id: String::new(),
        holder: 0,
        amount,
        start,
        minutes,
        daily,
        rollover: if daily { rollover } else { 0 },
        taken_back: None,
    });
    let moved = (2..CUSTOMERS.len(), prop::option::of(0usize..4));
    let moved =
        moved.prop_map(|(customer, parent)| Step::Move(customer, parent.map(|parent| parent % customer)));
    prop_oneof![
        8 => (one.clone(), 1i64..25).prop_map(|(customer, amount)| Step::Consume(customer, amount)),
        3 => (one.clone(), 0usize..60, 1i64..25).prop_map(|(customer, minutes_ago, amount)| Step::Event { customer, minutes_ago, amount }),
        3 => (one.clone(), given).prop_map(|(customer, given)| Step::Grant(customer, given)),
        2 => any::<usize>().prop_map(Step::TakeBack),
        3 => (one, prop::option::of(0i64..30)).prop_map(|(customer, limit)| Step::Limit(customer, limit)),
        4 => moved,
        4 => prop_oneof![1i64..60, 60i64..3_600, 3_600i64..30_000].prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

/// What a customer was in a minute.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    parent: Option<usize>,
    limit: Option<i64>,
    used: i64,
}

struct Model {
    places: [Vec<Place>; CUSTOMERS.len()],
    grants: Vec<Given>,
    /// Minutes in which something changed: nothing is used in them.
    changed: Vec<bool>,
}

/// What the count says of one minute.
struct Count {
    balances: Vec<i64>,
    /// By customer and minute, what grants that it drew on did not cover.
    charged: [Vec<i64>; CUSTOMERS.len()],
    /// Of that, what was beyond what held too.
    lost: [Vec<i64>; CUSTOMERS.len()],
}

impl Model {
    fn new() -> Self {
        Self {
            places: [(); CUSTOMERS.len()].map(|()| vec![Place::default(); MINUTES]),
            grants: Vec::new(),
            changed: vec![false; MINUTES],
        }
    }

    fn change(&mut self, customer: usize, now: usize, change: impl Fn(&mut Place)) {
        self.places[customer][now..].iter_mut().for_each(change);
        self.changed[now] = true;
    }

    /// The customer and those above it.
    fn chain(&self, customer: usize, minute: usize) -> Vec<usize> {
        let above = |one: &usize| self.places[*one][minute].parent;
        std::iter::successors(Some(customer), above).collect()
    }

    fn active(&self, minute: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.grants.len()).filter(move |at| {
            let grant = &self.grants[*at];
            (grant.start..grant.ends()).contains(&minute)
        })
    }

    /// In whose pool a customer is.
    fn provider(&self, customer: usize, minute: usize) -> usize {
        let chain = self.chain(customer, minute);
        let has = |one: &&usize| self.places[**one][minute].limit.is_some();
        let holds = |one: &&usize| self.active(minute).any(|at| self.grants[at].holder == **one);
        let provider = chain.iter().find(has);
        let provider = provider.or_else(|| chain.iter().rfind(holds));
        provider.copied().unwrap_or(customer)
    }

    /// The grants in a pool, in the order of drawing.
    fn pool(&self, pool: usize, minute: usize) -> Vec<usize> {
        let mut order: Vec<_> = self.active(minute).collect();
        order.retain(|at| self.provider(self.grants[*at].holder, minute) == pool);
        order.sort_by_key(|at| {
            let grant = &self.grants[*at];
            // By when it would have ended: to take it back changes nothing of what was drawn before.
            let end = grant.expires();
            let midnight = (minute + MORNING) / 1440 * 1440 + 1440 - MORNING;
            let end = if grant.daily { end.min(midnight) } else { end };
            (end, grant.start, grant.id.clone())
        });
        order
    }

    /// The first minute of the window that a pool counts, and its limit.
    fn window(&self, pool: usize, minute: usize) -> (usize, i64) {
        let day = ((minute + MORNING) / 1440 * 1440).saturating_sub(MORNING);
        let limit = self.places[pool][minute].limit;
        limit.map_or((0, 0), |limit| (day, limit))
    }

    fn count(&self, now: usize) -> Count {
        let mut count = Count {
            balances: vec![0; self.grants.len()],
            charged: Default::default(),
            lost: Default::default(),
        };
        for minute in 0..=now {
            for (grant, balance) in self.grants.iter().zip(&mut count.balances) {
                if minute == grant.start {
                    *balance = grant.amount;
                } else if grant.daily && (minute + MORNING).is_multiple_of(1440) {
                    *balance = grant.amount + (*balance).min(grant.rollover);
                }
            }
            for pool in 0..CUSTOMERS.len() {
                let below = (0..CUSTOMERS.len()).filter(|one| self.chain(*one, minute).contains(&pool));
                let used: i64 = below.map(|one| self.places[one][minute].used).sum();
                count.charged[pool].push(used);
                count.lost[pool].push(0);
                if used == 0 || self.provider(pool, minute) != pool {
                    continue;
                }
                let (start, limit) = self.window(pool, minute);
                let before: i64 = count.charged[pool][start..minute].iter().sum();
                let mut due = (before + used - limit).max(0) - (before - limit).max(0);
                for at in self.pool(pool, minute) {
                    let drawn = due.min(count.balances[at]);
                    count.balances[at] -= drawn;
                    count.charged[pool][minute] -= drawn;
                    due -= drawn;
                }
                count.lost[pool][minute] = due;
            }
        }
        count
    }

    /// What is left of each grant that raises limits of a customer, and how much it may use; `None`: it has nothing.
    fn told(&self, count: &Count, customer: usize, now: usize) -> Option<(Vec<(String, i64)>, i64)> {
        let provider = self.provider(customer, now);
        let chain = self.chain(customer, now);
        let limited = |one: &usize| self.places[*one][now].limit.is_some();
        let own = limited(&provider) || !self.pool(provider, now).is_empty();
        let levels = chain.into_iter().skip_while(|one| *one != provider);
        let levels = levels.filter(|one| (*one == provider && own) || limited(one));
        let (mut grants, mut remaining) = (Vec::new(), None::<i64>);
        for level in levels {
            let pool = self.pool(level, now);
            let left: i64 = pool.iter().map(|at| count.balances[*at]).sum();
            let (start, _) = self.window(level, now);
            let charged: i64 = count.charged[level][start..=now].iter().sum();
            let lost: i64 = count.lost[level][start..=now].iter().sum();
            let more = match (self.places[level][now].limit, pool.len()) {
                (None, _) => left,
                (Some(limit), 0) => limit - charged,
                // What was covered keeps no grant from being used; what was beyond everything does.
                (Some(limit), _) => left + (limit - (charged - lost)).max(0) - lost,
            };
            let more = more.max(0);
            remaining = Some(remaining.map_or(more, |least| least.min(more)));
            grants.extend(
                pool.iter()
                    .map(|at| (self.grants[*at].id.clone(), count.balances[*at])),
            );
        }
        own.then_some(grants).zip(remaining)
    }
}

fn minute_of(time: Timestamp) -> usize {
    ((time.micros() - at("2026-01-10T12:00:00Z").micros()) / 60_000_000) as usize
}

fn give(world: &World, given: &Given) {
    let time = |minute: usize| {
        at("2026-01-10T12:00:00Z")
            .plus_micros(minute as i64 * 60_000_000)
            .to_string()
    };
    let mut body = json!({"id": given.id, "feature": "tokens", "amount": given.amount.to_string(), "effective_at": time(given.start)});
    if let Some(minutes) = given.minutes {
        body["expires_at"] = time(given.start + minutes).into();
    }
    if given.daily {
        body["recurrence"] = "day".into();
        body["rollover_max"] = given.rollover.to_string().into();
    }
    world.put_grant(CUSTOMERS[given.holder], body);
}

/// The balances that the engine tells a customer, and how much it may use.
async fn told(world: &World, customer: &str) -> Option<(Vec<(String, i64)>, i64)> {
    let (_, list, _) = world
        .call("GET", &format!("/v1/customers/{customer}/entitlements"), None)
        .await;
    let number = |value: &Value| value.as_str().unwrap().parse::<i64>().unwrap();
    let has = list["data"].as_array().unwrap().first()?;
    let given = has["grants"].as_array().unwrap().iter();
    let balances = given.map(|one| (one["id"].as_str().unwrap().to_owned(), number(&one["balance"])));
    Some((balances.collect(), number(&has["remaining"])))
}

/// Makes a change in a minute of its own, so that it is told to the minute what was used before and behind it.
fn change(world: &World, model: &mut Model, step: &Step) {
    world.clock.pass_s(60);
    let now = minute_of(world.clock.machine_now());
    match step {
        Step::Limit(customer, limit) => {
            let key = CUSTOMERS[*customer];
            match limit {
                Some(limit) => {
                    let limits = json!([{"limit": limit.to_string(), "period": "day"}]);
                    world.put_override(key, json!({"feature": "tokens", "limits": limits}));
                }
                None => world.remove_override(key, "tokens"),
            }
            model.change(*customer, now, |place| place.limit = *limit);
        }
        Step::Move(customer, parent) => {
            world.move_customer(CUSTOMERS[*customer], parent.map(|parent| CUSTOMERS[parent]));
            model.change(*customer, now, |place| place.parent = *parent);
        }
        _ => unreachable!("only what changes"),
    }
    world.clock.pass_s(60);
}

/// Takes a grant back at the beginning of a minute: what is left of it is gone, and what was drawn stays drawn.
fn take_back(world: &World, model: &mut Model, which: usize) {
    world.clock.pass_s(60);
    let now = minute_of(world.clock.machine_now());
    let given: Vec<_> = (0..model.grants.len())
        .filter(|at| model.grants[*at].taken_back.is_none())
        .collect();
    if let Some(at) = given.get(which % given.len().max(1)) {
        let grant = &mut model.grants[*at];
        grant.taken_back = Some(now);
        world.remove_grant(CUSTOMERS[grant.holder], &grant.id);
    }
}

async fn step_on(world: &World, model: &mut Model, n: usize, step: Step) -> Result<(), TestCaseError> {
    let now = minute_of(world.clock.machine_now());
    match step {
        Step::Consume(customer, amount) => {
            let answer = world
                .consume(&format!("c{n}"), CUSTOMERS[customer], &amount.to_string())
                .await;
            let count = model.count(now);
            let fits = model
                .told(&count, customer, now)
                .is_some_and(|(_, more)| amount <= more);
            prop_assert_eq!(
                &answer["allowed"],
                fits,
                "step {}: {} of {}: {}",
                n,
                amount,
                customer,
                answer
            );
            model.places[customer][now].used += if fits { amount } else { 0 };
        }
        Step::Event {
            customer,
            minutes_ago,
            amount,
        } if minutes_ago <= now && !model.changed[now - minutes_ago] => {
            let time = world
                .clock
                .machine_now()
                .plus_micros(-(minutes_ago as i64) * 60_000_000);
            world.log.tokens(CUSTOMERS[customer], time, amount);
            model.places[customer][now - minutes_ago].used += amount;
        }
        Step::Event { .. } | Step::Restart => {}
        Step::Grant(customer, mut given) => {
            (given.id, given.holder) = (format!("g{n}"), customer);
            given.start = now - given.start.min(now);
            give(world, &given);
            model.grants.push(given);
        }
        Step::TakeBack(which) => take_back(world, model, which),
        Step::Limit(..) | Step::Move(..) => change(world, model, &step),
        Step::Pass(seconds) => world.clock.pass_s(seconds),
    }
    Ok(())
}

async fn follows(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::new().await;
    world.put_feature("tokens", json!({"kind": "metered", "meter": "tokens"}));
    for customer in CUSTOMERS {
        world.put_customer(customer, json!({}));
    }
    let mut model = Model::new();
    for (n, step) in steps.into_iter().enumerate() {
        if matches!(step, Step::Restart) {
            world = world.restart().await;
        }
        step_on(&world, &mut model, n, step).await?;
        let now = minute_of(world.clock.machine_now());
        if now + 600 > MINUTES {
            break;
        }
        let count = model.count(now);
        for (customer, key) in CUSTOMERS.iter().enumerate() {
            prop_assert_eq!(
                told(&world, key).await,
                model.told(&count, customer, now),
                "step {}: {}",
                n,
                key
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn each_unit_of_a_grant_is_drawn_once_wherever_it_goes(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(follows(steps))?;
    }
}
