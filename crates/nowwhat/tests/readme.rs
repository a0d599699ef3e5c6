//! README.md tells the truth: its page is the example, its build script tells the commit, what it shows is what the example says.

mod running;

use running::{Hello, LOCAL, ask};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../README.md");
const PAGE: &str = include_str!("../examples/hello.rs");

/// The code blocks of a language, such as `json`.
fn blocks(language: &str) -> impl Iterator<Item = &'static str> {
    let blocks = README.split("\n```").filter_map(|block| block.split_once('\n'));
    blocks.filter(move |(of, _)| *of == language).map(|(_, text)| text)
}

/// What a program writes on standard output, run in a folder.
fn said(command: &mut Command, folder: &Path) -> String {
    let output = command.current_dir(folder).output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a text")
}

#[test]
fn the_page_shown_is_the_example() {
    assert!(blocks("rust,no_run").any(|block| block.trim() == PAGE.trim()));
}

#[test]
fn the_build_script_shown_tells_the_commit_and_does_without_git() {
    let script = blocks("rust,no_run").find(|block| block.starts_with("//! build.rs")).expect("a build script");
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("build.rs"), script).expect("written");
    said(Command::new("rustc").args(["--edition", "2024", "build.rs", "-o", "script"]), dir.path());
    let run = || Command::new(dir.path().join("script"));

    let nowhere = tempfile::tempdir().expect("a folder");
    let without = said(run().env_remove("BUILD_COMMIT").env("GIT_CEILING_DIRECTORIES", dir.path()), nowhere.path());
    assert_eq!(without, "cargo::rerun-if-env-changed=BUILD_COMMIT\n");
    let given = said(run().env("BUILD_COMMIT", "abc"), nowhere.path());
    assert!(given.contains("cargo::rustc-env=BUILD_COMMIT=abc\n"), "{given}");

    let git = || {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=baker", "-c", "user.email=baker@example.org"]);
        git
    };
    let package = nowhere.path().join("crates/bakery");
    std::fs::create_dir_all(&package).expect("a folder");
    said(git().args(["init", "--quiet"]), nowhere.path());
    said(git().args(["commit", "--quiet", "--allow-empty", "--message", "begin"]), nowhere.path());
    let commit = said(git().args(["rev-parse", "HEAD"]), nowhere.path());
    let told = said(run().env_remove("BUILD_COMMIT"), &package);
    assert!(told.contains(&format!("cargo::rustc-env=BUILD_COMMIT={commit}")), "{told}");
    let watched = told.lines().find_map(|line| line.strip_prefix("cargo::rerun-if-changed=")).expect("a file");
    assert!(package.join(watched).is_file(), "{watched} is there, else cargo builds again every time");
}

#[test]
fn what_is_shown_is_what_the_example_says() {
    let names = |object: &Value| object.as_object().expect("an object").keys().cloned().collect::<BTreeSet<_>>();
    let shown: Vec<Value> = blocks("json").flat_map(str::lines).filter_map(|l| serde_json::from_str(l).ok()).collect();
    let [greeted, request, problem] = shown.as_slice() else { panic!("two lines and a problem: {shown:?}") };

    let hello = Hello::start(&[]);
    assert_eq!(ask(hello.address, LOCAL, "GET /hello/moon", &[]).body, "{\"text\":\"Hello, moon!\"}");
    let answer = ask(hello.address, LOCAL, "GET /nowhere", &[]).json();
    assert_eq!((names(&answer), &answer["detail"]), (names(problem), &problem["detail"]));
    for line in [greeted, request] {
        let message = line["message"].as_str().expect("a message");
        assert_eq!(names(&hello.line(message)), names(line), "{message}");
    }
    let metrics = ask(hello.admin_address, LOCAL, "GET /metrics", &[]).body;
    let ready = ask(hello.admin_address, LOCAL, "GET /readyz", &[]).body;
    let lines: Vec<&str> = blocks("text").flat_map(str::lines).collect();
    let is_sample = |line: &&&str| line.starts_with("http_requests_total") || line.starts_with("greetings");
    let samples: Vec<_> = lines.iter().filter(is_sample).collect();
    assert_eq!(samples.len(), 3, "{samples:?}");
    assert!(samples.iter().all(|sample| metrics.lines().any(|line| line == **sample)), "{samples:?} in {metrics}");
    assert!(lines.contains(&ready.as_str()), "{ready}");
}
