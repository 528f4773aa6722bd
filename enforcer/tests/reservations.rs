//! Reservations: hold, commit, release, expire, and survive a restart.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use serde_json::json;
use support::{Faults, TENANT, World, at};
use turnpike_domain::port::control::DueWork as _;
use turnpike_domain::port::intake::{Correction, Intake as _};

async fn world() -> World {
    let world = World::new().await;
    world.metered(json!([{"limit": "100", "period": "month"}]));
    world
}

#[tokio::test]
async fn a_reservation_holds_until_it_is_committed_or_released() {
    let world = world().await;
    let answer = world.reserve("r", "acme", "40", 60).await;
    assert_eq!(
        answer["reservation"],
        json!({"id": "r", "status": "open", "expires_at": "2026-01-10T12:01:00Z"})
    );
    assert_eq!(world.figures("acme").await, ["0", "40", "60"]);
    assert_eq!(world.consume("x", "acme", "61").await["allowed"], false);
    let (status, less) = world.commit("r", json!({"amount": "30"})).await;
    assert_eq!(
        (status.as_u16(), &less["reservation"]["status"]),
        (200, &json!("committed"))
    );
    assert_eq!(world.figures("acme").await, ["30", "0", "70"]);
    world.reserve("s", "acme", "70", 60).await;
    assert_eq!(world.release("s").await.1["reservation"]["status"], "released");
    assert_eq!(world.release("s").await.0, 200, "a repeat is fine");
    assert_eq!(world.figures("acme").await, ["30", "0", "70"]);
    assert_eq!(world.commit("s", json!({})).await.1["code"], "reservation_closed");
    assert_eq!(
        world.log.granted(),
        [("r".to_owned(), r#"{"n":"30"}"#.to_owned())]
    );
}

#[tokio::test]
async fn those_that_are_open_are_listed() {
    let world = world().await;
    world.put_customer("lab", json!({}));
    world.subscribe("lab", "pro", &[]);
    for (id, customer, ttl_s) in [
        ("a", "acme", 90),
        ("b", "acme", 60),
        ("c", "lab", 120),
        ("d", "acme", 30),
        ("e", "acme", 60),
    ] {
        world.reserve(id, customer, "1", ttl_s).await;
    }
    world.commit("e", json!({})).await;
    let list = async |query: &str| {
        let path = format!("/v1/quota/reservations{query}");
        let (status, page, _) = world.call("GET", &path, None).await;
        assert_eq!(status, 200, "{page}");
        let rows = page["data"].as_array().unwrap().clone();
        let ids: Vec<String> = rows
            .iter()
            .map(|row| row["id"].as_str().unwrap().to_owned())
            .collect();
        (ids, rows, page["next_cursor"].clone())
    };
    let (ids, rows, next) = list("").await;
    assert_eq!(
        (ids, next),
        (["d", "b", "a", "c"].map(str::to_owned).to_vec(), json!(null))
    );
    assert_eq!(
        rows[1],
        json!({"id": "b", "customer": "acme", "feature": "tokens", "amount": "1", "properties": {},
            "made_at": "2026-01-10T12:00:00Z", "expires_at": "2026-01-10T12:01:00Z"})
    );
    assert_eq!(list("?customer=lab").await.0, ["c"]);
    assert_eq!(list("?feature=none").await.0, [""; 0]);
    let (first, _, next) = list("?customer=acme&limit=2").await;
    let next = next.as_str().unwrap().to_owned();
    assert_eq!(first, ["d", "b"]);
    assert_eq!(
        list(&format!("?customer=acme&limit=2&cursor={next}")).await.0,
        ["a"]
    );
    world.clock.set("2026-01-10T12:01:00Z");
    assert_eq!(list("").await.0, ["a", "c"], "what has ended holds nothing");
}

#[tokio::test]
async fn a_commit_of_more_takes_the_rest_within_the_limit() {
    let world = world().await;
    world.reserve("r", "acme", "40", 60).await;
    world.consume("x", "acme", "50").await;
    let (_, refused) = world.commit("r", json!({"amount": "51"})).await;
    assert_eq!(
        (&refused["allowed"], &refused["reason"]),
        (&json!(false), &json!("limit_reached"))
    );
    assert_eq!(world.figures("acme").await, ["50", "40", "10"], "it still stands");
    let (_, granted) = world.commit("r", json!({"amount": "50"})).await;
    assert_eq!(granted["allowed"], true);
    assert_eq!(world.figures("acme").await, ["100", "0", "0"]);
}

#[tokio::test]
async fn repeats_answer_as_first_and_others_conflict() {
    let world = world().await;
    world.reserve("r", "acme", "40", 60).await;
    assert_eq!(world.reserve("r", "acme", "40", 60).await["allowed"], true);
    assert_eq!(world.figures("acme").await, ["0", "40", "60"]);
    let other = json!({"id": "r", "customer": "acme", "feature": "tokens", "amount": "41", "ttl_s": 60});
    assert_eq!(world.post("/v1/quota/reservations", other).await.0, 409);
    let consume = json!({"id": "r", "customer": "acme", "feature": "tokens", "amount": "40"});
    assert_eq!(world.post("/v1/quota/consume", consume.clone()).await.0, 409);
    world.commit("r", json!({"amount": "10"})).await;
    assert_eq!(
        world.commit("r", json!({"amount": "10"})).await.1["allowed"],
        true
    );
    let again = world.commit("r", json!({"amount": "10"})).await.1;
    assert_eq!(again["reservation"]["status"], "committed");
    assert_eq!(world.commit("r", json!({"amount": "11"})).await.0, 409);
    assert_eq!(
        world.commit("r", json!({})).await.0,
        409,
        "that asks for all that was reserved"
    );
    assert_eq!(world.post("/v1/quota/consume", consume).await.0, 409);
    let again = json!({"id": "r", "customer": "acme", "feature": "tokens", "amount": "40", "ttl_s": 60});
    assert_eq!(
        world.post("/v1/quota/reservations", again).await.1["code"],
        "reservation_closed"
    );
    assert_eq!(world.release("r").await.0, 409);
    assert_eq!(world.log.granted().len(), 1);
    world.consume("c", "acme", "1").await;
    assert_eq!(
        world.commit("c", json!({"amount": "1"})).await.0,
        409,
        "a consume is no reservation"
    );
    assert_eq!(world.figures("acme").await, ["11", "0", "89"]);
}

#[tokio::test]
async fn what_is_not_committed_in_time_comes_back_durably() {
    let world = world().await;
    world.reserve("r", "acme", "40", 60).await;
    world.reserve("s", "acme", "20", 120).await;
    assert_eq!(
        world
            .enforcer
            .next_due(TENANT, at("2026-01-10T12:00:00Z"))
            .await
            .unwrap(),
        Some(at("2026-01-10T12:01:00Z"))
    );
    world.clock.pass_s(59);
    world.enforcer.tick().await.unwrap();
    assert_eq!(world.figures("acme").await, ["0", "60", "40"]);
    world.clock.pass_s(1);
    world.enforcer.tick().await.unwrap();
    assert_eq!(world.figures("acme").await, ["0", "20", "80"]);
    assert_eq!(
        world
            .enforcer
            .next_due(TENANT, at("2026-01-10T12:01:00Z"))
            .await
            .unwrap(),
        Some(at("2026-01-10T12:02:00Z"))
    );
    let world = world.restart().await;
    assert_eq!(world.figures("acme").await, ["0", "20", "80"]);
    assert_eq!(world.release("r").await.1["reservation"]["status"], "expired");
    // A commit after the end is decided anew, and counts from then on.
    let (_, late) = world.commit("r", json!({})).await;
    assert_eq!(late["allowed"], true);
    assert_eq!(world.figures("acme").await, ["40", "20", "40"]);
    // Due, but not yet expired by a tick: the same.
    world.consume("x", "acme", "35").await;
    world.clock.pass_s(60);
    let (_, refused) = world.commit("s", json!({"amount": "26"})).await;
    assert_eq!(
        (&refused["allowed"], &refused["reservation"]["status"]),
        (&json!(false), &json!("expired"))
    );
    assert_eq!(
        world.commit("s", json!({"amount": "25"})).await.1["allowed"],
        true
    );
    assert_eq!(world.figures("acme").await, ["100", "0", "0"]);
}

#[tokio::test]
async fn open_reservations_survive_a_restart_and_count_before_the_first_decision() {
    let world = world().await;
    world.reserve("kept", "acme", "40", 600).await;
    world.reserve("short", "acme", "30", 10).await;
    world.reserve("committed", "acme", "5", 600).await;
    world.commit("committed", json!({})).await;
    world.clock.pass_s(20);
    let world = world.restart().await;
    assert_eq!(world.figures("acme").await, ["5", "70", "25"]);
    world.enforcer.tick().await.unwrap();
    assert_eq!(world.figures("acme").await, ["5", "40", "55"]);
    assert_eq!(
        world.commit("kept", json!({"amount": "60"})).await.1["allowed"],
        true
    );
    assert_eq!(world.figures("acme").await, ["65", "0", "35"]);
    let world = world.restart().await;
    assert_eq!(world.figures("acme").await, ["65", "0", "35"]);
}

#[tokio::test]
async fn a_commit_counts_in_the_window_that_held_it() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "day"}]));
    world.clock.set("2026-01-10T23:59:30Z");
    world.reserve("r", "acme", "8", 120).await;
    world.clock.set("2026-01-11T00:00:30Z");
    assert_eq!(world.figures("acme").await, ["0", "0", "10"]);
    assert_eq!(
        world.commit("r", json!({"amount": "11"})).await.1["allowed"],
        false,
        "beyond the day that held it"
    );
    assert_eq!(world.commit("r", json!({"amount": "9"})).await.1["allowed"], true);
    assert_eq!(world.figures("acme").await, ["0", "0", "10"]);
    world.clock.set("2026-01-10T23:59:59Z");
    assert_eq!(world.figures("acme").await, ["9", "0", "1"]);
}

#[tokio::test]
async fn a_late_commit_of_more_keeps_to_the_second_that_held_it() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "second"}, {"limit": "1000", "period": "month"}]));
    world.reserve("r", "acme", "6", 3_600).await;
    world.reserve("s", "acme", "3", 3_600).await;
    world.clock.pass_s(5);
    world.consume("x", "acme", "9").await;
    // The seconds themselves are no longer kept by usage, but the slot is by what it holds.
    world.clock.pass_s(300);
    world.enforcer.tick().await.unwrap();
    assert_eq!(
        world.commit("r", json!({"amount": "8"})).await.1["allowed"],
        false
    );
    assert_eq!(world.commit("r", json!({"amount": "7"})).await.1["allowed"], true);
    // After a restart only the minute around it is known: more is refused, what was reserved is not.
    let world = world.restart().await;
    assert_eq!(
        world.commit("s", json!({"amount": "3.5"})).await.1["reason"],
        "limit_reached"
    );
    assert_eq!(world.commit("s", json!({"amount": "3"})).await.1["allowed"], true);
    assert_eq!(
        world.check("acme", "tokens", "0").await["limits"][1]["used"],
        "19"
    );
}

#[tokio::test]
async fn a_commit_of_more_can_be_retried_when_its_reservation_has_ended() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "minute"}]));
    world.clock.set("2026-01-10T12:00:20Z");
    world.consume("x", "acme", "2").await;
    world.reserve("r", "acme", "6", 600).await;
    world.clock.set("2026-01-10T12:05:00Z");
    let path = "/v1/quota/reservations/r/commit?status=strict";
    let strict = async |world: &World, amount: &str| {
        let body = json!({"amount": amount});
        let (status, answer, headers) = world.call("POST", path, Some(body)).await;
        let retry = headers["retry-after"].to_str().unwrap().to_owned();
        (
            status.as_u16(),
            answer["retryable"].clone(),
            retry,
            answer["as_of"].clone(),
        )
    };
    let now = json!("2026-01-10T12:05:00Z");
    // The minute that holds it is over, and no other counts before the reservation's end.
    let until_end = (429, json!(true), "320".to_owned(), now.clone());
    assert_eq!(strict(&world, "9").await, until_end);
    let never = (429, json!(false), "3600".to_owned(), now);
    assert_eq!(strict(&world, "11").await, never, "no minute has so much");
    world.clock.set("2026-01-10T12:10:20Z");
    assert_eq!(world.commit("r", json!({"amount": "9"})).await.1["allowed"], true);
    // A window that outlasts the reservation: what it held is asked for again, and more.
    world.put_override(
        "acme",
        json!({"feature": "tokens", "limits": [{"limit": "20", "period": "hour"}]}),
    );
    world.reserve("r2", "acme", "5", 60).await;
    let body = Some(json!({"amount": "10"}));
    let (_, answer, headers) = world.call("POST", &path.replace("/r/", "/r2/"), body).await;
    assert_eq!(
        (&answer["used"], &headers["retry-after"]),
        (&json!("11"), &"2980".parse().unwrap())
    );
}

#[tokio::test]
async fn a_voided_commit_stays_a_commit() {
    let world = world().await;
    world.reserve("r", "acme", "4", 60).await;
    world.commit("r", json!({"amount": "8"})).await;
    let name = support::KEY.name(TENANT, turnpike_enforcer::QUOTA_SOURCE, "r");
    let voided = world
        .log
        .correct(name, Correction::Void, at("2026-01-10T12:00:00Z"));
    voided.await.unwrap().unwrap();
    assert_eq!(world.figures("acme").await, ["0", "0", "100"]);
    let other = world.commit("r", json!({})).await;
    assert_eq!(
        (other.0.as_u16(), &other.1["code"]),
        (409, &json!("event_conflict"))
    );
    let again = world.commit("r", json!({"amount": "8"})).await;
    let told = (again.0.as_u16(), &again.1["reservation"]["status"]);
    assert_eq!(told, (200, &json!("committed")));
    assert_eq!(world.release("r").await.1["code"], "reservation_closed");
    let body = json!({"id": "r", "customer": "acme", "feature": "tokens", "amount": "4", "ttl_s": 60});
    let reserved = world.post("/v1/quota/reservations", body).await;
    assert_eq!(reserved.1["code"], "reservation_closed");
    assert_eq!(world.figures("acme").await, ["0", "0", "100"]);
}

#[tokio::test]
async fn a_commit_of_less_is_named_by_what_it_takes() {
    for (mode, beyond) in [("overage", "overage"), ("soft", "within_grace")] {
        let world = World::new().await;
        world.metered(json!([{"limit": "5", "period": "day", "mode": mode, "grace_percent": 50}]));
        world.consume("x", "acme", "2.5").await;
        assert_eq!(world.reserve("r", "acme", "3", 60).await["reason"], beyond);
        let (_, less) = world.commit("r", json!({"amount": "2"})).await;
        let told = ["reason", "overage", "used"].map(|member| less[member].as_str().unwrap().to_owned());
        assert_eq!(told, ["within_limit", "0", "4.5"]);
        let again = world.commit("r", json!({"amount": "2"})).await.1;
        assert_eq!(again["reason"], "within_limit", "a repeat is answered as first");
        assert_eq!(world.reserve("s", "acme", "2.5", 60).await["reason"], beyond);
        assert_eq!(
            world.commit("s", json!({"amount": "1"})).await.1["reason"],
            beyond
        );
    }
}

#[tokio::test]
async fn holds_stay_counted_when_limits_are_compiled_anew() {
    let world = world().await;
    world.reserve("r", "acme", "40", 600).await;
    world.put_override("acme", json!({"feature": "tokens", "limits": [{"limit": "50", "period": "day"}, {"limit": "60", "period": "week"}]}));
    assert_eq!(world.figures("acme").await, ["0", "40", "10"]);
    world.put_customer("acme", json!({"subjects": ["acme", "second"]}));
    assert_eq!(world.figures("acme").await, ["0", "40", "10"]);
    world.commit("r", json!({"amount": "15"})).await;
    assert_eq!(world.figures("acme").await, ["15", "0", "35"]);
}

#[tokio::test]
async fn a_hold_stays_counted_when_its_customer_gets_other_subjects() {
    let world = world().await;
    world.reserve("r", "acme", "40", 600).await;
    world.put_customer("acme", json!({"subjects": ["other"]}));
    assert_eq!(world.figures("acme").await, ["0", "40", "60"]);
    assert_eq!(world.consume("x", "acme", "61").await["allowed"], false);
    assert_eq!(world.commit("r", json!({})).await.1["allowed"], true);
    assert_eq!(world.figures("acme").await, ["40", "0", "60"]);
}

#[tokio::test]
async fn reserved_amounts_draw_on_grants_across_windows() {
    let world = World::new().await;
    world.metered(json!([{"limit": "10", "period": "day"}]));
    world.put_grant(
        "acme",
        json!({"id": "g", "feature": "tokens", "amount": "5", "effective_at": "2026-01-10T00:00:00Z"}),
    );
    world.clock.set("2026-01-10T23:59:30Z");
    world.reserve("r", "acme", "13", 120).await;
    world.clock.set("2026-01-11T00:00:10Z");
    let limit = async |world: &World| world.check("acme", "tokens", "0").await["limit"].clone();
    assert_eq!(
        limit(&world).await,
        json!("12"),
        "three of the grant are held in yesterday's window"
    );
    world.release("r").await;
    assert_eq!(limit(&world).await, json!("15"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_or_doubled_under_faults() {
    let faults = Faults {
        seed: 9,
        delay_us_max: 300,
        fail_before: 7,
        fail_after: 11,
    };
    let world = std::sync::Arc::new(World::with_faults(faults).await);
    world.metered(json!([{"limit": "1000", "period": "month"}]));
    let mut running = tokio::task::JoinSet::new();
    for number in 0..60 {
        let world = world.clone();
        running.spawn(async move {
            let body = json!({"id": format!("{number}"), "customer": "acme", "feature": "tokens", "amount": "10", "ttl_s": 600});
            while world.post("/v1/quota/reservations", body.clone()).await.0 == 503 {}
            match number % 3 {
                0 => while world.commit(&format!("{number}"), json!({"amount": "7"})).await.0 == 503 {},
                1 => while world.release(&format!("{number}")).await.0 == 503 {},
                _ => {}
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    assert!(world.log.failed.load(std::sync::atomic::Ordering::SeqCst) > 0);
    assert_eq!(world.figures("acme").await, ["140", "200", "660"]);
    let world = std::sync::Arc::into_inner(world).unwrap().restart().await;
    assert_eq!(world.figures("acme").await, ["140", "200", "660"]);
}

#[tokio::test]
async fn what_was_held_for_a_customer_that_is_erased_is_committed_and_released() {
    for restarted in [false, true] {
        let mut world = world().await;
        world.put_customer("kid", json!({"parent": "acme"}));
        for (id, amount) in [("r", "40"), ("less", "10"), ("more", "5"), ("back", "3")] {
            world.reserve(id, "kid", amount, 60).await;
        }
        world.put_customer(
            "kid",
            json!({"parent": "acme", "erased_at": "2026-01-10T12:00:00Z"}),
        );
        if restarted {
            world = world.restart().await;
        }
        // What is beyond is decided anew, and for nobody: nothing is written.
        assert_eq!(world.commit("more", json!({"amount": "6"})).await.0, 404);
        assert_eq!(world.figures("acme").await, ["0", "58", "42"]);
        for (id, body) in [("r", json!({})), ("less", json!({"amount": "4"}))] {
            let (status, first) = world.commit(id, body.clone()).await;
            assert_eq!(status, 200, "{first}");
            assert_eq!(first["reservation"]["status"], "committed");
            assert_eq!((&first["allowed"], &first["limits"]), (&json!(true), &json!([])));
            assert_eq!(world.commit(id, body).await, (status, first), "a repeat");
        }
        for _ in 0..2 {
            let (status, answer) = world.release("back").await;
            assert_eq!((status.as_u16(), &answer["limits"]), (200, &json!([])));
            assert_eq!(answer["reservation"]["status"], "released");
        }
        assert_eq!(world.figures("acme").await, ["44", "5", "51"]);
    }
}
