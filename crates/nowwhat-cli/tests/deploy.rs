//! `nowwhat deploy` writes what the templates give for a service, and tells what differs.

use std::path::Path;
use std::process::{Command, Output};

const VARIABLES: &str = r#"
name = "shop-window"
title = "Shop window"
description = "Shows what there is"
api_port = 8100
admin_port = 8101
memory_max = "256M"
maintainer = "Shop <shop@example.com>"
repository = "https://example.com/shop"
license = "MIT"
"#;

fn nowwhat(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nowwhat")).args(args).current_dir(folder).output().expect("it runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A folder with the variables of a service.
fn service() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("deploy")).expect("made");
    std::fs::write(dir.path().join("deploy/nowwhat.toml"), VARIABLES).expect("written");
    dir
}

/// All files below a folder.
fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        if entry.path().is_dir() { files(&entry.path(), found) } else { found.push(entry.path()) }
    }
}

#[test]
fn deploy_writes_what_differs_and_says_which_files() {
    let dir = service();
    let first = nowwhat(dir.path(), &["deploy"]);
    let told = said(&first);
    assert!(first.status.success() && told.contains("deploy/package/build\n"), "{told}");
    let again = said(&nowwhat(dir.path(), &["deploy"]));
    assert!(again.starts_with("0 of "), "{again}");

    std::fs::write(dir.path().join("deploy/package/build"), "changed by hand").expect("written");
    assert!(said(&nowwhat(dir.path(), &["deploy"])).starts_with("deploy/package/build\n1 of "));
    let text = std::fs::read_to_string(dir.path().join("deploy/package/build")).expect("it is there");
    assert!(text.contains("shop-window") && !text.contains("<<"), "{text}");
    // It can be run.
    let syntax = Command::new("bash").arg("-n").arg(dir.path().join("deploy/package/build")).status();
    assert!(syntax.expect("bash runs").success());
    use std::os::unix::fs::PermissionsExt;
    let mode = dir.path().join("deploy/package/build").metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o100, 0o100);
}

#[test]
fn what_is_the_services_own_is_begun_where_it_is_missing_and_never_written_over() {
    let dir = service();
    let told = said(&nowwhat(dir.path(), &["deploy"]));
    let config = dir.path().join("deploy/config/shop-window.toml");
    for file in
        ["config/shop-window.toml", "config/shop-window.qa.toml", "ansible/inventories/prod/hosts.yml", "test/lib/load"]
    {
        assert!(told.contains(&format!("deploy/{file}, yours from now on\n")), "{file}: {told}");
    }
    // It has no setting of a service that `nowwhat new` writes.
    let text = std::fs::read_to_string(&config).expect("it is there");
    assert!(text.lines().all(|line| line.starts_with('#')), "{text}");

    std::fs::write(&config, "mine").expect("written");
    std::fs::remove_file(dir.path().join("deploy/config/shop-window.qa.toml")).expect("removed");
    assert!(nowwhat(dir.path(), &["deploy", "--check"]).status.success(), "it asks for what the templates give alone");
    let told = said(&nowwhat(dir.path(), &["deploy"]));
    assert!(told.starts_with("deploy/config/shop-window.qa.toml, yours from now on\n0 of "), "{told}");
    assert_eq!(std::fs::read_to_string(&config).expect("it is there"), "mine");
    assert_eq!(std::fs::read_to_string(dir.path().join("deploy/nowwhat.toml")).expect("it is there"), VARIABLES);
}

#[test]
fn check_writes_nothing_and_fails_naming_each_file_that_differs() {
    let dir = service();
    let check = || nowwhat(dir.path(), &["deploy", "--check"]);
    let missing = check();
    assert_eq!(missing.status.code(), Some(1));
    assert!(said(&missing).contains("\ndeploy/package/build"), "{}", said(&missing));
    let mut found = Vec::new();
    files(dir.path(), &mut found);
    assert_eq!(found, [dir.path().join("deploy/nowwhat.toml")]);

    nowwhat(dir.path(), &["deploy"]);
    std::fs::write(dir.path().join("deploy/own.yaml"), "a file of the service's own").expect("written");
    assert!(check().status.success(), "{}", said(&check()));
    std::fs::write(dir.path().join("deploy/package/build"), "changed by hand").expect("written");
    let changed = check();
    assert_eq!(changed.status.code(), Some(1));
    assert!(said(&changed).ends_with("writes it:\ndeploy/package/build\n"), "{}", said(&changed));
}

#[test]
fn no_sign_of_the_templates_is_left_in_what_they_give() {
    let dir = service();
    nowwhat(dir.path(), &["deploy"]);
    let mut found = Vec::new();
    files(&dir.path().join("deploy"), &mut found);
    for file in found {
        let text = std::fs::read_to_string(&file).expect("a text");
        for sign in ["<< ", "<%", "<#"] {
            assert!(!text.contains(sign), "{sign} in {}", file.display());
        }
        let path = file.to_string_lossy().into_owned();
        assert!(!path.contains("__") && !path.ends_with(".in"), "{path}");
    }
}

#[test]
fn a_folder_that_is_no_service_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let output = nowwhat(dir.path(), &["deploy"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).starts_with("nowwhat: cannot read ./deploy/nowwhat.toml: run this in the folder"),
        "{output:?}"
    );
    assert_eq!(nowwhat(dir.path(), &["deploy", "--nonsense"]).status.code(), Some(2));
}

#[test]
fn a_slow_route_is_left_out_of_the_objective_as_it_is_written_and_no_other_with_it() {
    let dir = service();
    let routes = "slow_routes = ['/v1/export.csv', '/things/{id}', '/files/{*path}']\n";
    std::fs::write(dir.path().join("deploy/nowwhat.toml"), format!("{VARIABLES}{routes}")).expect("written");
    let told = nowwhat(dir.path(), &["deploy"]);
    assert!(told.status.success(), "{}", said(&told));
    let rules = std::fs::read_to_string(dir.path().join("deploy/prometheus/service.rules.yml")).expect("rules");
    let of_latency = "route!~\"/livez|/readyz|/v1/export[.]csv|/things/[{]id[}]|/files/[{][*]path[}]\"";
    assert_eq!(rules.matches(of_latency).count(), 7 * 2 + 1, "{rules}");
}
