//! What is running: the caller's name, version and commit.

use serde::Serialize;

/// The version of a program; [`version!`](crate::version!) makes the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Name of the program.
    pub name: &'static str,
    /// Its semantic version.
    pub version: &'static str,
    /// The commit it was built from, or `unknown`.
    pub commit: &'static str,
}

/// The version of the crate that calls it. `version!("name")` gives it another name. The commit is the variable `BUILD_COMMIT` at build
/// time, which a build script sets with `cargo::rustc-env=BUILD_COMMIT=...`; the README has one.
#[macro_export]
macro_rules! version {
    () => {
        $crate::version!(env!("CARGO_PKG_NAME"))
    };
    ($name:expr) => {
        $crate::Version {
            name: $name,
            version: env!("CARGO_PKG_VERSION"),
            commit: match option_env!("BUILD_COMMIT") {
                Some(commit) => commit,
                None => "unknown",
            },
        }
    };
}
