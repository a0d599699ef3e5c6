//! What is too slow for `make test` says on which commit it last passed, and says it only of a commit.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tests::skipped;

/// Behind the commit of a proof that shows more or other things by now.
const CHANGED: &str = ", changed since";
const TABLE: &str = "deploy/test/README.md";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

fn git(folder: &Path, arguments: &[&str]) -> Output {
    let by = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
    Command::new("git").args(by).args(arguments).current_dir(folder).output().expect("git runs")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Name and last column of each row.
fn rows(table: &str) -> Vec<(String, String)> {
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.map(|row| row.trim_end_matches(" |").split(" | ").collect::<Vec<_>>());
    cells.map(|cells| (cells[0].trim_end_matches('`').to_owned(), (*cells.last().expect("cells")).to_owned())).collect()
}

#[test]
fn each_has_a_row_that_names_a_commit_of_this_history_or_says_that_it_never_passed_whole() {
    let rows = rows(&std::fs::read_to_string(root().join(TABLE)).expect("the table"));
    let mut proofs: Vec<String> = std::fs::read_dir(root().join("deploy/test"))
        .expect("the folder")
        .flatten()
        .filter(|entry| entry.path().is_file() && entry.file_name() != "README.md")
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    proofs.sort();
    proofs.push("soak".to_owned());
    assert_eq!(rows.iter().map(|(proof, _)| proof.clone()).collect::<Vec<_>>(), proofs);
    let whole = git(&root(), &["rev-parse", "--is-shallow-repository"]);
    if !whole.status.success() || stdout(&whole) != "false" {
        return skipped("this is no clone with its whole history");
    }
    for (proof, passed) in rows.iter().filter(|(_, passed)| passed != "never whole") {
        let commit = passed.split('`').nth(1).unwrap_or_else(|| panic!("{proof}: {passed} names no commit"));
        let ancestor = git(&root(), &["merge-base", "--is-ancestor", commit, "HEAD"]);
        assert!(ancestor.status.success(), "{proof}: {commit} is no commit of this history");
        let script = format!("deploy/test/{proof}");
        let changed = !git(&root(), &["diff", "--quiet", commit, "HEAD", "--", &script]).status.success();
        assert_eq!(
            changed,
            passed.ends_with(CHANGED),
            "{proof}: what {script} shows was changed since {commit}, or not"
        );
    }
}

#[test]
fn a_proof_that_passes_is_noted_on_a_commit_alone_and_with_what_made_it_shorter() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path();
    std::fs::create_dir_all(folder.join("deploy/test/lib")).expect("made");
    std::fs::copy(root().join("deploy/test/lib/prove"), folder.join("deploy/test/lib/prove")).expect("copied");
    let table = "| proof | last passed on |\n|---|---|\n| `hosts` | never whole |\n| `hosts-more` | never whole |\n";
    std::fs::write(folder.join(TABLE), table).expect("written");
    stdout(&git(folder, &["init", "--quiet"]));
    stdout(&git(folder, &["add", "."]));
    stdout(&git(folder, &["commit", "--quiet", "--message", "Begin"]));
    let commit = stdout(&git(folder, &["rev-parse", "--short=12", "HEAD"]));
    let prove = |proof: &str, command: &str, options: &[(&str, &str)]| {
        let mut prove = Command::new(folder.join("deploy/test/lib/prove"));
        for option in ["PROGRAM", "OLD", "NEW", "SUITE", "UPGRADES"] {
            prove.env_remove(option);
        }
        let output = prove.args([proof, command]).envs(options.iter().copied()).output().expect("it runs");
        let noted = rows(&std::fs::read_to_string(folder.join(TABLE)).expect("the table"));
        (output.status.success(), noted.into_iter().map(|(_, passed)| passed).collect::<Vec<_>>())
    };
    let never = "never whole".to_owned();
    assert_eq!(prove("hosts", "false", &[]), (false, vec![never.clone(), never.clone()]), "it failed");
    assert_eq!(prove("unknown", "true", &[]), (false, vec![never.clone(), never.clone()]), "it has no row");
    std::fs::write(folder.join("changed"), "").expect("written");
    assert_eq!(prove("hosts", "true", &[]), (true, vec![never.clone(), never.clone()]), "it was no commit");
    std::fs::remove_file(folder.join("changed")).expect("removed");
    assert_eq!(prove("hosts", "true", &[]), (true, vec![format!("`{commit}`"), never.clone()]));
    let programs = tempfile::tempdir().expect("a folder");
    let program = |commit: &str| {
        let file = programs.path().join(commit);
        std::fs::write(&file, format!("#!/bin/sh\necho program 1.0 '({commit})'\n")).expect("written");
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
        file.display().to_string()
    };
    let (other, same) = (program("another"), program(&stdout(&git(folder, &["rev-parse", "HEAD"]))));
    let noted = vec![format!("`{commit}`"), never];
    assert_eq!(prove("hosts-more", "true", &[("PROGRAM", &other)]), (true, noted), "it was of another commit");
    let shorter = format!("`{commit}` with PROGRAM SUITE");
    let options = [("PROGRAM", same.as_str()), ("SUITE", "trixie")];
    assert_eq!(prove("hosts-more", "true", &options), (true, vec![format!("`{commit}`"), shorter]));
}

#[test]
fn a_soak_that_make_only_shows_is_none_and_none_is_made_shorter() {
    let mut make = Command::new("make");
    let shown =
        make.args(["--dry-run", "test-soak", "OVERLOAD=--seconds 20", "FUZZ=--seconds 1"]).env_remove("MAKEFLAGS");
    let shown = stdout(&shown.current_dir(root()).output().expect("make runs"));
    assert!(!shown.contains("passed"), "{shown}");
    let command = shown.lines().find_map(|line| line.split_once("prove soak ")).expect("the soak").1;
    let mut inner = Command::new("bash");
    let inner = inner
        .args(["-c", &format!("{command} --dry-run")])
        .env("MAKEFLAGS", " -- OVERLOAD=--seconds\\ 20 FUZZ=--seconds\\ 1");
    let inner = stdout(&inner.current_dir(root()).output().expect("make runs"));
    let whole = inner.lines().all(|line| !line.contains("--seconds 20") && !line.contains("--seconds 1"));
    assert!(whole && inner.contains("--bench overload") && inner.contains("fuzz/run --seconds 600"), "{inner}");
}
