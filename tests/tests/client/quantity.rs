//! The client's quantities are the engine's.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use turnpike_client::Quantity;
use turnpike_domain::quantity::Quantity as Kept;
use turnpike_tests::run::{seed, times};

#[test]
fn every_quantity_that_the_engine_writes_is_read_and_written_the_same() {
    let mut random = StdRng::seed_from_u64(seed("--test client every_quantity", 1));
    let most = Kept::MAX.parts();
    let mut cases = vec![0, 1, -1, most, -most, Kept::ONE.parts()];
    for _ in 0..times(20_000, 1_000_000) {
        let digits = random.random_range(1..=38);
        cases.push(random.random_range(-(10_i128.pow(digits) - 1)..10_i128.pow(digits)));
    }
    for parts in cases {
        let written = Kept::from_parts(parts).unwrap().to_string();
        let read: Quantity = written.parse().unwrap();
        assert_eq!((read.parts(), read.to_string()), (parts, written));
    }
    assert!(Quantity::from_parts(most + 1).is_err() && Quantity::from_parts(-most - 1).is_err());
    assert_eq!(Quantity::from(u64::MAX).to_string(), u64::MAX.to_string());
}

#[test]
fn what_is_read_is_what_the_engine_reads() {
    let mut random = StdRng::seed_from_u64(seed("--test client what_is_read", 2));
    let mut taken = 0;
    for _ in 0..times(50_000, 1_000_000) {
        let letters = b"0019.-+e ";
        let length = random.random_range(0..8);
        let text: String = (0..length)
            .map(|_| char::from(letters[random.random_range(0..letters.len())]))
            .collect();
        if let Ok(read) = text.parse::<Quantity>() {
            taken += 1;
            // The engine is stricter with zeros before a number, which it never writes.
            if let Ok(kept) = Kept::parse(&text) {
                assert_eq!(read.parts(), kept.parts(), "{text}");
            } else {
                assert!(text.trim_start_matches('-').starts_with('0'), "{text}");
            }
        }
    }
    assert!(taken > 100, "{taken}");
    for wrong in [
        "",
        "-",
        ".",
        "1.",
        ".1",
        "+1",
        "1e2",
        " 1",
        "1.0000000000001",
        "١",
    ] {
        assert!(wrong.parse::<Quantity>().is_err(), "{wrong}");
    }
}
