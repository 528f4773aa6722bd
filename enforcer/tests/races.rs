//! R10 in process: many callers race limits while calls answer late and fail. What is granted is exactly what was there.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};
use support::{Faults, World, at};
use turnpike_domain::time::Clock as _;

/// Every caller tries ids of its own, each until it is answered; the ids that were granted.
async fn race(world: &Arc<World>, customers: &[&'static str], callers: usize, tries: usize) -> Vec<String> {
    let mut running = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let (world, customer) = (world.clone(), customers[caller % customers.len()]);
        running.spawn(async move {
            let mut granted = Vec::new();
            for number in 0..tries {
                let id = format!("{caller}-{number}");
                let body = json!({"id": id, "customer": customer, "feature": "tokens", "amount": "1"});
                loop {
                    let (status, answer) = world.post("/v1/quota/consume", body.clone()).await;
                    if status == 503 {
                        continue;
                    }
                    assert_eq!(status, 200, "{answer}");
                    if answer["allowed"] == true {
                        granted.push(id);
                    }
                    break;
                }
            }
            granted
        });
    }
    let mut granted = Vec::new();
    while let Some(ids) = running.join_next().await {
        granted.extend(ids.unwrap());
    }
    granted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_callers_are_granted_exactly_the_limit() {
    let faults = Faults {
        seed: 1,
        delay_us_max: 300,
        fail_before: 17,
        fail_after: 19,
    };
    let world = Arc::new(World::with_faults(faults).await);
    world.metered(json!([{"limit": "400", "period": "month"}, {"limit": "100000", "period": "hour"}]));
    let granted = race(&world, &["acme"], 64, 10).await;
    let failed = world.log.failed.load(std::sync::atomic::Ordering::SeqCst);
    assert!(failed > 0, "no fault was injected");
    println!("injected {failed} faults");
    assert_eq!(granted.len(), 400);
    assert_eq!(granted.iter().collect::<HashSet<_>>().len(), 400);
    assert_eq!(world.log.total("tokens", &["acme"]).to_string(), "400");
    assert_eq!(world.figures("acme").await, ["400", "0", "0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_level_is_exceeded_and_nothing_is_left_behind() {
    let faults = Faults {
        seed: 2,
        delay_us_max: 200,
        fail_before: 23,
        fail_after: 29,
    };
    let world = Arc::new(World::with_faults(faults).await);
    world.put_feature("tokens", json!({"kind": "metered", "meter": "tokens"}));
    let limit = |limit: &str, period: &str| json!([{"feature": "tokens", "limits": [{"limit": limit, "period": period}, {"limit": "90", "period": "day"}]}]);
    world.put_plan(
        "org",
        json!([{"feature": "tokens", "limits": [{"limit": "200", "period": "month"}]}]),
    );
    world.put_plan("user", limit("120", "month"));
    world.put_customer("org", json!({}));
    world.subscribe("org", "org", &[]);
    for key in ["a", "b", "c"] {
        world.put_customer(key, json!({"parent": "org"}));
        world.subscribe(key, "user", &[]);
    }
    let granted = race(&world, &["a", "b", "c"], 63, 10).await;
    assert_eq!(
        granted.len(),
        200,
        "three could have 270, their parent allows 200"
    );
    for key in ["a", "b", "c"] {
        let total = world.log.total("tokens", &[key]);
        assert!(total <= 90u32.into(), "{key} got {total}");
    }
    assert_eq!(world.figures("org").await, ["200", "0", "0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_of_one_id_take_once() {
    let faults = Faults {
        seed: 3,
        delay_us_max: 500,
        fail_before: 11,
        fail_after: 13,
    };
    let world = Arc::new(World::with_faults(faults).await);
    world.metered(json!([{"limit": "30", "period": "month"}]));
    let mut running = tokio::task::JoinSet::new();
    for call in 0..300 {
        let world = world.clone();
        running.spawn(async move {
            let body = json!({"id": format!("id-{}", call % 30), "customer": "acme", "feature": "tokens", "amount": "1"});
            loop {
                let (status, answer) = world.post("/v1/quota/consume", body.clone()).await;
                if status != 503 {
                    // The limit has room for every id once, so no repeat may be refused.
                    assert_eq!((status.as_u16(), &answer["allowed"]), (200, &Value::Bool(true)), "{answer}");
                    break;
                }
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    assert_eq!(world.log.granted().len(), 30);
    assert_eq!(world.figures("acme").await, ["30", "0", "0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_that_hang_up_leave_nothing_taken() {
    let world = Arc::new(
        World::with_faults(Faults {
            seed: 4,
            delay_us_max: 2_000,
            ..Faults::default()
        })
        .await,
    );
    world.metered(json!([{"limit": "50", "period": "month"}]));
    let mut running = Vec::new();
    for call in 0..40 {
        let world = world.clone();
        running.push(tokio::spawn(async move {
            if call % 2 == 0 {
                world.consume(&format!("c{call}"), "acme", "1").await;
            } else {
                world.reserve(&format!("r{call}"), "acme", "1", 600).await;
            }
        }));
    }
    for (at, call) in running.iter().enumerate() {
        tokio::time::sleep(std::time::Duration::from_micros(150 * (at as u64 % 7))).await;
        call.abort();
    }
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let used = world.log.total("tokens", &["acme"]).to_string();
    let reserved = turnpike_domain::port::usage::UsageReader::open_reservations(&*world.log)
        .await
        .unwrap()
        .len();
    let [shown_used, shown_reserved, _] = world.figures("acme").await;
    assert_eq!((shown_used, shown_reserved), (used, reserved.to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slots_made_while_events_stream_in_miss_none_and_count_none_twice() {
    for seed in 0..30 {
        let faults = Faults {
            seed,
            delay_us_max: 400,
            ..Faults::default()
        };
        let world = Arc::new(World::with_faults(faults).await);
        world.metered(
            json!([{"limit": "1000000", "period": "month"}, {"limit": "1000000", "period": "minute"}]),
        );
        let sender = {
            let world = world.clone();
            tokio::spawn(async move {
                for number in 0..200 {
                    let ahead_s = i64::from(number % 240);
                    let time = at("2026-01-10T12:00:00Z").plus_micros(ahead_s * 1_000_000);
                    world.log.tokens("acme", time, 1);
                    if number % 10 == 0 {
                        tokio::time::sleep(std::time::Duration::from_micros(200)).await;
                    }
                }
            })
        };
        let (mut takers, consumed) = (tokio::task::JoinSet::new(), 40);
        for number in 0..consumed {
            let world = world.clone();
            takers.spawn(async move {
                if number % 8 == 0 {
                    // What is compiled goes out of date: slots and holds must survive it.
                    world.put_customer("acme", json!({"subjects": ["acme", format!("s{number}")]}));
                }
                world.consume(&format!("{number}"), "acme", "1").await
            });
        }
        while let Some(taken) = takers.join_next().await {
            assert_eq!(taken.unwrap()["allowed"], true);
        }
        sender.await.unwrap();
        assert_eq!(
            world.figures("acme").await[0],
            (200 + consumed).to_string(),
            "seed {seed}"
        );
        let minute =
            async |world: &World| world.check("acme", "tokens", "0").await["limits"][1]["used"].clone();
        assert_eq!(
            minute(&world).await,
            json!((60 + consumed).to_string()),
            "seed {seed}"
        );
        // The next minutes begin with what was sent ahead of time, without a gap.
        world.clock.pass_s(60);
        assert_eq!(minute(&world).await, json!("60"), "seed {seed}");
        world.clock.pass_s(120);
        assert_eq!(minute(&world).await, json!("20"), "seed {seed}");
    }
}

#[tokio::test]
async fn a_window_that_follows_on_another_needs_no_reading() {
    let world = World::new().await;
    world.metered(json!([{"limit": "5", "period": "second"}, {"limit": "100", "period": "minute"}]));
    world.consume("first", "acme", "1").await;
    let reads = world.log.reads.load(std::sync::atomic::Ordering::SeqCst);
    for second in 0..150 {
        world.clock.pass_s(1);
        if second % 60 == 59 {
            continue;
        }
        for number in 0..6 {
            let allowed = world.consume(&format!("{second}-{number}"), "acme", "1").await["allowed"] == true;
            let minute = world.check("acme", "tokens", "0").await["limits"][1]["used"].clone();
            assert!(!allowed || number < 5, "second {second}: {minute}");
        }
    }
    let more = world.log.reads.load(std::sync::atomic::Ordering::SeqCst) - reads;
    assert!(more <= 2, "{more} readings for windows that were known");
    assert_eq!(
        world.log.total("tokens", &["acme"]).to_string(),
        world.log.granted().len().to_string()
    );
}

#[tokio::test]
async fn a_second_is_read_exactly_after_a_restart_and_with_events_of_the_future() {
    let world = World::new().await;
    world.metered(json!([{"limit": "5", "period": "second"}, {"limit": "100", "period": "minute"}]));
    world.clock.set("2026-01-10T12:00:30.2Z");
    // Earlier and later in the same minute: neither is usage of this second.
    world.log.tokens("acme", at("2026-01-10T12:00:29.9Z"), 4);
    world.log.tokens("acme", at("2026-01-10T12:00:32.5Z"), 4);
    let figures = async |world: &World| {
        let answer = world.check("acme", "tokens", "0").await;
        (
            answer["limits"][0]["used"].clone(),
            answer["limits"][1]["used"].clone(),
        )
    };
    assert_eq!(figures(&world).await, (json!("0"), json!("8")));
    assert_eq!(world.consume("one", "acme", "5").await["allowed"], true);
    let world = world.restart().await;
    assert_eq!(figures(&world).await, (json!("5"), json!("13")));
    assert_eq!(world.consume("two", "acme", "1").await["allowed"], false);
    for (time, used) in [("31", "0"), ("32", "4"), ("33", "0")] {
        world.clock.set(&format!("2026-01-10T12:00:{time}.7Z"));
        assert_eq!(figures(&world).await, (json!(used), json!("13")), "second {time}");
    }
}

/// A refusal looks at what else could be had, over the meter that the feature had when it came. It takes nothing from who
/// decides over the meter that the feature has since.
#[tokio::test]
async fn a_feature_that_gets_another_meter_under_a_refusal_goes_on_being_counted() {
    let mut overtaken = 0;
    for seed in 0..60 {
        let faults = Faults {
            seed,
            delay_us_max: 3_000,
            ..Faults::default()
        };
        let world = Arc::new(World::with_faults(faults).await);
        world.put_meter("other", "sum", Some("$.n"));
        world.metered(json!([{"limit": "100", "period": "day"}]));
        for period in ["hour", "week", "month", "ever"] {
            let limits = json!([{"limit": "1000", "period": period}]);
            world.put_plan(period, json!([{"feature": "tokens", "limits": limits}]));
        }
        let refused = {
            let world = world.clone();
            tokio::spawn(async move { world.check("acme", "tokens", "500").await })
        };
        tokio::time::sleep(std::time::Duration::from_micros(seed * 100)).await;
        overtaken += usize::from(!refused.is_finished());
        world.put_feature("tokens", json!({"kind": "metered", "meter": "other"}));
        assert_eq!(world.figures("acme").await, ["0", "0", "100"]);
        assert_eq!(refused.await.unwrap()["allowed"], false);
        let now = world.clock.machine_now();
        world.log.plain("other.used", "acme", now, r#"{"n":5}"#, 1);
        assert_eq!(world.figures("acme").await, ["5", "0", "95"], "seed {seed}");
        world.log.plain("tokens.used", "acme", now, r#"{"n":7}"#, 1);
        world.put_feature("tokens", json!({"kind": "metered", "meter": "tokens"}));
        assert_eq!(world.figures("acme").await, ["7", "0", "93"], "seed {seed}");
    }
    assert!(overtaken > 10, "vacuous: {overtaken}");
}
