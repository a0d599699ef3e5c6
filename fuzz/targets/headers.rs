//! The target for a CloudEvent in headers: see `fuzz::headers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::headers(input));
