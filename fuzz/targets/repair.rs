//! The target for repairing a wal: see `fuzz::repair`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::repair(input));
