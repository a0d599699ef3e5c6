//! Readers of the table that are not ours.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a program for [`readers_python`] ends with: threads of the readers abort Python now and then while it ends by itself.
const READERS_END: &str = "\nimport os, sys; sys.stdout.flush(); os._exit(0)";

/// A Python that has the readers `deltalake`, `polars` and `duckdb`; none when this machine has none.
pub fn readers_python() -> Option<PathBuf> {
    let python = std::env::var_os("CATCHMENT_READERS_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let program = format!("import deltalake, polars, duckdb, pyarrow{READERS_END}");
    let imports = Command::new(&python).args(["-c", &program]).output();
    imports.is_ok_and(|output| output.status.success()).then_some(python)
}

/// What a program for [`readers_python`] prints of the collector's table in `dir`, as JSON. `name` is the reader's.
///
/// # Panics
/// When it fails.
pub fn as_read_by(python: &Path, (name, program): (&str, &str), dir: &Path) -> Value {
    let program = format!("{program}{READERS_END}");
    let table = dir.join("data/lake");
    let output = Command::new(python).args(["-c", &program]).arg(table).output().expect("Python runs");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}
