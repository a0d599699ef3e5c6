//! The collector's own `deploy/` is what the templates give, which serve every service; the page about moving one and the files of CI say
//! what is so.

use std::path::{Path, PathBuf};
use std::process::Command;
use tests::{blocks, program, skipped};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

/// The program that writes them.
fn nowwhat() -> PathBuf {
    program().with_file_name("nowwhat")
}

#[test]
fn what_the_collector_is_deployed_with_is_what_the_templates_give() {
    let output = Command::new(nowwhat()).args(["deploy", "--check"]).current_dir(root()).output().expect("it runs");
    assert!(output.status.success(), "run `make generated`: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_page_about_moving_a_service_shows_a_file_that_deploy_takes_and_commands_that_run() {
    let page = std::fs::read_to_string(root().join("docs/ADOPT.md")).expect("the page");
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("deploy")).expect("made");
    let variables = blocks(&page, "toml").into_iter().find(|block| block.starts_with("name = ")).expect("a file");
    std::fs::write(dir.path().join("deploy/nowwhat.toml"), variables).expect("written");
    let commands = blocks(&page, "sh");
    assert!(!commands.is_empty());
    for command in commands.iter().filter(|command| command.starts_with("nowwhat deploy")) {
        let command = command.replace("nowwhat ", &format!("{} ", nowwhat().display()));
        let output = Command::new("bash").args(["-euc", &command]).current_dir(dir.path()).output().expect("bash runs");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(dir.path().join("deploy/package/build").is_file());
    // What it puts together refers to files that are the service's own.
    match Command::new("kubectl").arg("kustomize").arg(dir.path().join("deploy")).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => skipped("kubectl is not installed"),
    }
}

/// What a CI file runs: the script that is the same by hand, and what its image is missing.
#[test]
fn each_ci_runs_the_script_that_runs_by_hand() {
    for file in [".github/workflows/ci.yml", ".gitlab-ci.yml"] {
        let text = std::fs::read_to_string(root().join(file)).expect("a file");
        let commands = text.lines().filter_map(|line| {
            let line = line.trim_start().strip_prefix("- ")?;
            let command = line.strip_prefix("run: ").unwrap_or(line);
            ["make", "cargo", "rustup", ".ci/"].iter().any(|word| command.starts_with(word)).then_some(command)
        });
        assert_eq!(commands.collect::<Vec<_>>(), ["rustup component add clippy rustfmt", ".ci/run"], "{file}");
    }
}
