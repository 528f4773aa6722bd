//! Each call of the client, as the real server answers it.

use std::time::Duration;

use turnpike_client::{Ask, Client, Error, Event, Quantity, Reason};

use crate::served;

fn quantity(text: &str) -> Quantity {
    text.parse().expect("a quantity")
}

fn ask(amount: &str) -> Ask {
    Ask::new("acme", "calls").amount(quantity(amount))
}

#[tokio::test]
async fn a_consume_counts_once_per_id() {
    let (app, _directory, client) = served().await;
    let free = client.check(&ask("0.25")).await.unwrap();
    assert!(free.allowed && free.reason == Reason::WithinLimit, "{free:?}");
    assert_eq!(free.remaining, Some(quantity("10")));
    assert!(free.rate_limit.standing.is_some() && free.rate_limit.policy.is_some());
    for _ in 0..2 {
        let taken = client
            .consume(&ask("0.25").id("one").property("n2", "7"))
            .await
            .unwrap();
        assert!(taken.allowed, "{taken:?}");
        assert_eq!(taken.used, Some(quantity("0.25")));
    }
    let other = client.consume(&ask("0.5").id("one")).await.unwrap_err();
    assert_eq!(other.code(), Some("event_conflict"), "{other}");
    assert!(!other.is_away());
    // Without an id of the caller's, two calls are two uses.
    for used in ["1.25", "2.25"] {
        let taken = client.consume(&ask("1")).await.unwrap();
        assert_eq!(taken.used, Some(quantity(used)));
    }
    let range = "from=2020-01-01T00:00:00Z&to=2040-01-01T00:00:00Z";
    assert_eq!(app.admin().total("calls", range).await, Some("2.25".to_owned()));
    let (_, events) = app.admin().get("/v1/events?id=one").await;
    assert_eq!(events["data"][0]["data"]["n2"], "7", "{events}");
}

#[tokio::test]
async fn a_refusal_is_an_answer() {
    let (_app, _directory, client) = served().await;
    let refused = client.consume(&ask("10.000000000001")).await.unwrap();
    assert!(!refused.allowed);
    assert_eq!(refused.reason, Reason::LimitReached);
    assert_eq!(refused.limits.len(), 2);
    assert_eq!(refused.retry_after, None, "no waiting heals what never resets");
    assert!(refused.rate_limit.standing.is_some());
    let lone = client.check(&Ask::new("lone", "calls")).await.unwrap();
    assert_eq!((lone.allowed, lone.reason), (false, Reason::NoSubscription));
    assert_eq!(lone.limit, None);
    let unknown = client.check(&Ask::new("nobody", "calls")).await.unwrap_err();
    assert_eq!(unknown.code(), Some("not_found"));
    let Error::Problem(problem) = client.consume(&ask("-1")).await.unwrap_err() else {
        panic!("a problem");
    };
    assert_eq!(problem.code, "invalid");
    assert_eq!(problem.errors[0].pointer, "/amount", "{problem:?}");
    assert!(problem.request_id.is_some());
}

#[tokio::test]
async fn a_reservation_is_committed_or_released() {
    let (_app, _directory, client) = served().await;
    let ttl = Duration::from_mins(5);
    let held = client.reserve(&ask("6").id("a/b c"), ttl).await.unwrap();
    assert_eq!((held.allowed, held.reserved), (true, Some(quantity("6"))));
    let refused = client.reserve(&ask("5"), ttl).await.unwrap();
    assert_eq!((refused.allowed, refused.reason), (false, Reason::LimitReached));
    for _ in 0..2 {
        let committed = client.commit("a/b c", Some(quantity("2.5"))).await.unwrap();
        assert_eq!(
            (committed.used, committed.reserved),
            (Some(quantity("2.5")), Some(Quantity::ZERO))
        );
        assert_eq!(committed.reservation.unwrap().status, "committed");
    }
    let other = client.commit("a/b c", None).await.unwrap_err();
    assert_eq!(other.code(), Some("event_conflict"), "{other}");
    let held = client.reserve(&ask("7"), ttl).await.unwrap();
    let id = held.reservation.expect("a reservation").id;
    for _ in 0..2 {
        let released = client.release(&id).await.unwrap();
        assert_eq!(released.reservation.unwrap().status, "released");
    }
    let gone = client.release("never made").await.unwrap_err();
    assert_eq!(gone.code(), Some("not_found"));
}

#[tokio::test]
async fn events_are_sent_once_and_told_apart() {
    let (app, _directory, client) = served().await;
    let event = |id: &str, n: &str| Event::new(id, "test", "call", "acme").data("n", n);
    let sent = [
        event("1", "0.5"),
        event("2", "3").time("2026-02-01T00:00:00Z"),
        event("", "9"),
    ];
    let first = client.send(&sent).await.unwrap();
    assert_eq!((first.accepted, first.rejected), (2, 1), "{first:?}");
    assert_eq!(
        (first.errors[0].index, first.errors[0].code.as_str()),
        (2, "invalid_id")
    );
    let again = client
        .send(&[event("1", "0.5"), event("1", "0.6")])
        .await
        .unwrap();
    assert_eq!((again.duplicates, again.conflicts), (1, 1), "{again:?}");
    let range = "from=2020-01-01T00:00:00Z&to=2040-01-01T00:00:00Z";
    assert_eq!(app.admin().total("calls", range).await, Some("3.5".to_owned()));
    assert_eq!(
        client.send(&[]).await.unwrap(),
        turnpike_client::EventsAnswer::default()
    );
}

#[tokio::test]
async fn what_cannot_be_used_is_told_at_once() {
    for (base, key) in [
        ("nonsense", "k"),
        ("ftp://127.0.0.1", "k"),
        ("http://127.0.0.1:1", ""),
        ("http://127.0.0.1:1", "a b"),
        ("http://127.0.0.1:1", "a\n"),
    ] {
        let error = Client::new(base, key).unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{base} {key:?}: {error}");
    }
    let (app, _directory, _) = served().await;
    let stranger = Client::new(&app.url(""), "no-key-of-this-server").unwrap();
    assert!(
        !format!("{stranger:?}").contains("no-key-of"),
        "the key is not shown"
    );
    let error = stranger.check(&ask("1")).await.unwrap_err();
    assert_eq!(error.code(), Some("unauthorized"));
}
