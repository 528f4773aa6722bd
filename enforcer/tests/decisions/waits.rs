//! What `Retry-After` and `retryable` say, against the engine's own decisions: time is moved on step by step, nothing else is
//! used, and the same check is asked at each.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use turnpike_domain::port::directory::DirectoryChange;
use turnpike_domain::time::Timestamp;

use crate::support::{TENANT, World, at};

/// It is noon.
const NOW: &str = "2026-01-10T12:00:00Z";
const DAY_S: i64 = 86_400;

/// Steps of time, between which no window ends and no grant recurs; how many are looked at; and the kinds of windows.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// The first of them.
    first_s: i64,
    step_s: i64,
    steps: i64,
    periods: &'static [&'static str],
    recurrences: &'static [&'static str],
}

const SCALES: [Scale; 2] = [
    Scale {
        first_s: DAY_S / 2,
        step_s: DAY_S,
        steps: 75,
        periods: &["day", "week", "month", "billing", "ever"],
        recurrences: &["day", "week", "month", "ever"],
    },
    Scale {
        first_s: 3_600,
        step_s: 3_600,
        steps: 72,
        periods: &["hour", "day"],
        recurrences: &["hour", "day"],
    },
];

#[derive(Debug, Clone)]
struct Given {
    /// Given to the customer above.
    above: bool,
    amount: u32,
    recurrence: Option<usize>,
    rollover: Option<u32>,
    priority: u8,
    /// Steps from now on.
    ends: Option<i64>,
}

#[derive(Debug, Clone)]
struct Limit {
    limit: u32,
    period: usize,
    /// With a grace of a fifth.
    soft: bool,
}

#[derive(Debug, Clone)]
struct Case {
    scale: usize,
    limits: Vec<Limit>,
    /// Of the customer above.
    above: Vec<Limit>,
    /// What stood in the place of `limits` until two steps before now.
    before: Option<Vec<Limit>>,
    /// There is no subscription yet, so nothing but grants.
    only_grants: bool,
    grants: Vec<Given>,
    /// Steps before now, and how much.
    used: Vec<(i64, i64)>,
    amount: u32,
}

fn limits(most: usize) -> impl Strategy<Value = Vec<Limit>> {
    let limit = (0..25_u32, 0..5_usize, prop::bool::weighted(0.2));
    let limit = limit.prop_map(|(limit, period, soft)| Limit { limit, period, soft });
    prop::collection::vec(limit, 0..=most)
}

fn given() -> impl Strategy<Value = Given> {
    let parts = (
        prop::bool::weighted(0.2),
        1..12_u32,
        prop::option::weighted(0.7, 0..4_usize),
        prop::option::of(0..20_u32),
        0..3_u8,
        prop::option::weighted(0.4, 1..60_i64),
    );
    parts.prop_map(|(above, amount, recurrence, rollover, priority, ends)| Given {
        above,
        amount,
        recurrence,
        rollover: rollover.filter(|_| recurrence.is_some()),
        priority,
        ends,
    })
}

fn case() -> impl Strategy<Value = Case> {
    let parts = (
        0..SCALES.len(),
        limits(3),
        prop_oneof![3 => Just(Vec::new()), 1 => limits(2)],
        prop::option::weighted(0.3, limits(2)),
        prop::bool::weighted(0.15),
        prop::collection::vec(given(), 0..4),
        prop::collection::vec((0..8_i64, 1..30_i64), 1..5),
        1..40_u32,
    );
    parts.prop_map(
        |(scale, limits, above, before, only_grants, grants, used, amount)| Case {
            scale,
            limits,
            above,
            before,
            only_grants,
            grants,
            used,
            amount,
        },
    )
}

impl Case {
    fn scale(&self) -> Scale {
        SCALES[self.scale]
    }

    /// Each period once.
    fn entitlement(&self, limits: &[Limit]) -> Value {
        let periods = self.scale().periods;
        let told = limits.iter().map(|one| {
            let period = periods[one.period % periods.len()];
            let limit = json!({
                "limit": one.limit.to_string(), "period": period, "mode": if one.soft { "soft" } else { "hard" },
                "grace_percent": one.soft.then_some("20"),
            });
            (period, limit)
        });
        let told: BTreeMap<_, _> = told.collect();
        json!({"feature": "tokens", "limits": told.values().collect::<Vec<_>>()})
    }

    /// Seconds from now until so many steps on.
    fn seconds(&self, steps: i64) -> i64 {
        let Scale { first_s, step_s, .. } = self.scale();
        if steps > 0 {
            first_s + (steps - 1) * step_s
        } else {
            steps * step_s
        }
    }

    fn step(&self, steps: i64) -> Timestamp {
        at(NOW).plus_micros(self.seconds(steps) * 1_000_000)
    }

    async fn world(&self) -> World {
        let world = World::new().await;
        world.put_feature("tokens", json!({"kind": "metered", "meter": "tokens"}));
        world.put_plan("pro", json!([self.entitlement(&self.limits)]));
        world.put_plan("top", json!([self.entitlement(&self.above)]));
        world.put_customer("org", json!({}));
        world.put_customer("acme", json!({"parent": "org"}));
        if !self.above.is_empty() {
            world.subscribe("org", "top", &[]);
        }
        if !self.only_grants {
            world.subscribe("acme", "pro", &[]);
        }
        if let Some(before) = self.before.as_ref().filter(|_| !self.only_grants) {
            world.put_plan("other", json!([self.entitlement(before)]));
            let from = self.step(-2);
            world.directory.edit_subscription("acme", |s| {
                let mut phase = s.first.clone();
                phase.from = from;
                "other".clone_into(&mut s.first.plan);
                s.later.push(phase);
            });
        }
        for (n, given) in self.grants.iter().enumerate() {
            self.put_grant(&world, n, given);
        }
        world.told(DirectoryChange::Customer(TENANT, "acme".to_owned()));
        for (steps, amount) in &self.used {
            world.log.tokens("acme", self.step(-steps), *amount);
        }
        world
    }

    fn put_grant(&self, world: &World, n: usize, given: &Given) {
        let recurrences = self.scale().recurrences;
        let grant = json!({
            "id": format!("g{n}"), "feature": "tokens", "amount": given.amount.to_string(), "priority": given.priority,
            "effective_at": "2026-01-03T00:00:00Z",
            "recurrence": given.recurrence.map(|at| recurrences[at % recurrences.len()]),
            "rollover_max": given.rollover.map(|most| most.to_string()),
            "expires_at": given.ends.map(|steps| self.step(steps).to_string()),
        });
        world.put_grant(if given.above { "org" } else { "acme" }, grant);
    }

    /// Whether the check is refused; if so, after how many seconds it may be asked again.
    async fn ask(&self, world: &World) -> Option<Option<i64>> {
        let body = json!({"customer": "acme", "feature": "tokens", "amount": self.amount.to_string()});
        let path = "/v1/quota/check?status=strict";
        let (status, answer, headers) = world.call("POST", path, Some(body)).await;
        if status.as_u16() == 200 {
            return None;
        }
        let seconds: i64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
        Some((answer["retryable"] == true).then_some(seconds))
    }

    /// What is told at first, and the first step at which the engine grants the same; `None` where it does at once.
    async fn told_and_true(&self) -> Option<(Option<i64>, Option<i64>)> {
        let world = self.world().await;
        let told = self.ask(&world).await?;
        for step in 1..=self.scale().steps {
            world.clock.pass_s(self.seconds(step) - self.seconds(step - 1));
            if self.ask(&world).await.is_none() {
                return Some((told, Some(self.seconds(step))));
            }
        }
        Some((told, None))
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_refusal_names_the_first_instant_at_which_it_would_be_granted(case in case()) {
        if let Some((told, granted)) = run(case.told_and_true()) {
            let looked_at = case.seconds(case.scale().steps);
            prop_assert_eq!(told.filter(|seconds| *seconds <= looked_at), granted);
        }
    }
}

fn grant(amount: u32, recurrence: Option<usize>, rollover: Option<u32>, ends: Option<i64>) -> Given {
    Given {
        above: false,
        amount,
        recurrence,
        rollover,
        priority: 0,
        ends,
    }
}

/// A case of the first scale: limits of ten a month, what was used one step before now, and what is asked for.
fn of_ten_a_month(grants: Vec<Given>, used: i64, amount: u32) -> Case {
    Case {
        scale: 0,
        limits: vec![Limit {
            limit: 10,
            period: 2,
            soft: false,
        }],
        above: Vec::new(),
        before: None,
        only_grants: false,
        grants,
        used: vec![(1, used)],
        amount,
    }
}

#[test]
fn what_rolls_over_is_waited_for_till_it_is_there() {
    // A month gives five, and keeps up to a hundred of them; much more was used than there was.
    let monthly = |ends| vec![grant(5, Some(2), Some(100), ends)];
    let daily = |rollover| vec![grant(3, Some(0), Some(rollover), None)];
    let reset_s = 21 * DAY_S + DAY_S / 2;
    for (grants, used, amount, waited) in [
        (monthly(None), 100, 15, Some(reset_s)),
        (monthly(None), 100, 16, Some(reset_s + 28 * DAY_S)),
        (monthly(Some(40)), 100, 16, None),
        // Three each day: yesterday all 21 and the ten of the month were used, so there are three, and nine the day after tomorrow.
        (daily(30), 31, 7, Some(DAY_S + DAY_S / 2)),
        // Behind the end of the month, where they are needed beside its ten: three are there now, and each day has three more.
        (daily(90), 100, 90, Some(25 * DAY_S + DAY_S / 2)),
        (daily(90), 100, 104, None),
    ] {
        let case = of_ten_a_month(grants, used, amount);
        let found = run(case.told_and_true()).unwrap();
        assert_eq!(found, (waited, waited), "{case:?}");
    }
}
