//! Pages of dead letters, against a plain list of them.

use proptest::prelude::*;
use turnpike_domain::meter::Aggregation;
use turnpike_domain::port::history::{DeadLetter, History as _};
use turnpike_domain::port::intake::{Correction, Intake as _};

use crate::common::{Event, TENANT, World, at, meter, runtime};
use crate::event;
use crate::history::rejection;

/// Meters that cannot read an event without a value.
const METERS: u32 = 4;
/// Far more pages than any list here has.
const PAGES_MAX: usize = 200;

#[derive(Debug, Clone)]
enum Step {
    /// An event that no meter can read: a letter of each.
    Unreadable,
    Refuse,
    /// Voids one of the events, which deals with all its letters.
    Void(prop::sample::Index),
    /// Deals with one of the refused events.
    Resolve(prop::sample::Index),
    Checkpoint,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Unreadable),
        3 => Just(Step::Refuse),
        2 => any::<prop::sample::Index>().prop_map(Step::Void),
        1 => any::<prop::sample::Index>().prop_map(Step::Resolve),
        1 => Just(Step::Checkpoint),
    ]
}

/// A letter by the id of its event, and its meter; refused events have none.
type Named = (String, Option<String>);

fn named(letter: &DeadLetter) -> Named {
    match letter {
        DeadLetter::Unreadable { id, meter, .. } => (id.clone(), Some(meter.clone())),
        DeadLetter::Refused { id, .. } => (id.clone(), None),
    }
}

fn world() -> World {
    let meters: Vec<_> = (1..=METERS)
        .map(|id| meter(id, &format!("m{id}"), Aggregation::Sum))
        .collect();
    World::new(2, &meters)
}

/// Does the steps, and tells which letters are open, newest first.
async fn after(world: &World, steps: Vec<Step>) -> Vec<Named> {
    let (mut unreadable, mut refused) = (Vec::new(), Vec::new());
    for (id, step) in (0..).zip(steps) {
        match step {
            Step::Unreadable => {
                world.submit(&[Event::new(id, "c", 60, "{}")]).await.unwrap();
                unreadable.push(id);
            }
            Step::Refuse => {
                let positions = world.aggregator.reject(vec![rejection(id)]).await.unwrap();
                refused.push((id, positions[0]));
            }
            Step::Void(index) if !unreadable.is_empty() => {
                let id = unreadable.remove(index.index(unreadable.len()));
                let name = event(id, 0).name();
                let voided = world.aggregator.correct(name, Correction::Void, at(70));
                voided.await.unwrap().unwrap();
            }
            Step::Resolve(index) if !refused.is_empty() => {
                let (_, position) = refused.remove(index.index(refused.len()));
                world.aggregator.resolve(TENANT, position).await.unwrap();
            }
            Step::Checkpoint => world.aggregator.checkpoint().await.unwrap(),
            Step::Void(_) | Step::Resolve(_) => {}
        }
    }
    let unreadable = unreadable.into_iter().flat_map(|id| {
        let of_meters = (1..=METERS).map(move |meter| Some(format!("m{meter}")));
        of_meters.map(move |meter| (id, meter))
    });
    let refused = refused.into_iter().map(|(id, _)| (id, None));
    let mut open: Vec<_> = unreadable.chain(refused).collect();
    open.sort();
    let newest_first = open.into_iter().rev();
    newest_first.map(|(id, meter)| (id.to_string(), meter)).collect()
}

/// All pages, of these lengths in turn.
async fn paged(world: &World, limits: &[usize]) -> Vec<Named> {
    let (mut seen, mut cursor) = (Vec::new(), None);
    for limit in limits.iter().copied().cycle().take(PAGES_MAX) {
        let page = world.aggregator.dead_letters(TENANT, limit, cursor);
        let page = page.await.unwrap();
        assert!(page.letters.len() <= limit, "{} of {limit}", page.letters.len());
        seen.extend(page.letters.iter().map(named));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return seen;
        }
    }
    panic!(
        "the pages of {limits:?} do not end: {} letters so far",
        seen.len()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pages_hold_each_open_letter_once(
        steps in prop::collection::vec(step(), 0..24),
        mixed in prop::collection::vec(1_usize..=5, 1..6),
    ) {
        runtime().block_on(async {
            let world = world();
            let open = after(&world, steps).await;
            for limits in [&[1][..], &[2], &[3], &[4], &[5], &mixed] {
                assert_eq!(paged(&world, limits).await, open, "{limits:?} a page");
            }
        });
    }
}

#[test]
fn more_letters_of_one_event_than_a_page_holds_are_each_shown_once() {
    runtime().block_on(async {
        let world = world();
        let open = after(&world, vec![Step::Unreadable]).await;
        assert_eq!(open.len(), 4);
        for limits in [[1], [2], [3]] {
            assert_eq!(paged(&world, &limits).await, open, "{limits:?} a page");
        }
    });
}
