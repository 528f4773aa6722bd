//! R13: events in any order, in batches of any size, some again, some late: the same usage and the same bill.

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use turnpike_tests::app::{App, AppOptions, Caller};
use turnpike_tests::billing::{assert_invoices, bill, declared};
use turnpike_tests::compare::{SubjectRow, must_send};
use turnpike_tests::instant::{HOUR_US, time};
use turnpike_tests::oracle::{
    Oracle, OracleAccount, OracleCharge, OracleEvent, OracleInvoice, OraclePlan, OraclePrice, OracleTier,
    decimal,
};
use turnpike_tests::run::{seed, times};
use turnpike_tests::workload::{self, Correction, MONTH_LEN_US, MONTH_US, Workload};

use super::BINARY;

/// Events of one permutation.
const EVENTS: usize = 80;
/// Events that are corrected, each once.
const CORRECTIONS: usize = 10;
/// End of the month, when it is billed.
const CLOSE_US: i64 = MONTH_US + MONTH_LEN_US;
/// End of the month behind it: 28 days.
const NEXT_CLOSE_US: i64 = CLOSE_US + 28 * 24 * HOUR_US;

/// A thing that happens to an event. A correction comes behind its event.
#[derive(Clone)]
enum Happening {
    Event(OracleEvent),
    Correction(Correction),
}

/// The same happenings for every permutation.
fn happenings(seed: u64) -> (Vec<OracleEvent>, Vec<Correction>) {
    let mut workload = Workload::new(seed);
    let events: Vec<_> = (0..EVENTS).map(|_| workload.fresh()).collect();
    let correct = |(n, event): (usize, &OracleEvent)| Correction {
        source: event.source.clone(),
        id: event.id.clone(),
        amend: (n % 3 > 0).then(|| {
            let data = json!({"tokens": format!("{n}.5"), "model": "huge", "user": "user-1"});
            (data, (n % 2 == 0).then_some(MONTH_US + n as i64 * HOUR_US))
        }),
    };
    let corrections = events.iter().take(CORRECTIONS).enumerate().map(correct);
    let corrections = corrections.collect();
    (events, corrections)
}

/// An order of arrival.
fn shuffled(
    random: &mut StdRng,
    (events, corrections): &(Vec<OracleEvent>, Vec<Correction>),
) -> Vec<Happening> {
    let mut all: Vec<_> = events.iter().cloned().map(Happening::Event).collect();
    all.shuffle(random);
    for correction in corrections {
        let is_its = |one: &Happening| matches!(one, Happening::Event(event) if event.id == correction.id);
        let at = all.iter().position(is_its).expect("its event");
        let at = random.random_range(at + 1..=all.len());
        all.insert(at, Happening::Correction(correction.clone()));
    }
    all
}

fn plan() -> OraclePlan {
    let meter = |key: &str| {
        let found = workload::meters().into_iter().find(|(one, _)| *one == key);
        found.map(|(_, meter)| meter)
    };
    let charge = |key: &str, meter, price| OracleCharge {
        key: key.into(),
        meter,
        price,
    };
    let tier = |up_to: Option<&str>, unit: &str| OracleTier {
        up_to: up_to.map(str::to_owned),
        unit_amount: unit.into(),
        flat_amount: "0.5".into(),
    };
    let units = OraclePrice::PerUnit {
        unit_amount: "0.000137".into(),
        included: "10000".into(),
    };
    let tiers = OraclePrice::Graduated {
        tiers: vec![tier(Some("50000"), "0.00031"), tier(None, "0.000215")],
    };
    let packs = OraclePrice::Package {
        size: "30".into(),
        amount: "0.15".into(),
    };
    OraclePlan {
        charges: vec![
            charge("units", meter("tokens"), units),
            charge("tiers", meter("large"), tiers),
            charge("packs", meter("requests"), packs),
        ],
        minimum_commitment: None,
        places: 2,
    }
}

/// A tenant of its own for a permutation, whose clock shows the end of the month.
async fn open(app: &App, number: usize) -> (Caller, OracleAccount) {
    let declared_tenant = json!({"key": format!("p{number}"), "test": true, "clock": time(CLOSE_US)});
    let key = app.tenant(&declared_tenant).await;
    let caller = app.caller(&key);
    workload::declare(&caller).await;
    let meters = [("units", "tokens"), ("tiers", "large"), ("packs", "requests")];
    caller.put("/v1/plans/pro", &declared(&plan(), &meters)).await;
    let subjects: Vec<_> = (0..20).map(|n| format!("customer-{n}")).collect();
    caller
        .put("/v1/customers/acme", &json!({ "subjects": subjects }))
        .await;
    let subscription = json!({"customer": "acme", "plan": "pro", "start": time(MONTH_US)});
    caller.created("/v1/subscriptions", &subscription).await;
    (caller, OracleAccount::new(plan(), subjects, "UTC", MONTH_US))
}

/// Sends happenings in batches of any size, and some of the events again.
async fn send(caller: &Caller, oracle: &mut Oracle, random: &mut StdRng, happenings: &[Happening]) -> u64 {
    let (mut batch, mut sent, mut again) = (Vec::new(), Vec::new(), 0);
    for happening in happenings {
        match happening {
            Happening::Event(event) => {
                batch.push(event.clone());
                sent.push(event.clone());
                if random.random_bool(0.2) {
                    batch.push(sent[random.random_range(0..sent.len())].clone());
                    again += 1;
                }
            }
            Happening::Correction(correction) => {
                flush(caller, oracle, &mut batch).await;
                assert!(workload::correct(caller, oracle, correction).await.is_some());
            }
        }
        if random.random_bool(0.1) {
            flush(caller, oracle, &mut batch).await;
        }
    }
    flush(caller, oracle, &mut batch).await;
    again
}

async fn flush(caller: &Caller, oracle: &mut Oracle, batch: &mut Vec<OracleEvent>) {
    if !batch.is_empty() {
        must_send(caller, oracle, &std::mem::take(batch)).await;
    }
}

/// What must not depend on the order: all usage, and what both invoices come to.
#[derive(Debug, PartialEq)]
struct Outcome {
    usage: Vec<(&'static str, Vec<SubjectRow>)>,
    billed: String,
}

/// One permutation, whose last happenings are late for the first invoice.
async fn permuted(
    app: &App,
    number: usize,
    random: &mut StdRng,
    order: &[Happening],
    injected: &mut Injected,
) -> Outcome {
    let (caller, mut account) = open(app, number).await;
    let mut oracle = Oracle::default();
    let late = order.len() - random.random_range(1..order.len() / 2);
    injected.again += send(&caller, &mut oracle, random, &order[..late]).await;
    assert!(bill(&caller, CLOSE_US).await, "the month is billed");
    let mut invoices = vec![account.close(&oracle)];
    let first = assert_invoices(&caller, "acme", &invoices).await;
    injected.again += send(&caller, &mut oracle, random, &order[late..]).await;
    injected.late += (order.len() - late) as u64;
    // The stated place of what is late: the next invoice. The first one stays as it is.
    let to = json!({"to": time(NEXT_CLOSE_US)});
    caller.created("/v1/test-clock/advance", &to).await;
    assert!(bill(&caller, NEXT_CLOSE_US).await, "the next month is billed");
    invoices.push(account.close(&oracle));
    let both = assert_invoices(&caller, "acme", &invoices).await;
    assert_eq!(both[0], first[0], "a final invoice changed");
    injected.adjusted += invoices[1]
        .lines
        .iter()
        .filter(|line| line.0 == "adjustment")
        .count();
    Outcome {
        usage: workload::dump(&caller, &oracle).await,
        billed: sum(&invoices),
    }
}

fn sum(invoices: &[OracleInvoice]) -> String {
    let total: num_rational::BigRational = invoices.iter().map(|invoice| decimal(&invoice.total)).sum();
    total.to_string()
}

/// What was done to the order.
#[derive(Debug, Default)]
struct Injected {
    again: u64,
    late: u64,
    adjusted: usize,
    restarts: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r13_the_order_of_arrival_changes_nothing() {
    let (seed, permutations) = (seed("--test faults r13", 13), times(25, 10_000));
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().expect("a directory");
    let mut app = App::start_with(AppOptions::small(BINARY, directory.path())).await;
    let (happenings, mut injected) = (happenings(seed), Injected::default());
    let mut first: Option<Outcome> = None;
    for number in 0..permutations {
        let order = shuffled(&mut random, &happenings);
        let outcome = permuted(&app, number, &mut random, &order, &mut injected).await;
        match &first {
            None => first = Some(outcome),
            Some(first) => assert_eq!(&outcome, first, "permutation {number}"),
        }
        if number % 10 == 5 {
            app.restart().await;
            injected.restarts += 1;
        }
    }
    println!("injected {permutations} orders: {injected:?}");
    assert!(
        injected.again > 0 && injected.late > 0 && injected.adjusted > 0 && injected.restarts > 0,
        "vacuous: {injected:?}"
    );
    // R19: the views that grew in all these ways are those that the log gives.
    assert_eq!(app.terminate().0, Some(0));
    let rebuilt: Value = app.offline("rebuild");
    assert_eq!(rebuilt["different"], 0, "{rebuilt}");
}
