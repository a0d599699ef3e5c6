//! Tells the program which commit it is built from: `BUILD_COMMIT` of the environment, else what git's files say.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-env-changed=BUILD_COMMIT");
    let git = Path::new("../../.git");
    let given = std::env::var("BUILD_COMMIT").ok().filter(|c| !c.is_empty());
    if let Some(commit) = given.or_else(|| commit(git)) {
        println!("cargo::rustc-env=BUILD_COMMIT={commit}");
    }
}

fn commit(git: &Path) -> Option<String> {
    println!("cargo::rerun-if-changed={}", git.join("HEAD").display());
    let head = std::fs::read_to_string(git.join("HEAD")).ok()?;
    let Some(name) = head.trim().strip_prefix("ref: ") else {
        return Some(head.trim().to_owned());
    };
    println!("cargo::rerun-if-changed={}", git.join(name).display());
    if let Ok(commit) = std::fs::read_to_string(git.join(name)) {
        return Some(commit.trim().to_owned());
    }
    let packed = std::fs::read_to_string(git.join("packed-refs")).ok()?;
    packed.lines().find_map(|line| line.strip_suffix(name)).map(|commit| commit.trim().to_owned())
}
