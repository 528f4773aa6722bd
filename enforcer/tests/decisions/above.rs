//! Grants of those that use the entitlement of a customer above, when that changes or ends.

use proptest::prelude::*;
use serde_json::json;
use turnpike_domain::port::directory::DirectoryChange;
use turnpike_domain::time::Clock as _;

use crate::grants::balances_of;
use crate::support::{TENANT, World, at};

/// `acme` has the plan, and `team` below it a grant of five.
async fn team_with_five(period: &str, limit: Option<&str>) -> World {
    let world = World::new().await;
    let limits = json!([{"limit": limit.unwrap_or("1"), "period": period}]);
    world.metered(limits.clone());
    if limit.is_none() {
        world.put_plan("without", json!([]));
        world.subscribe("acme", "without", &[]);
    }
    world.put_customer("team", json!({"parent": "acme"}));
    let grant =
        json!({"id": "g", "feature": "tokens", "amount": "5", "effective_at": "2026-01-03T00:00:00Z"});
    world.put_grant("team", grant);
    world.clock.set("2026-01-10T12:00:20Z");
    world
}

fn cancel(world: &World, time: &str) {
    world
        .directory
        .edit_subscription("acme", |s| s.ends_at = Some(at(time)));
    world.told(DirectoryChange::Customer(TENANT, "acme".to_owned()));
}

fn month(limit: &str) -> serde_json::Value {
    json!({"feature": "tokens", "limits": [{"limit": limit, "period": "month"}]})
}

#[tokio::test]
async fn a_grant_is_not_given_again_when_the_entitlement_above_ends() {
    for (limit, period, used) in [
        (None, "month", "5"),
        (Some("10"), "month", "15"),
        (Some("10"), "billing", "15"),
        (Some("10"), "day", "15"),
    ] {
        let world = team_with_five(period, limit).await;
        assert_eq!(world.consume("a", "team", used).await["allowed"], true);
        assert_eq!(world.consume("b", "team", "1").await["allowed"], false);
        world.clock.set("2026-01-10T13:00:00Z");
        cancel(&world, "2026-01-10T13:00:00Z");
        for time in ["2026-01-10T13:00:00Z", "2026-01-10T13:10:00Z"] {
            world.clock.set(time);
            assert_eq!(balances_of(&world, "team").await, ["0"], "{limit:?} {period}");
        }
        let answer = world.consume("c", "team", "1").await;
        assert_eq!(answer["reason"], "limit_reached", "{limit:?} {period}");
        let world = world.restart().await;
        assert_eq!(world.consume("c", "team", "1").await["allowed"], false);
    }
}

#[tokio::test]
async fn a_grant_is_not_given_again_when_an_override_above_is_taken_away() {
    let world = team_with_five("month", None).await;
    cancel(&world, "2026-01-09T00:00:00Z");
    assert_eq!(world.consume("a", "team", "2").await["allowed"], true);
    world.clock.set("2026-01-10T12:10:00Z");
    world.put_override("acme", month("10"));
    world.clock.set("2026-01-10T12:20:00Z");
    assert_eq!(world.consume("b", "team", "9").await["allowed"], true);
    world.clock.set("2026-01-10T12:30:00Z");
    world.remove_override("acme", "tokens");
    world.clock.set("2026-01-10T12:40:00Z");
    // Two before the override, and of its ten eight were left: one more.
    assert_eq!(balances_of(&world, "team").await, ["2"]);
    assert_eq!(world.consume("c", "team", "3").await["allowed"], false);
    assert_eq!(world.consume("d", "team", "2").await["allowed"], true);
    assert_eq!(world.consume("e", "team", "1").await["allowed"], false);
}

#[tokio::test]
async fn what_was_covered_in_the_minute_of_an_own_entitlement_draws_nothing() {
    for own in ["subscription", "override"] {
        let world = team_with_five("month", Some("100")).await;
        assert_eq!(world.consume("a", "team", "50").await["allowed"], true);
        if own == "override" {
            world.put_override("team", month("10"));
        } else {
            world.put_plan("small", json!([month("10")]));
            world.subscribe("team", "small", &[]);
            let start = |s: &mut turnpike_domain::catalog::Subscription| s.start = at("2026-01-10T12:00:00Z");
            world.directory.edit_subscription("team", start);
            world.told(DirectoryChange::Customer(TENANT, "team".to_owned()));
        }
        assert_eq!(balances_of(&world, "team").await, ["5"], "{own}");
        world.clock.set("2026-01-11T12:00:00Z");
        assert_eq!(balances_of(&world, "team").await, ["5"], "{own}");
        assert_eq!(world.figures("team").await[2], "5", "{own}");
    }
}

#[tokio::test]
async fn the_minute_of_an_end_counts_for_billing_periods_as_for_months() {
    for period in ["month", "billing"] {
        let world = team_with_five(period, Some("100")).await;
        assert_eq!(world.consume("a", "team", "103").await["allowed"], true);
        cancel(&world, "2026-01-10T12:00:00Z");
        assert_eq!(balances_of(&world, "team").await, ["2"], "{period}");
        assert_eq!(world.figures("team").await[2], "2", "what is left fits: {period}");
        assert_eq!(world.consume("b", "team", "3").await["allowed"], false);
        assert_eq!(world.consume("c", "team", "2").await["allowed"], true, "{period}");
        world.clock.set("2026-01-10T12:01:00Z");
        assert_eq!(balances_of(&world, "team").await, ["0"], "{period}");
    }
}

#[tokio::test]
async fn a_smaller_limit_counts_at_once_and_refuses_nothing_that_a_grant_holds() {
    for (used, left) in [("8", "5"), ("12", "3"), ("15", "0")] {
        let world = team_with_five("month", Some("10")).await;
        assert_eq!(world.consume("a", "team", used).await["allowed"], true);
        world.put_override("acme", month("1"));
        assert_eq!(balances_of(&world, "team").await, [left]);
        assert_eq!(world.figures("team").await[2], left, "{used}");
        world.clock.set("2026-01-10T12:01:00Z");
        assert_eq!(world.figures("team").await[2], left, "{used}");
    }
}

#[tokio::test]
async fn what_a_grant_gave_is_not_given_again_for_a_feature_taken_away_in_its_minute() {
    let world = team_with_five("month", Some("10")).await;
    assert_eq!(world.consume("a", "team", "15").await["allowed"], true);
    world.put_override("acme", json!({"feature": "tokens", "revoked": true}));
    world.clock.set("2026-01-10T12:10:00Z");
    world.remove_override("acme", "tokens");
    assert_eq!(balances_of(&world, "team").await, ["0"]);
    world.clock.set("2026-01-10T12:20:00Z");
    assert_eq!(world.consume("b", "team", "1").await["allowed"], false);
}

#[tokio::test]
async fn moves_on_every_level_are_followed_once_each() {
    const LEVELS: usize = 8;
    const MOVES: usize = 12;
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "month"}]));
    let key = |side: usize, level: usize| format!("{}{level}", ["a", "b"][side % 2]);
    for level in (0..LEVELS).rev() {
        world.put_customer(&key(0, level), json!({}));
        world.put_customer(&key(1, level), json!({}));
    }
    for n in 0..MOVES {
        for level in 1..LEVELS {
            for side in 0..2 {
                world.move_customer(&key(side, level - 1), Some(&key(n, level)));
            }
        }
        world.clock.pass_s(60);
    }
    world.put_grant("a0", json!({"id": "g", "feature": "tokens", "amount": "5"}));
    let before = world.directory.lookups();
    assert_eq!(world.check("a0", "tokens", "5").await["allowed"], true);
    // Without regard to time there would be twelve times as many on each level: 12⁷.
    let lookups = world.directory.lookups() - before;
    assert!(lookups < 10 * LEVELS * MOVES, "{lookups}");
}

#[tokio::test]
async fn a_grant_drawn_beside_siblings_is_gone_wherever_its_customer_goes() {
    let world = team_with_five("month", Some("10")).await;
    world.put_customer("peer", json!({"parent": "acme"}));
    world.put_customer("beta", json!({}));
    world.subscribe("beta", "pro", &[]);
    assert_eq!(world.consume("a", "peer", "10").await["allowed"], true);
    assert_eq!(world.consume("b", "team", "3").await["allowed"], true);
    world.clock.set("2026-01-10T12:05:00Z");
    world.put_override("team", month("0"));
    world.clock.set("2026-01-10T12:10:00Z");
    assert_eq!(
        balances_of(&world, "team").await,
        ["2"],
        "with nothing of its own"
    );
    world.remove_override("team", "tokens");
    world.move_customer("team", Some("beta"));
    world.clock.set("2026-01-10T12:15:00Z");
    let world = world.restart().await;
    assert_eq!(balances_of(&world, "team").await, ["2"], "under another parent");
    // All ten of the other parent, and what is left.
    assert_eq!(world.consume("c", "team", "13").await["allowed"], false);
    assert_eq!(world.consume("d", "team", "12").await["allowed"], true);
    world.clock.set("2026-01-10T12:20:00Z");
    world.move_customer("team", Some("acme"));
    world.clock.set("2026-02-02T00:00:00Z");
    assert_eq!(
        balances_of(&world, "team").await,
        ["0"],
        "and back, in another window"
    );
    assert_eq!(world.consume("e", "peer", "11").await["allowed"], false);
}

#[tokio::test]
async fn what_a_grant_covered_stays_covered_when_it_goes_away() {
    for goes in ["stays", "is taken back", "moves", "has its own"] {
        let world = World::new().await;
        let limits = json!([{"limit": "10", "period": "month", "mode": "soft", "grace_percent": "50"}]);
        world.metered(limits);
        world.put_customer("team", json!({"parent": "acme"}));
        world.put_customer("beta", json!({}));
        let grant =
            json!({"id": "g", "feature": "tokens", "amount": "5", "effective_at": "2026-01-03T00:00:00Z"});
        world.put_grant("team", grant);
        assert_eq!(world.consume("a", "acme", "13").await["allowed"], true);
        world.clock.pass_s(120);
        match goes {
            "is taken back" => world.remove_grant("team", "g"),
            "moves" => world.move_customer("team", Some("beta")),
            "has its own" => world.put_override("team", month("1")),
            _ => {}
        }
        // Three of the grant were drawn, and ten of the plan: there is its grace, and what is left of the grant.
        let left = if goes == "stays" { 2 } else { 0 };
        for minutes in [0, 1, 60] {
            world.clock.pass_s(minutes * 60);
            let answer = world.check("acme", "tokens", &(5 + left).to_string()).await;
            let told = (&answer["allowed"], &answer["limit"], &answer["overage"]);
            let limit = (13 + left).to_string();
            assert_eq!(told, (&json!(true), &json!(limit), &json!("0")), "{goes}");
            let more = world.check("acme", "tokens", &(6 + left).to_string()).await;
            assert_eq!(more["allowed"], false, "{goes}");
        }
        let world = world.restart().await;
        assert_eq!(
            world.figures("acme").await,
            ["13", "0", &left.to_string()],
            "{goes}"
        );
        world.clock.set("2026-02-01T00:00:00Z");
        let answer = world.check("acme", "tokens", "0").await;
        assert_eq!(answer["limit"], (10 + left).to_string(), "{goes}");
    }
}

/// One below the other; only the last uses anything.
const CHAIN: [&str; 3] = ["acme", "unit", "team"];

#[derive(Debug, Clone)]
enum Step {
    Consume(i64),
    Grant(i64),
    /// An override of the month at a level, or none.
    Override(usize, Option<i64>),
    /// What the first has a plan for ends.
    Cancel,
    Pass(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1i64..12).prop_map(Step::Consume),
        2 => (1i64..8).prop_map(Step::Grant),
        4 => (0..CHAIN.len(), prop::option::of(0i64..20)).prop_map(|(level, limit)| Step::Override(level, limit)),
        1 => Just(Step::Cancel),
        5 => (1i64..200).prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

/// Whatever is set, taken away and ended above or below: beyond the greatest limit that ever stood there is what was
/// granted, once.
async fn grants_give_no_more_than_they_have(
    period: &str,
    plan: i64,
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let mut world = World::new().await;
    world.metered(json!([{"limit": plan.to_string(), "period": period}]));
    for pair in CHAIN.windows(2) {
        world.put_customer(pair[1], json!({"parent": pair[0]}));
    }
    let (mut used, mut granted, mut greatest, mut ended) = (0, 0, plan, false);
    for (n, step) in steps.into_iter().enumerate() {
        match step {
            Step::Consume(amount) => {
                let answer = world.consume(&format!("c{n}"), "team", &amount.to_string()).await;
                used += if answer["allowed"] == true { amount } else { 0 };
            }
            Step::Grant(amount) => {
                let grant = json!({"id": format!("g{n}"), "feature": "tokens", "amount": amount.to_string(), "effective_at": "2026-01-01T00:00:00Z"});
                world.put_grant("team", grant);
                granted += amount;
            }
            Step::Override(level, Some(limit)) => {
                world.put_override(CHAIN[level], month(&limit.to_string()));
                greatest = greatest.max(limit);
            }
            Step::Override(level, None) => world.remove_override(CHAIN[level], "tokens"),
            Step::Cancel if !ended => {
                let now = world.clock.machine_now().floor_minute();
                cancel(&world, &now.to_string());
                ended = true;
            }
            Step::Cancel => {}
            Step::Pass(seconds) => world.clock.pass_s(seconds),
            Step::Restart => world = world.restart().await,
        }
        prop_assert!(
            used <= greatest + granted,
            "step {}: {} of {} and {}",
            n,
            used,
            greatest,
            granted
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn no_change_gives_a_grant_again(
        period in prop::sample::select(vec!["month", "billing", "ever"]),
        plan in 0i64..20,
        steps in prop::collection::vec(step(), 1..50),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(grants_give_no_more_than_they_have(period, plan, steps))?;
    }
}
