//! The aggregator against a tiny model: any sequence of events, duplicates, conflicts, voids, amendments, late events,
//! checkpoints, crashes and new meters gives the model's totals, from the views and from the raw log alike.

#![cfg(test)]

mod common;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{Event, TENANT, World, at, meter, range, request, runtime};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use turnpike_aggregator::{rebuild, rows};
use turnpike_domain::meter::{Aggregation, Meter};
use turnpike_domain::port::intake::{Correction, Intake as _, Outcome};
use turnpike_domain::port::usage::{Derivation, TotalRequest, UsageReader as _};
use turnpike_domain::port::views::Views;
use turnpike_domain::problem::Code;
use turnpike_domain::quantity::Quantity;
use turnpike_stores::memory::MemoryViews;

const AGGREGATIONS: [(&str, Aggregation); 9] = [
    ("count", Aggregation::Count),
    ("sum", Aggregation::Sum),
    ("min", Aggregation::Min),
    ("max", Aggregation::Max),
    ("avg", Aggregation::Avg),
    ("unique", Aggregation::UniqueCount),
    ("latest", Aggregation::Latest),
    ("weighted", Aggregation::TimeWeightedSum),
    ("percentile", Aggregation::Percentile),
];

/// Three days, so that minutes, hours and days are all read.
const SECONDS: i64 = 3 * 86_400;

fn meters(offset: u32) -> Vec<Meter> {
    let named = |(at, (key, aggregation)): (usize, &(&str, Aggregation))| {
        meter(offset + at as u32, key, *aggregation)
    };
    AGGREGATIONS.iter().enumerate().map(named).collect()
}

#[derive(Debug, Clone)]
enum Step {
    /// (id, subject, group, second, value) each; ids repeat, so duplicates and conflicts come by themselves.
    Submit(Vec<(u8, u8, u8, i64, i8)>),
    Again(u8),
    Void(u8),
    Amend(u8, Option<i8>, Option<i64>),
    Checkpoint,
    Crash,
    /// All meters are deleted and made anew under the same keys.
    NewMeters,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let event = (0..60u8, 0..3u8, 0..3u8, 0..SECONDS, -5..20i8);
    let step = prop_oneof![
        6 => prop::collection::vec(event, 1..12).prop_map(Step::Submit),
        2 => (0..60u8).prop_map(Step::Again),
        2 => (0..60u8).prop_map(Step::Void),
        3 => (0..60u8, any::<Option<i8>>(), prop::option::of(0..SECONDS)).prop_map(|(id, v, t)| Step::Amend(id, v, t)),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Crash),
        1 => Just(Step::NewMeters),
    ];
    prop::collection::vec(step, 1..24)
}

/// What the model knows of an event.
#[derive(Debug, Clone)]
struct Known {
    first: Event,
    current: Option<Event>,
}

type Model = BTreeMap<String, Known>;

fn made((id, subject, group, second, value): (u8, u8, u8, i64, i8)) -> Event {
    let data = format!(r#"{{"v": {value}, "g": "g{group}"}}"#);
    Event::new(id, &format!("c{subject}"), second, data)
}

async fn step(world: &mut World, model: &mut Model, step: &Step, made_meters: &mut u32) {
    match step {
        Step::Submit(events) => submit(world, model, events.iter().map(|e| made(*e)).collect()).await,
        Step::Again(id) => {
            if let Some(known) = model.get(&id.to_string()).cloned() {
                // The same payload, spelled otherwise.
                let data = known.first.data.replace(": ", " :  ");
                submit(world, model, vec![Event { data, ..known.first }]).await;
            }
        }
        Step::Void(id) => correct(world, model, &id.to_string(), Correction::Void).await,
        Step::Amend(id, value, second) => {
            let data = value.map(|value| format!(r#"{{"g": "g1", "v": {value}}}"#));
            let change = Correction::Amend {
                data,
                time: second.map(at),
            };
            correct(world, model, &id.to_string(), change).await;
        }
        Step::Checkpoint => world.aggregator.checkpoint().await.unwrap(),
        Step::Crash => world.crash(),
        Step::NewMeters => {
            *made_meters += 100;
            world.declare(&meters(*made_meters));
        }
    }
}

async fn submit(world: &World, model: &mut Model, events: Vec<Event>) {
    let outcomes = world.submit(&events).await.unwrap();
    for (event, outcome) in events.into_iter().zip(outcomes) {
        let Some(known) = model.get(&event.id) else {
            assert!(matches!(outcome, Outcome::Accepted(_)), "{event:?} {outcome:?}");
            model.insert(
                event.id.clone(),
                Known {
                    first: event.clone(),
                    current: Some(event),
                },
            );
            continue;
        };
        let same = |e: &Event| (e.subject.clone(), e.time, e.data.replace(' ', ""));
        if same(&known.first) == same(&event) {
            assert!(matches!(outcome, Outcome::Duplicate(_)), "{event:?} {outcome:?}");
        } else {
            assert!(matches!(outcome, Outcome::Conflict(_)), "{event:?} {outcome:?}");
        }
    }
}

async fn correct(world: &World, model: &mut Model, id: &str, change: Correction) {
    let name = Event::new(id, "", 0, "").name();
    let result = world.aggregator.correct(name, change.clone(), at(0)).await;
    let Some(known) = model.get_mut(id) else {
        assert_eq!(result, Ok(None));
        return;
    };
    match (&mut known.current, change) {
        (None, Correction::Void) => assert!(result.unwrap().is_some()),
        (None, Correction::Amend { .. }) => assert_eq!(result.unwrap_err().code, Code::EventVoided),
        (current, Correction::Void) => {
            assert!(result.unwrap().is_some());
            *current = None;
        }
        (Some(current), Correction::Amend { data, time }) => {
            assert!(result.unwrap().is_some());
            current.data = data.unwrap_or_else(|| current.data.clone());
            current.time = time.unwrap_or(current.time);
        }
    }
}

/// Value and group of an event of the model.
fn read(event: &Event) -> (i128, String) {
    let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
    (
        i128::from(data["v"].as_i64().unwrap()),
        data["g"].as_str().unwrap().to_owned(),
    )
}

const UNIT: i128 = 1_000_000_000_000;

/// The meter's value over `[from, to)` seconds of the events of `subject` and, where given, of `group`; in parts.
fn expected(
    model: &Model,
    aggregation: Aggregation,
    subjects: &[&str],
    from: i64,
    to: i64,
    group: Option<&str>,
) -> Option<i128> {
    let mut all: Vec<(i64, String, String, i128, String)> = model
        .values()
        .filter_map(|known| known.current.as_ref())
        .filter(|event| subjects.contains(&event.subject.as_str()))
        .map(|event| {
            let (value, group) = read(event);
            (
                event.time.micros() / 1_000_000,
                event.id.clone(),
                event.subject.clone(),
                value,
                group,
            )
        })
        .filter(|(.., g)| group.is_none_or(|wanted| wanted == g))
        .collect();
    all.sort_unstable();
    if aggregation == Aggregation::TimeWeightedSum {
        return weighted(&all, from, to);
    }
    all.retain(|(second, ..)| (from..to).contains(second));
    let mut values: Vec<i128> = all.iter().map(|(.., value, _)| *value).collect();
    let latest = values.last().copied();
    values.sort_unstable();
    let n = values.len() as i128;
    let sum: i128 = values.iter().sum();
    match aggregation {
        Aggregation::Count => Some(n * UNIT),
        Aggregation::Sum => Some(sum * UNIT),
        Aggregation::Min => values.first().map(|v| v * UNIT),
        Aggregation::Max => values.last().map(|v| v * UNIT),
        Aggregation::Avg => (n > 0).then(|| {
            let half_up = (sum.abs() * UNIT * 2 + n) / (2 * n);
            half_up * sum.signum()
        }),
        Aggregation::UniqueCount => Some(values.iter().collect::<BTreeSet<_>>().len() as i128 * UNIT),
        Aggregation::Latest => latest.map(|v| v * UNIT),
        Aggregation::Percentile => (n > 0).then(|| values[((75 * n + 99) / 100 - 1) as usize] * UNIT),
        Aggregation::TimeWeightedSum => unreachable!("answered above"),
    }
}

fn weighted(all: &[(i64, String, String, i128, String)], from: i64, to: i64) -> Option<i128> {
    let mut series: BTreeMap<(String, String), Vec<(i64, i128)>> = BTreeMap::new();
    for (second, _, subject, value, group) in all {
        series
            .entry((subject.clone(), group.clone()))
            .or_default()
            .push((*second, *value));
    }
    let (mut sum, mut any) = (0, false);
    for points in series.values() {
        for second_of_day in 0..points.len() {
            let (start, value) = points[second_of_day];
            let end = points.get(second_of_day + 1).map_or(to, |next| next.0).min(to);
            any |= start < to;
            sum += i128::from((end - start.max(from)).max(0)) * value;
        }
    }
    any.then_some(sum * UNIT)
}

async fn compare(world: &World, model: &Model, from_minute: i64, minutes: i64) {
    let (from, to) = (from_minute * 60, (from_minute + minutes) * 60);
    let subjects = ["c0", "c1"];
    let cuts = [minutes / 3, minutes * 2 / 3].map(|n| (from_minute + n) * 60);
    let mut cuts: Vec<_> = cuts
        .into_iter()
        .filter(|cut| (from + 1..to).contains(cut))
        .collect();
    cuts.dedup();
    let mut requests = Vec::new();
    for (key, _) in AGGREGATIONS {
        requests.push(request(key, &subjects, range(from, to)));
        let filter = vec![("g".to_owned(), vec!["g1".to_owned()])];
        requests.push(TotalRequest {
            filter,
            ..request(key, &subjects, range(from, to))
        });
        requests.push(TotalRequest {
            group_by: vec!["g".to_owned()],
            ..request(key, &subjects, range(from, to))
        });
        requests.push(TotalRequest {
            cuts: cuts.iter().map(|cut| range(*cut, to).start).collect(),
            ..request(key, &subjects, range(from, to))
        });
    }
    let totals = world
        .aggregator
        .totals(TENANT, requests.clone(), None)
        .await
        .unwrap();
    let parts = |value: Option<Quantity>| value.map(Quantity::parts);
    for ((key, aggregation), rows) in AGGREGATIONS.iter().zip(totals.rows.chunks(4)) {
        let wanted = |group| expected(model, *aggregation, &subjects, from, to, group);
        assert_eq!(parts(rows[0][0].value), wanted(None), "{key} of {from}..{to}");
        assert_eq!(
            parts(rows[1][0].value),
            wanted(Some("g1")),
            "{key} of g1 in {from}..{to}"
        );
        for row in &rows[2] {
            assert_eq!(
                parts(row.value),
                wanted(Some(&row.group[0])),
                "{key} by group in {from}..{to}"
            );
        }
        let starts = std::iter::once(from).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([to]);
        assert_eq!(rows[3].len(), cuts.len() + 1);
        for ((from, to), part) in starts.zip(ends).zip(&rows[3]) {
            let wanted = expected(model, *aggregation, &subjects, from, to, None);
            assert_eq!(parts(part.value), wanted, "{key} of the part {from}..{to}");
        }
        let split: Option<i128> = rows[2].iter().map(|row| parts(row.value)).sum();
        if matches!(aggregation, Aggregation::Count | Aggregation::Sum) {
            assert_eq!(split, wanted(None), "{key}: the groups add up");
        }
    }
    let derivation = Derivation {
        tenant: TENANT,
        requests,
        watermark: totals.watermark.clone(),
    };
    let derived = world.aggregator.totals_from_log(vec![derivation]).await;
    assert_eq!(derived, Ok(vec![Ok(totals)]), "the raw log says the same");
}

/// Views derived anew from the log equal those that grew on the way; one row more or less is named.
async fn rebuilt_is_the_same(world: &World) {
    let grown = world.shared_views();
    let derived = world.derive().await;
    let directory = world.directory.as_ref();
    let same = rebuild::compare(&grown, &derived, directory).unwrap();
    assert_eq!((same.different, same.named), (0, Vec::new()));
    assert_eq!((same.rows.0, same.ids.0), (same.rows.1, same.ids.1));
    let dump = |views: &[Arc<dyn Views>]| {
        let mut out = Vec::new();
        let lines = rebuild::dump(views, directory, &mut out).unwrap();
        (lines, String::from_utf8(out).unwrap())
    };
    assert_eq!(dump(&grown), dump(&derived));
    let empty = grown
        .iter()
        .map(|_| Arc::new(MemoryViews::new(rows::merge())) as Arc<dyn Views>);
    let lacking = rebuild::compare(&grown, &empty.collect::<Vec<_>>(), directory).unwrap();
    assert_eq!(lacking.rows, (dump(&grown).0, 0));
    assert_eq!(lacking.different, lacking.rows.0 + lacking.ids.0);
    let named: Vec<_> = lacking.named.into_iter().filter_map(|d| d.first).collect();
    let lines: Vec<_> = dump(&grown).1.lines().take(20).map(str::to_owned).collect();
    assert_eq!(named[..lines.len()], lines);
}

/// Cases of R19: `TURNPIKE_TEST_NIGHTLY` takes the larger number.
fn cases() -> u32 {
    if std::env::var_os("TURNPIKE_TEST_NIGHTLY").is_some() {
        1_000
    } else {
        60
    }
}

/// How often crashes, corrections, and meters made anew were among the steps.
#[derive(Debug, Default)]
struct Injected {
    crashes: usize,
    corrections: usize,
    new_meters: usize,
}

impl Injected {
    fn count(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Crash => self.crashes += 1,
                Step::Void(_) | Step::Amend(..) => self.corrections += 1,
                Step::NewMeters => self.new_meters += 1,
                Step::Submit(_) | Step::Again(_) | Step::Checkpoint => {}
            }
        }
    }
}

async fn agrees(all: &[Step], partitions: usize, (from, minutes): (i64, i64)) {
    let mut world = World::new(partitions, &meters(0));
    let (mut model, mut made_meters) = (Model::new(), 0);
    for one in all {
        step(&mut world, &mut model, one, &mut made_meters).await;
    }
    compare(&world, &model, from, minutes).await;
    compare(&world, &model, 0, SECONDS / 60).await;
    world.crash();
    compare(&world, &model, 0, SECONDS / 60).await;
    world.aggregator.shutdown().await.unwrap();
    rebuilt_is_the_same(&world).await;
}

#[test]
fn agrees_with_the_model() {
    let config = ProptestConfig {
        cases: cases(),
        source_file: Some(file!()),
        ..ProptestConfig::default()
    };
    let injected = RefCell::new(Injected::default());
    let inputs = (steps(), 1..4usize, (0..4_000i64, 1..3_000i64));
    let agreed = TestRunner::new(config).run(&inputs, |(all, partitions, window)| {
        injected.borrow_mut().count(&all);
        runtime().block_on(agrees(&all, partitions, window));
        Ok(())
    });
    agreed.unwrap();
    let injected = injected.into_inner();
    println!("{} cases injected {injected:?}, and a crash behind each", cases());
    assert!(
        injected.crashes > 10 && injected.corrections > 10 && injected.new_meters > 10,
        "vacuous: {injected:?}"
    );
}
