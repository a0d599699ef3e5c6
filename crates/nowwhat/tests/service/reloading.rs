//! What a reload checks, takes over, and tells of the next start.

use axum::Router;
use nowwhat::config::{Loaded, Secret};
use nowwhat::testkit::TestServer;
use nowwhat::{Foundation, Service};
use std::path::Path;
use std::time::{Duration, Instant};

nowwhat::settings! {
    /// For these tests.
    struct Settings {
        /// The oven.
        oven: Oven {
            /// How hot.
            celsius: u32 = "220", range "50".."300", reload;
            /// How hot it may become.
            celsius_max: u32 = "300", range "50".."500";
            /// Its key.
            key: Option<Secret> = "", reload;
            /// What stands on its door.
            label: String = "an oven", reload;
        }
    }
}

fn too_hot(loaded: &Loaded) -> Vec<String> {
    let oven = Settings::from_loaded(loaded).oven;
    let problem = format!("oven.celsius = {}: allowed is up to oven.celsius_max, {}", oven.celsius, oven.celsius_max);
    if oven.celsius > oven.celsius_max { vec![problem] } else { Vec::new() }
}

/// A service that serves with the settings of the file.
fn serving(file: &Path, text: &str) -> TestServer {
    std::fs::write(file, text).expect("written");
    let service = Service::new(nowwhat::version!("hello"), Settings::specs()).check(too_hot);
    TestServer::start(
        &service,
        |config| config.file(file),
        async |boot: &mut nowwhat::Boot| {
            boot.on_reload(|loaded| async move {
                let (oven, stop) = (Settings::from_loaded(&loaded).oven, Foundation::from_loaded(&loaded).stop);
                let grace = stop.grace_seconds.0;
                tracing::info!(
                    celsius = oven.celsius,
                    celsius_max = oven.celsius_max,
                    label = oven.label,
                    grace,
                    "in force"
                );
                Ok(())
            });
            Ok(Router::new())
        },
    )
}

const NEXT: &str = "the next start would fail: settings that take a restart have problems";

#[test]
fn what_only_a_restart_takes_over_is_told_and_holds_up_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("hello.toml");
    let server = serving(&file, "");
    let text = "[http]\ninsecure = \"treu\"\ntls_key = \"/nowhere.pem\"\n[oven]\ncelsius = 100\ncelsius_max = 60\n\
                label = \"insecure: ${http.insecure}\"\n";
    std::fs::write(&file, text).expect("written");
    server.reload();
    let told = server.line(NEXT);
    assert_eq!(told["severity"], "ERROR");
    let problems = told["problems"].as_str().expect("a text");
    for part in [
        "http.insecure = \"treu\": expected true or false",
        "http.tls_key is given without http.tls_certificate",
        "http.tls_key: cannot read the private key in /nowhere.pem",
        "oven.celsius = 100: allowed is up to oven.celsius_max, 60",
    ] {
        assert!(problems.contains(part), "{part} in {problems}");
    }
    assert_eq!(server.line("reloaded")["changed"], "oven.celsius");
    let waiting = server.line("changed settings that take a restart");
    assert_eq!(waiting["settings"], "http.tls_key oven.celsius_max oven.label");
    let in_force = server.line("in force");
    assert_eq!((&in_force["celsius"], &in_force["celsius_max"]), (&100.into(), &300.into()));
    assert_eq!(in_force["label"], "an oven", "what it is made of waits");
}

#[test]
fn what_waits_for_a_restart_stays_as_it_is_in_force_and_not_as_it_was_at_the_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("hello.toml");
    let server = serving(&file, "");
    let labels = || -> Vec<_> {
        let lines = server.lines().into_iter().filter(|line| line["message"] == "in force");
        lines.map(|line| line["label"].as_str().unwrap_or_default().to_owned()).collect()
    };
    for (text, expected) in [
        ("[oven]\nlabel = \"a hot oven\"\n", "a hot oven"),
        ("[http]\ninsecure = true\n[oven]\ncelsius = 100\nlabel = \"insecure: ${http.insecure}\"\n", "a hot oven"),
    ] {
        std::fs::write(&file, text).expect("written");
        let before = labels().len();
        server.reload();
        let deadline = Instant::now() + Duration::from_secs(20);
        while labels().len() == before {
            assert!(Instant::now() < deadline, "{:?}", server.lines());
            std::thread::yield_now();
        }
        assert_eq!(labels().last().map(String::as_str), Some(expected));
    }
}

#[test]
fn what_would_be_in_force_is_checked_and_not_what_was_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("hello.toml");
    let server = serving(&file, "[oven]\ncelsius_max = 230\n");
    std::fs::write(&file, "[oven]\ncelsius = 250\ncelsius_max = 400\n[stop]\ngrace_seconds = \"5s\"\n")
        .expect("written");
    server.reload();
    let refused = server.line("not reloaded: the configuration has problems, nothing was changed");
    assert_eq!(refused["problems"], "oven.celsius = 250: allowed is up to oven.celsius_max, 230");
    assert!(server.lines().iter().all(|line| line["message"] != "in force" && line["message"] != "reloaded"));
}

#[test]
fn a_secrets_file_that_became_empty_is_told_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let (file, key) = (dir.path().join("hello.toml"), dir.path().join("key"));
    std::fs::write(&key, "hidden").expect("written");
    let text = format!("[oven]\nkey_file = \"{}\"\n", key.display());
    let server = serving(&file, &text);
    std::fs::write(&key, "\n").expect("written");
    std::fs::write(&file, text + "celsius = 100\n").expect("written");
    server.reload();
    let refused = server.line("not reloaded: the configuration has problems, nothing was changed");
    let problems = refused["problems"].as_str().expect("a text");
    assert!(problems.contains("oven.key: ") && problems.contains("/key is empty"), "{problems}");
    assert!(server.lines().iter().all(|line| line["message"] != "in force"));
}

#[test]
fn authorities_that_are_gone_hold_up_no_reload() {
    let dir = tempfile::tempdir().expect("a folder");
    let (file, ca) = (dir.path().join("hello.toml"), dir.path().join("ca.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&ca, made.cert.pem()).expect("written");
    let text = format!("[otlp]\nca = \"{}\"\n[oven]\n", ca.display());
    let server = serving(&file, &text);
    std::fs::remove_file(&ca).expect("removed");
    std::fs::write(&file, text + "celsius = 100\n").expect("written");
    server.reload();
    let told = server.line(NEXT);
    assert!(told["problems"].as_str().is_some_and(|problems| problems.starts_with("otlp.ca: cannot read")), "{told}");
    assert_eq!(server.line("reloaded")["changed"], "oven.celsius");
}
