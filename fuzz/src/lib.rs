//! Fuzz targets for what reads foreign bytes: each takes any input and checks what the code under it promises, not only that it
//! does not panic. `targets/` gives them to libFuzzer, `corpus/` has inputs to begin with, `make fuzz` runs them.
//!
//! Reading order: [`batch`], [`headers`], [`decompression`], [`exported`], [`recovery`], [`repair`].

mod batch;
mod columns;
mod decompression;
mod exported;
mod headers;
mod recovery;
mod repair;

pub use batch::batch;
pub use decompression::decompression;
pub use exported::exported;
pub use headers::headers;
pub use recovery::recovery;
pub use repair::repair;

/// Splits the first line from the rest.
fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|b| *b == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (&[], input),
    }
}

/// A part of the input that must be a text.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
