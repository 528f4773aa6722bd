//! A decision in process allocates nothing. A binary of its own, for it counts every allocation of its thread.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unsafe_code, reason = "a counting allocator")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use serde_json::{Value, json};
use support::{TENANT, World};
use turnpike_domain::quantity::Quantity;
use turnpike_domain::time::Clock as _;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn counted(work: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    work();
    COUNT.with(Cell::get) - before
}

#[tokio::test]
async fn a_decision_allocates_nothing() {
    assert!(
        counted(|| drop(std::hint::black_box(vec![1u8; 100]))) > 0,
        "the counter counts"
    );
    let day = json!({"limit": "30", "period": "day"});
    // From a row, and from what was compiled.
    decides_without_allocating(json!([day]), 1).await;
    decides_without_allocating(json!([{"limit": "100", "period": "month"}, day]), 0).await;
}

async fn decides_without_allocating(limits: Value, rows: usize) {
    let world = World::new().await;
    world.metered(limits);
    let mut handle = world.enforcer.handle(TENANT, "acme", "tokens").await.unwrap();
    let now = world.clock.machine_now();
    for (amount, allowed) in [(1, true), (31, false), (0, true)] {
        let amount = Quantity::from_units(amount);
        let mut by_name = None;
        let mut by_handle = None;
        // Once for what a thread sets up at its first use of the tables.
        world.enforcer.decide(TENANT, "acme", "tokens", amount, now);
        let count = counted(|| by_name = world.enforcer.decide(TENANT, "acme", "tokens", amount, now));
        assert_eq!((count, by_name.map(|d| d.allowed())), (0, Some(allowed)));
        let count = counted(|| by_handle = handle.decide(amount, now));
        assert_eq!((count, by_handle), (0, by_name));
    }
    assert_eq!(world.enforcer.held().rows, rows);
    assert_eq!(
        world
            .enforcer
            .decide(TENANT, "nobody", "tokens", Quantity::ONE, now),
        None
    );
}
