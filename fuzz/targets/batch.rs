//! The target for reading a batch: see `fuzz::batch`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::batch(input));
