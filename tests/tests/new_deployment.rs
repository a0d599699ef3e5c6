//! What a service that is not the collector is deployed with is taken by the tools that read it: rules, manifests, playbooks, units.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tests::{has_prometheus, installed, program, said, skipped};

const NAME: &str = "shop-window";

/// What `systemd-analyze security` may count at most, of 10.
const EXPOSURE_MAX: f64 = 2.0;

fn told(output: &Output) -> String {
    said(output) + &String::from_utf8_lossy(&output.stderr)
}

/// Runs a command to its end, which has to be good.
fn done(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", told(&output));
    told(&output)
}

/// The folder `deploy` of a new service.
fn deploy(dir: &Path) -> PathBuf {
    done(Command::new(program().with_file_name("nowwhat")).args(["new", NAME]).current_dir(dir));
    dir.join(NAME).join("deploy")
}

/// Whether a tool is here; says that the test is skipped when it is not.
fn has(tool: &str) -> bool {
    let has = Command::new(tool).arg("--help").output().is_ok();
    if !has {
        skipped(&format!("{tool} is not installed: .ci/run installs it"));
    }
    has
}

#[test]
fn its_rules_are_valid_and_each_alert_fires() {
    let dir = tempfile::tempdir().expect("a folder");
    let service = deploy(dir.path()).parent().expect("a folder").to_path_buf();
    let (folder, variables) = (service.join("deploy/prometheus"), service.join("deploy/nowwhat.toml"));
    let text = std::fs::read_to_string(&variables).expect("the variables");
    for slow in ["[]", "['/v1/export.csv', '/things/{id}', '/files/{*path}']"] {
        std::fs::write(&variables, text.replace("slow_routes = []", &format!("slow_routes = {slow}")))
            .expect("written");
        done(Command::new(program().with_file_name("nowwhat")).arg("deploy").current_dir(&service));
        if has_prometheus() {
            done(Command::new("promtool").args(["check", "config", "prometheus.yml"]).current_dir(&folder));
            done(Command::new("promtool").args(["test", "rules", "service.rules.test.yml"]).current_dir(&folder));
        }
    }
}

#[test]
fn its_playbooks_and_its_role_are_clean_to_ansible_lint() {
    let Some(ansible) = installed("CATCHMENT_ANSIBLE", "bin/ansible-lint") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let mut lint = Command::new(deploy(dir.path()).join("ansible/run"));
    done(lint.args(["ansible-lint", "--offline", "--profile", "production"]).env("ANSIBLE_VENV", ansible));
}

#[test]
fn its_manifests_fit_the_published_schemas_of_kubernetes() {
    let Some(folder) = installed("CATCHMENT_KUBERNETES", "bin/kubernetes-validate") else { return };
    if !has("kubectl") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let manifests = Command::new("kubectl").arg("kustomize").arg(deploy(dir.path())).output().expect("it runs");
    assert!(manifests.status.success(), "{}", told(&manifests));
    let file = dir.path().join("manifests.yaml");
    std::fs::write(&file, &manifests.stdout).expect("written");
    let found = done(Command::new(folder.join("bin/kubernetes-validate")).arg("--strict").arg(&file));
    for kind in ["configmap", "service", "statefulset", "poddisruptionbudget"] {
        assert!(found.contains(&format!("passed for resource {kind}/{NAME}")), "{kind}: {found}");
    }
}

#[test]
fn its_package_takes_the_place_of_no_program_of_another_package() {
    if !has("dpkg-query") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let script = std::fs::read_to_string(deploy(dir.path()).join("package/preinst")).expect("a script");
    // Outside of /run, which it may not write.
    let script = script.replace("/run/", &format!("{}/", dir.path().display()));
    let installed = |name: &str| {
        let output = Command::new("sh").args(["-c", &script.replace(NAME, name), "preinst", "install"]).output();
        output.expect("sh runs")
    };
    assert!(installed(NAME).status.success(), "{}", told(&installed(NAME)));
    for (name, place) in [
        ("ls", "ls is there already, of the package coreutils"),
        ("sh", "sh is there already, of the package dash"),
        ("awk", "awk is there already, a link of update-alternatives"),
    ] {
        let refused = installed(name);
        assert!(refused.status.code() == Some(1) && told(&refused).contains(place), "{name}: {}", told(&refused));
    }
}

#[test]
fn systemd_understands_its_units_and_exposes_the_service_less_than_2_of_10() {
    if !has("systemd-analyze") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let folder = deploy(dir.path()).join("systemd");
    let (service, sockets) =
        (format!("./{NAME}.service"), [format!("./{NAME}.socket"), format!("./{NAME}-admin.socket")]);
    // The program under test in place of one that is not installed.
    let unit = std::fs::read_to_string(folder.join(&service)).expect("a unit");
    let unit = unit.replace(&format!("/usr/bin/{NAME}"), &program().display().to_string());
    std::fs::write(folder.join(&service), unit).expect("written");
    let analyze =
        |args: &[&str]| Command::new("systemd-analyze").args(args).current_dir(&folder).output().expect("it runs");

    let output = analyze(&["verify", "--man=no", &service, &sockets[0], &sockets[1]]);
    let complaints = told(&output);
    // Before 253 it keeps the type that stands above this one.
    let known = "Failed to parse service type, ignoring: notify-reload";
    assert!(output.status.success() && complaints.lines().all(|line| line.contains(known)), "{complaints}");

    let report = told(&analyze(&["security", "--offline=true", "--no-pager", &service]));
    let level =
        report.split("exposure level for shop-window.service:").nth(1).and_then(|rest| rest.split_whitespace().next());
    let level: f64 = level.and_then(|level| level.parse().ok()).expect("a level");
    assert!(level < EXPOSURE_MAX, "{report}");
}
