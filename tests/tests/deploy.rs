//! What `deploy/` says to Ansible and to Kubernetes is what they, and the program, can take. Deploying for real is `make test-deploy`.

use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tests::{blocks, catchment_with, installed, program, said, skipped};

const ENVIRONMENTS: [&str; 4] = ["dev", "qa", "staging", "prod"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn told(output: &Output) -> String {
    said(output) + &String::from_utf8_lossy(&output.stderr)
}

fn config_check(environment: &str, variables: &[(&str, &str)]) -> Output {
    let file = root().join("deploy/config/catchment.toml");
    let file = file.to_str().expect("a text");
    let dir = tempfile::tempdir().expect("a folder");
    catchment_with(dir.path(), &["config", "check", "--config", file, "--env", environment], b"", variables)
}

#[test]
fn the_configuration_of_every_environment_is_valid() {
    for environment in ENVIRONMENTS {
        let output = config_check(environment, &[]);
        assert!(output.status.success(), "{environment}: {}", told(&output));
        let file = root().join(format!("deploy/config/catchment.{environment}.toml"));
        assert!(file.exists(), "{}", file.display());
    }
    assert_eq!(config_check("production", &[]).status.code(), Some(2));
}

#[test]
fn the_playbooks_and_the_role_are_clean_to_ansible_lint() {
    let Some(ansible) = installed("CATCHMENT_ANSIBLE", "bin/ansible-lint") else { return };
    let mut lint = Command::new(root().join("deploy/ansible/run"));
    let lint = lint.args(["ansible-lint", "--offline", "--profile", "production"]).env("ANSIBLE_VENV", ansible);
    let output = run(lint);
    assert!(output.status.success(), "{}", told(&output));
}

#[test]
fn every_environment_has_an_inventory_that_says_its_name() {
    for environment in ENVIRONMENTS {
        let folder = root().join("deploy/ansible/inventories").join(environment);
        let variables = std::fs::read_to_string(folder.join("group_vars/all/main.yml")).expect("its variables");
        assert!(variables.contains(&format!("service_environment: {environment}\n")), "{environment}: {variables}");
        let hosts = std::fs::read_to_string(folder.join("hosts.yml")).expect("its hosts");
        assert!(hosts.contains("service:\n  hosts:\n"), "{environment}: {hosts}");
    }
}

#[test]
fn secrets_in_the_repository_are_encrypted() {
    for environment in ENVIRONMENTS {
        let folder = root().join("deploy/ansible/inventories").join(environment);
        let file = folder.join("group_vars/all/secrets.yml");
        let text = std::fs::read_to_string(&file).unwrap_or_else(|_| "$ANSIBLE_VAULT".to_owned());
        assert!(text.starts_with("$ANSIBLE_VAULT"), "{} is in clear: ansible-vault encrypt it", file.display());
    }
}

#[test]
fn a_deployment_without_environment_or_package_is_refused_and_says_what_is_missing() {
    let make =
        |arguments: &[&str]| run(Command::new("make").args(arguments).env_remove("MAKEFLAGS").current_dir(root()));
    for (arguments, missing) in [
        (["deploy", "PACKAGE=Makefile"].as_slice(), "ENV=qa"),
        (&["deploy", "ENV=nowhere", "PACKAGE=Makefile"], "ENV=qa"),
        (&["deploy", "ENV=qa", "PACKAGE=none.deb"], "PACKAGE=dist/"),
        (&["stage", "PACKAGE=none.deb"], "PACKAGE=dist/"),
        (&["rollback"], "ENV=qa"),
    ] {
        let output = make(arguments);
        assert!(output.status.code() == Some(2) && told(&output).contains(missing), "{arguments:?}: {output:?}");
    }
    let staged = told(&make(&["--dry-run", "stage", "ENV=prod", "PACKAGE=Makefile"]));
    assert!(staged.contains("--inventory inventories/staging ") && !staged.contains("prod"), "{staged}");
}

/// Here and in a new service: `VERSION=1.5.0 make release` as well as `make release VERSION=1.5.0`, which goes first.
#[test]
fn what_is_said_before_make_counts_as_much_as_what_is_said_behind_it_and_a_path_may_have_blanks() {
    let dir = tempfile::tempdir().expect("a folder");
    let made = run(Command::new(program().with_file_name("nowwhat")).args(["new", "shop-window"]).current_dir(&dir));
    assert!(made.status.success(), "{}", told(&made));
    let package = dir.path().canonicalize().expect("it is there").join("a package.deb");
    std::fs::write(&package, "").expect("written");
    let named = package.to_str().expect("a text");
    let show = "--eval=show: ; @echo \"$$PROGRAM\"";
    for folder in [root(), dir.path().join("shop-window")] {
        for (arguments, name, value, expected) in [
            (["--dry-run", "release"].as_slice(), "VERSION", "1.5.0", "deploy/release 1.5.0\n"),
            (&["deploy", "ENV=qa", "PLAY=echo"], "PACKAGE", named, &format!("{{\"service_package\": \"{named}\"}}\n")),
            (&["deploy", "ENV=qa", "PLAY=echo"], "ANSIBLE", "--limit one", "--limit one\n"),
            (&["--dry-run", "deny"], "DENY", "bans", " check bans\n"),
            (&[show, "show"], "PROGRAM", "a/program", "a/program\n"),
        ] {
            let mut make = Command::new("make");
            // Under another make it would tell its folders as well.
            make.args(arguments).env_remove("MAKEFLAGS").env_remove("MAKELEVEL").current_dir(&folder);
            if name == "ANSIBLE" {
                make.env("PACKAGE", named);
            }
            let output = told(&run(make.env(name, value)));
            assert!(output.ends_with(expected), "{name} before make in {}: {output}", folder.display());
            let output = told(&run(make.env(name, "another").arg(format!("{name}={value}"))));
            assert!(output.ends_with(expected), "{name} behind make in {}: {output}", folder.display());
        }
    }
}

#[test]
fn a_deployment_that_ends_with_an_error_lets_others_deploy_and_keeps_its_exit_code() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("bin")).expect("made");
    let requirements = root().join("deploy/ansible/requirements.txt");
    std::fs::copy(requirements, dir.path().join("requirements.txt")).expect("copied");
    let calls = dir.path().join("calls");
    let playbook = dir.path().join("bin/ansible-playbook");
    let deployment = |code: u8| {
        let script = format!("#!/bin/sh\necho \"$SERVICE_DEPLOYER: $*\" >>{}\nexit {code}\n", calls.display());
        std::fs::write(&playbook, script).expect("written");
        std::fs::set_permissions(&playbook, PermissionsExt::from_mode(0o755)).expect("may be run");
        let mut deploy = Command::new(root().join("deploy/ansible/run"));
        let output = run(deploy.args(["ansible-playbook", "deploy.yml"]).env("ANSIBLE_VENV", dir.path()));
        let called = std::fs::read_to_string(&calls).expect("it was called");
        std::fs::remove_file(&calls).expect("removed");
        (output, called.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let (lost, called) = deployment(4);
    assert_eq!(lost.status.code(), Some(4), "{lost:?}");
    assert!(told(&lost).contains("systemctl stop catchment-deployment.service"), "{lost:?}");
    assert_eq!(called.len(), 2, "{called:?}");
    assert!(called[0].contains("deploys catchment since") && called[0].ends_with(": deploy.yml"), "{called:?}");
    assert_eq!(called[1], format!("{} --tags unlock", called[0]));
    let (done, called) = deployment(0);
    assert_eq!((done.status.code(), called.len()), (Some(0), 1), "{done:?}");
}

/// Everything that `kubectl apply --kustomize FOLDER` would send, as YAML.
fn manifests(folder: &Path) -> Option<String> {
    let Ok(output) = Command::new("kubectl").arg("kustomize").arg(folder).output() else {
        skipped("kubectl is not installed");
        return None;
    };
    assert!(output.status.success(), "{}", told(&output));
    Some(said(&output))
}

/// What the schemas of Kubernetes say of manifests.
fn validated(folder: &Path, manifests: &str) -> Output {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), manifests).expect("written");
    run(Command::new(folder.join("bin/kubernetes-validate")).arg("--strict").arg(file.path()))
}

#[test]
fn the_manifests_fit_the_published_schemas_of_kubernetes() {
    let Some(folder) = installed("CATCHMENT_KUBERNETES", "bin/kubernetes-validate") else { return };
    let Some(manifests) = manifests(&root().join("deploy")) else { return };
    let output = validated(&folder, &manifests);
    assert!(output.status.success(), "{}", told(&output));
    for kind in ["configmap", "service", "statefulset", "poddisruptionbudget"] {
        assert!(told(&output).contains(&format!("passed for resource {kind}/catchment")), "{kind}: {}", told(&output));
    }
    for (right, wrong) in
        [("replicas: 1", "replicas: one"), ("runAsNonRoot", "runAsNobody"), ("maxUnavailable", "most")]
    {
        assert!(!validated(&folder, &manifests.replace(right, wrong)).status.success(), "{wrong} is taken");
    }
}

#[test]
fn the_kustomization_of_the_document_makes_another_environment() {
    let document = std::fs::read_to_string(root().join("docs/DEPLOY.md")).expect("the document");
    let kustomization = blocks(&document, "yaml").into_iter().find(|block| block.contains("kind: Kustomization"));
    let dir = tempfile::tempdir().expect("a folder");
    let staging = dir.path().join("staging");
    std::fs::create_dir(&staging).expect("made");
    std::fs::write(staging.join("kustomization.yaml"), kustomization.expect("it is there")).expect("written");
    let copied = run(Command::new("cp").arg("-r").arg(root().join("deploy")).arg(dir.path()));
    assert!(copied.status.success(), "{}", told(&copied));
    let Some(manifests) = manifests(&staging) else { return };
    for part in ["CATCHMENT_ENV: staging", "namespace: staging", "image: registry.example.com/catchment:1.2.0"] {
        assert!(manifests.contains(part), "{part} is not in {manifests}");
    }
    assert!(!manifests.contains("CATCHMENT_ENV: prod"), "{manifests}");
}

/// The check that the models of the operator make of its own schemas.
const OPERATOR: &str = r#"
import * as operator from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import { readFileSync } from "node:fs";
const object = JSON.parse(readFileSync(0, "utf8"));
new operator[object.kind](object).validate();
"#;

/// Runs a command with a text on its standard input.
fn given(command: &mut Command, text: &str) -> Output {
    let input = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(input.path(), text).expect("written");
    run(command.stdin(std::fs::File::open(input.path()).expect("it opens")))
}

/// What the schemas of the Prometheus operator say of an object.
fn operated(folder: &Path, object: &Value) -> Output {
    given(Command::new("node").args(["--input-type=module", "-e", OPERATOR]).current_dir(folder), &object.to_string())
}

fn objects(folder: &Path, yaml: &str) -> Vec<Value> {
    let to_json = "import json, sys, yaml; print(json.dumps([*filter(None, yaml.safe_load_all(sys.stdin))]))";
    let output = given(Command::new(folder.join("bin/python")).args(["-c", to_json]), yaml);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", told(&output)))
}

#[test]
fn the_service_monitor_fits_the_schema_of_the_prometheus_operator() {
    let Some(folder) = installed("CATCHMENT_KUBERNETES", "node_modules/@kubernetes-models/prometheus-operator") else {
        return;
    };
    let file = std::fs::read_to_string(root().join("deploy/kubernetes/servicemonitor.yaml")).expect("the manifest");
    let mut monitor = objects(&folder, &file).remove(0);
    let output = operated(&folder, &monitor);
    assert!(output.status.success(), "{}", told(&output));
    monitor["spec"]["endpoints"][0]["port"] = 4712.into();
    let wrong = told(&operated(&folder, &monitor));
    assert!(wrong.contains("/spec/endpoints/0/port must be string"), "{wrong}");
}

#[test]
fn the_rules_become_objects_of_the_operator_by_the_command_of_the_document() {
    let Some(folder) = installed("CATCHMENT_KUBERNETES", "node_modules/@kubernetes-models/prometheus-operator") else {
        return;
    };
    let document = std::fs::read_to_string(root().join("docs/DASHBOARDS.md")).expect("the document");
    let command = blocks(&document, "sh").into_iter().find(|block| block.contains("kind: PrometheusRule"));
    let command = command.expect("it is there").replace("| kubectl apply --filename -", "");
    let output = run(Command::new("bash").args(["-euo", "pipefail", "-c", &command]).current_dir(root()));
    let rules = objects(&folder, &said(&output));
    assert_eq!(rules.len(), 2, "{}", told(&output));
    for (object, name) in rules.iter().zip(["service", "catchment"]) {
        let output = operated(&folder, object);
        assert!(output.status.success(), "{name}: {}", told(&output));
        let file = std::fs::read_to_string(root().join(format!("deploy/prometheus/{name}.rules.yml"))).expect("rules");
        assert_eq!(object["spec"], objects(&folder, &file)[0], "{name}");
        let mut wrong = object.clone();
        wrong["spec"]["groups"][0]["rules"][0]["expr"] = Value::Null;
        assert!(!operated(&folder, &wrong).status.success(), "{name} without an expression is taken");
    }
}

#[test]
fn what_a_pod_is_told_is_a_valid_configuration() {
    let set = std::fs::read_to_string(root().join("deploy/kubernetes/statefulset.yaml")).expect("the manifest");
    let secrets = tempfile::tempdir().expect("a folder");
    std::fs::write(secrets.path().join("auth.admin_token"), "a-token-of-the-secret-with-32-characters")
        .expect("written");
    let mut variables = vec![("CREDENTIALS_DIRECTORY", secrets.path().to_str().expect("a text"))];
    let names = set.lines().filter_map(|line| line.trim().strip_prefix("- name: ")).filter(|n| n.contains("__"));
    for name in names {
        let value = set.split_once(&format!("- name: {name}\n")).expect("it is there").1.lines().next();
        let value = value.and_then(|line| line.trim().strip_prefix("value: ")).expect("a value");
        variables.push((name, value.trim_matches('"')));
    }
    assert_eq!(variables.len(), 4, "{variables:?}");
    let output = config_check("prod", &variables);
    assert!(output.status.success(), "{}", told(&output));
}
