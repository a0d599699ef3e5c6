//! The target for recovering a wal: see `fuzz::recovery`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::recovery(input));
