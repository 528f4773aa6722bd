#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    turnpike_tests::fuzz::events::enter(input);
});
