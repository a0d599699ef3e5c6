//! `nowwhat new` writes a service whose files are whole, whatever its name is. That it builds and runs is proved in
//! `tests/tests/new_service.rs` of the workspace.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn nowwhat(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nowwhat")).args(args).current_dir(folder).output().expect("it runs")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        if entry.path().is_dir() { files(&entry.path(), found) } else { found.push(entry.path()) }
    }
}

#[test]
fn sources_are_formatted_and_no_sign_of_the_templates_is_left_whatever_the_name_is() {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["a", "shop-window", "match-maker", "zzzzzzzzzzzzzzz-zzzzzzzzzzzzzzzz"] {
        let output = nowwhat(dir.path(), &["new", name]);
        assert!(output.status.success(), "{output:?}");
        let mut found = Vec::new();
        files(&dir.path().join(name), &mut found);
        for file in &found {
            let text = std::fs::read_to_string(file).expect("a text");
            for sign in ["<< ", "<%", "<#"] {
                assert!(!text.contains(sign), "{sign} in {}", file.display());
            }
            let path = file.strip_prefix(dir.path()).expect("below").to_string_lossy().into_owned();
            assert!(!path.contains("__") && !path.ends_with(".in"), "{path}");
        }
        let sources = found.iter().filter(|file| file.extension().is_some_and(|e| e == "rs"));
        let formatted = Command::new("rustfmt").args(["--check", "--edition", "2024"]).args(sources).output();
        let formatted = formatted.expect("rustfmt runs");
        assert!(formatted.status.success(), "{name}: {}", String::from_utf8_lossy(&formatted.stdout));
        let current = nowwhat(&dir.path().join(name), &["deploy", "--check"]);
        assert!(current.status.success(), "{current:?}");
    }
}

#[test]
fn both_ci_see_the_whole_history_and_stage_is_staging_whatever_else_is_said() {
    let dir = tempfile::tempdir().expect("a folder");
    assert!(nowwhat(dir.path(), &["new", "shop"]).status.success());
    for (file, line) in [
        (".github/workflows/ci.yml", "fetch-depth: 0"),
        (".github/workflows/ci.yml", "- run: git config --global --add safe.directory \"$GITHUB_WORKSPACE\""),
        (".gitlab-ci.yml", "GIT_DEPTH: 0"),
    ] {
        let text = std::fs::read_to_string(dir.path().join("shop").join(file)).expect("it is there");
        assert!(text.lines().any(|found| found.trim() == line), "{line} in {text}");
    }
    let mut make = Command::new("make");
    make.args(["--dry-run", "stage", "ENV=prod", "PACKAGE=Makefile"]).env_remove("MAKEFLAGS");
    let output = make.current_dir(dir.path().join("shop")).output().expect("make runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("--inventory inventories/staging ") && !told.contains("prod"), "{told}");
}

#[test]
fn nothing_is_written_over_and_no_name_is_taken_that_cannot_be() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("mine"), "a text").expect("written");
    for args in [["new", "shop", "--path", "."], ["new", "shop", "--path", "mine"]] {
        let output = nowwhat(dir.path(), &args);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && told.contains("nothing is written over it"), "{told}");
    }
    let refused = nowwhat(dir.path(), &["new", "Shop"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("it begins with a letter from a to z"), "{refused:?}");
    for name in ["match", "deps", "serde-json", "root"] {
        assert_eq!(nowwhat(dir.path(), &["new", name]).status.code(), Some(1), "{name}");
    }
    let nowhere = nowwhat(dir.path(), &["new", "shop", "--nowwhat-path", "nowhere"]);
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("there is no nowwhat in it; say where"), "{nowhere:?}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 1);
}

#[test]
fn where_nowwhat_comes_from_can_be_said() {
    let dir = tempfile::tempdir().expect("a folder");
    let entry = |folder: &str, args: &[&str]| {
        let output = nowwhat(dir.path(), &[&["new", "shop", "--path", folder], args].concat());
        assert!(output.status.success(), "{output:?}");
        let manifest = std::fs::read_to_string(dir.path().join(folder).join("Cargo.toml")).expect("it is there");
        manifest.lines().find_map(|line| line.strip_prefix("nowwhat = ")).expect("an entry").to_owned()
    };
    let git = "https://example.com/nowwhat.git";
    assert_eq!(entry("git", &["--nowwhat-git", git]), format!("{{ git = {git:?} }}"));
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nowwhat").canonicalize().expect("it is there");
    let path = beside.to_str().expect("a text");
    assert_eq!(entry("path", &["--nowwhat-path", path]), format!("{{ path = {path:?} }}"));
    assert_eq!(entry("unsaid", &[]), format!("{{ path = {path:?} }}"));
}
