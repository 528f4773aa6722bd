use std::alloc::{GlobalAlloc, Layout, System};
use std::borrow::Cow;
use std::cell::Cell as Counter;

use turnpike_domain::meter::aggregate::SampleValue;
use turnpike_domain::port::views::Row;
use turnpike_domain::quantity::Quantity;

use super::*;

/// Counts what its thread holds of the heap.
struct Counting;

thread_local! {
    static HELD: Counter<isize> = const { Counter::new(0) };
}

fn count(bytes: isize) {
    HELD.with(|held| held.set(held.get() + bytes));
}

// SAFETY: everything is passed on to the system's allocator unchanged.
#[expect(unsafe_code, reason = "a counting allocator")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn meter(id: u32, aggregation: Aggregation) -> Meter {
    Meter {
        id: MeterId(id),
        key: "m".to_owned(),
        event_type: "t".to_owned(),
        aggregation,
        value: None,
        percentile: None,
        group_by: BTreeMap::new(),
        filter: BTreeMap::new(),
    }
}

fn add(memory: &mut Memory, meter: &Meter, subject: &str, minute: i64, back: bool) {
    let sample = Sample {
        value: SampleValue::None,
        time_us: minute * 60_000_000,
        source: "s",
        id: "i",
    };
    let subject = memory.subject(TenantId(1), subject);
    memory.add(subject, meter, b"", &sample, back).unwrap();
}

fn rows(memory: &Memory) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut take = |key: &[u8], value: &[u8]| {
        rows.push(Row {
            key: key.to_vec(),
            value: value.to_vec(),
        });
        Ok(())
    };
    memory.each(&mut take).unwrap();
    rows
}

#[test]
fn rows_of_all_levels_ascend_and_add_up() {
    let mut memory = Memory::default();
    let meter = meter(7, Aggregation::Count);
    let meter_of_lower_id = self::meter(3, Aggregation::Count);
    for (subject, minute) in [("b", 0), ("a", 1), ("a", 59), ("a", 60), ("a", 1440), ("a", 1)] {
        add(&mut memory, &meter, subject, minute, false);
    }
    for subject in ["a\u{1}", "a", "a\0b", "", "a\0", "aa"] {
        add(&mut memory, &meter_of_lower_id, subject, 5, false);
    }
    memory.note(key::refused(TenantId(1), 5), Vec::new(), 1);
    let rows = rows(&memory);
    assert!(rows.is_sorted_by(|a, b| a.key < b.key));
    let of = |level, subject, bucket| {
        let mut series = Vec::new();
        key::put_text(&mut series, subject);
        let key = key::window(TenantId(1), MeterId(7), level, &series, bucket);
        rows.iter()
            .find(|row| row.key == key)
            .and_then(|row| Cell::decode(&row.value))
    };
    assert_eq!(of(Level::Minute, "a", 1), Some(Cell::Count(2)));
    assert_eq!(of(Level::Hour, "a", 0), Some(Cell::Count(3)));
    assert_eq!(of(Level::Day, "a", 0), Some(Cell::Count(4)));
    assert_eq!(of(Level::Day, "a", 1), Some(Cell::Count(1)));
    assert_eq!(of(Level::Day, "b", 0), Some(Cell::Count(1)));
    assert_eq!(rows.len(), 5 + 4 + 3 + 3 * 6 + 1);
}

#[test]
fn what_was_taken_back_leaves_no_row() {
    let mut memory = Memory::default();
    let meter = meter(7, Aggregation::Count);
    add(&mut memory, &meter, "a", 1, false);
    add(&mut memory, &meter, "a", 1, true);
    memory.note(b"k".to_vec(), b"n".to_vec(), 1);
    memory.note(b"k".to_vec(), b"n".to_vec(), -1);
    assert_eq!(rows(&memory), []);
}

/// What a series holds: its number, the minute, and the number of the event.
type Shape = fn(u32) -> (u32, i64);

/// Estimated bytes and those of the allocator for `events` events of a shape.
fn sizes(aggregation: Aggregation, events: u32, shape: Shape) -> (usize, usize) {
    let meter = meter(1, aggregation);
    let before = HELD.with(Counter::get);
    let mut memory = Memory::default();
    for n in 0..events {
        let (series, minute) = shape(n);
        let (subject, group) = (
            format!("customer-{}", series / 4),
            format!("model-{}\0\u{1}", series % 4),
        );
        let id = format!("{n:020}");
        let value = match aggregation {
            Aggregation::Count => SampleValue::None,
            Aggregation::UniqueCount => SampleValue::Text(Cow::Borrowed(&id)),
            _ => SampleValue::Number(Quantity::from_units(n.into())),
        };
        let sample = Sample {
            value,
            time_us: minute * 60_000_000,
            source: "source",
            id: &id,
        };
        let subject = memory.subject(TenantId(1), &subject);
        let group = group.as_bytes();
        memory.add(subject, &meter, group, &sample, false).unwrap();
    }
    let held = HELD.with(Counter::get) - before;
    (memory.bytes(), held.unsigned_abs())
}

#[test]
fn the_estimate_of_memory_is_near_what_the_allocator_gives() {
    let shapes: [(&str, Shape); 5] = [
        ("one minute of each series", |n| (n, 7)),
        ("each minute of one series", |n| (0, n.into())),
        ("a hundred events in each window", |n| {
            (n / 1_000, i64::from(n / 100 % 10))
        }),
        ("series in turn", |n| (n % 100, i64::from(n / 100))),
        ("an hour of each series in turn", |n| {
            (n % 1_000, i64::from(n / 1_000 * 60))
        }),
    ];
    for (name, shape) in shapes {
        for aggregation in [
            Aggregation::Count,
            Aggregation::Sum,
            Aggregation::Max,
            Aggregation::UniqueCount,
            Aggregation::Latest,
        ] {
            let (estimated, held) = sizes(aggregation, 20_000, shape);
            assert!(
                estimated * 10 >= held * 9 && estimated <= held * 2,
                "{aggregation:?}, {name}: {estimated} bytes estimated, {held} held"
            );
        }
    }
}

#[test]
fn rows_are_made_without_a_copy_of_everything() {
    let meter = meter(1, Aggregation::Count);
    let mut memory = Memory::default();
    for n in 0..5_000 {
        add(&mut memory, &meter, &format!("customer-{}", n % 100), n, false);
    }
    let before = HELD.with(Counter::get);
    let mut most = 0;
    let mut take = |_: &[u8], _: &[u8]| {
        most = most.max(HELD.with(Counter::get) - before);
        Ok(())
    };
    memory.each(&mut take).unwrap();
    assert!(
        most < 16_384,
        "{most} bytes at once for {} in memory",
        memory.bytes()
    );
}
