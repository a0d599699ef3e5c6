//! What an operator runs beside a collector, or before it starts, and what commands say.

use crate::catchment;
use std::path::Path;
use std::process::Output;

/// What a command said on standard output.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a command said on standard error.
pub fn complained(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `catchment inspect` of the data folder in `dir`.
pub fn inspect(dir: &Path, more: &[&str]) -> Output {
    catchment(dir, &[&["inspect"], more, &["--data-dir", "data"]].concat(), b"")
}

/// Why the collector of the data folder in `dir` does not start.
#[track_caller]
pub fn refused_start(dir: &Path) -> String {
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", "data"];
    let output = catchment(dir, &arguments, b"");
    assert_eq!(output.status.code(), Some(1), "{}", complained(&output));
    complained(&output)
}
