//! The target for reading lines of an export: see `fuzz::exported`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::exported(input));
