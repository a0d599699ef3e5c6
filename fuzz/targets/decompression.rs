//! The target for decompressing a body: see `fuzz::decompression`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::decompression(input));
