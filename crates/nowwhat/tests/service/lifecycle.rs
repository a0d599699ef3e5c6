//! Start, stop, failure: in which order, how long, with which exit code.

use super::running::{Hello, LOCAL, ask, program};
use super::{has_role, other_role, run, service};
use axum::Router;
use nowwhat::Boot;
use nowwhat::routing::get;
use nowwhat::testkit::{TestServer, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use std::future::pending;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use tokio::sync::Notify;

fn status(address: SocketAddr, path: &str) -> u16 {
    ask(address, LOCAL, &format!("GET {path}"), &[]).status
}

/// A request whose answer nobody reads yet.
pub(super) fn begin(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).expect("sent");
    stream
}

fn messages(written: &str) -> Vec<Value> {
    written.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn a_second_signal_quits_at_once_whatever_the_drain() {
    let hello = Hello::start(&[("HELLO_STOP__DRAIN_SECONDS", "5m")]);
    hello.signal(Signal::TERM);
    wait_until("unready", || status(hello.admin_address, "/readyz") == 503);
    hello.signal(Signal::INT);
    let (code, written) = hello.end();
    assert_eq!(code, Some(1), "{written}");
    assert!(written.contains("hello: SIGINT came while stopping: quit at once"), "{written}");
}

#[test]
fn while_it_drains_it_is_unready_and_answers() {
    let hello = Hello::start(&[("HELLO_STOP__DRAIN_SECONDS", "5m")]);
    assert_eq!(status(hello.address, "/readyz"), 200);
    hello.signal(Signal::TERM);
    wait_until("unready", || status(hello.admin_address, "/readyz") == 503);
    assert_eq!(status(hello.address, "/readyz"), 503);
    assert_eq!(status(hello.address, "/livez"), 200);
    assert_eq!(status(hello.address, "/hello/moon"), 200);
}

#[test]
fn after_the_drain_its_listener_closes_and_it_ends() {
    let hello = Hello::start(&[("HELLO_STOP__DRAIN_SECONDS", "1s")]);
    hello.signal(Signal::TERM);
    let stopped = hello.line("stopped");
    assert!(stopped["seconds"].as_f64().is_some_and(|seconds| seconds >= 1.0), "{stopped}");
    assert!(TcpStream::connect(hello.address).is_err(), "the listener is closed");
    let (code, written) = hello.end();
    assert_eq!(code, Some(0), "{written}");
}

#[test]
fn steps_of_stopping_run_in_reverse_order_and_one_that_hangs_or_fails_does_not_keep_the_others_from_it() {
    if has_role() {
        run(async |boot: &mut Boot| {
            boot.on_stop("first", async { Ok(()) });
            boot.on_stop("hanging", pending());
            let error = std::io::Error::other("the till is stuck");
            boot.on_stop("failing", async move { Err(error.into()) });
            boot.on_stop("last", async { Ok(()) });
            Ok(Router::new())
        });
    }
    let settings = [("HELLO_STOP__GRACE_SECONDS", "1s"), ("HELLO_LOG__LEVEL", "debug")];
    let test = "lifecycle::steps_of_stopping_run_in_reverse_order_and_one_that_hangs_or_fails_does_not_keep_the_others_from_it";
    let hello = other_role(test, &settings).ready();
    hello.signal(Signal::TERM);
    let (code, written) = hello.end();
    assert_eq!(code, Some(1), "{written}");
    assert!(written.contains("hello: the till is stuck"), "{written}");
    let lines = messages(&written);
    let steps: Vec<_> =
        lines.iter().filter_map(|line| Some((line["step"].as_str()?, line["message"].as_str()?))).collect();
    let expected = [
        ("last", "stopped"),
        ("failing", "a step of stopping failed"),
        ("hanging", "a step of stopping takes too long"),
        ("first", "stopped"),
    ];
    assert_eq!(steps, expected);
    let end = lines.iter().find(|line| line["message"] == "stopped" && line["step"].is_null()).expect("the end");
    assert!(end["seconds"].as_f64().is_some_and(|seconds| (1.0..60.0).contains(&seconds)), "{end}");
}

#[test]
fn a_step_of_stopping_that_hangs_is_an_error_and_the_exit_code_says_so() {
    if has_role() {
        run(async |boot: &mut Boot| {
            boot.on_stop("hanging", pending());
            Ok(Router::new())
        });
    }
    let test = "lifecycle::a_step_of_stopping_that_hangs_is_an_error_and_the_exit_code_says_so";
    let hello = other_role(test, &[("HELLO_STOP__GRACE_SECONDS", "1s")]).ready();
    hello.signal(Signal::TERM);
    assert_eq!(hello.line("a step of stopping takes too long")["severity"], "ERROR");
    let (code, written) = hello.end();
    assert_eq!(code, Some(1), "{written}");
    assert!(written.contains("hello: the step hanging of stopping did not end within 1 s"), "{written}");
}

#[test]
fn what_a_start_had_opened_is_closed_in_order_when_it_fails_or_is_interrupted() {
    if has_role() {
        run(async |boot: &mut Boot| {
            for name in ["first", "last"] {
                boot.on_stop(name, async move {
                    tracing::info!(name, "closed");
                    Ok(())
                });
            }
            tracing::info!("opened");
            if boot.loaded.env == "qa" { pending().await } else { Err("the key is lost".into()) }
        });
    }
    let test = "lifecycle::what_a_start_had_opened_is_closed_in_order_when_it_fails_or_is_interrupted";
    for (env, expected) in [("prod", 1), ("qa", 0)] {
        let hello = other_role(test, &[("HELLO_ENV", env)]);
        hello.line("opened");
        if env == "qa" {
            hello.signal(Signal::TERM);
        }
        let (code, written) = hello.end();
        assert_eq!(code, Some(expected), "{written}");
        let lines = messages(&written);
        let closed: Vec<_> = lines.iter().filter(|l| l["message"] == "closed").map(|l| l["name"].as_str()).collect();
        assert_eq!(closed, [Some("last"), Some("first")], "{written}");
        assert_eq!(written.contains("hello: the key is lost"), expected == 1, "{written}");
    }
}

#[test]
fn a_task_that_panics_stops_the_service_and_one_that_ends_early_is_said() {
    if has_role() {
        run(async |boot: &mut Boot| {
            let end = Arc::new(Notify::new());
            let asked = end.clone();
            boot.task("crumbs", async {});
            boot.task("embers", async move {
                asked.notified().await;
                panic!("burnt");
            });
            Ok(Router::new().route("/end", get(async move || end.notify_one())))
        });
    }
    let test = "lifecycle::a_task_that_panics_stops_the_service_and_one_that_ends_early_is_said";
    let hello = other_role(test, &[]).ready();
    let early = hello.line("a task ended before the service stops");
    assert_eq!((&early["task"], &early["severity"]), (&"crumbs".into(), &"ERROR".into()));
    assert_eq!(status(hello.address, "/end"), 200);
    let panicked = hello.line("a task panicked");
    assert_eq!((&panicked["task"], &panicked["severity"]), (&"embers".into(), &"ERROR".into()));
    let (code, written) = hello.end();
    assert_eq!(code, Some(1), "{written}");
    assert!(written.ends_with("hello: the task embers panicked\n"), "{written}");
}

#[test]
fn a_task_has_ended_before_what_it_stands_on_is_closed() {
    struct Watching;
    impl Drop for Watching {
        fn drop(&mut self) {
            tracing::info!("embers out");
        }
    }
    if has_role() {
        run(async |boot: &mut Boot| {
            boot.on_stop("oven", async {
                tracing::info!("oven off");
                Ok(())
            });
            let watching = Watching;
            boot.task("embers", async move {
                pending::<()>().await;
                drop(watching);
            });
            Ok(Router::new())
        });
    }
    let hello = other_role("lifecycle::a_task_has_ended_before_what_it_stands_on_is_closed", &[]).ready();
    let written = hello.stop();
    let at = |text: &str| written.find(text).unwrap_or_else(|| panic!("{text} in {written}"));
    assert!(at("embers out") < at("oven off"), "{written}");
}

#[test]
fn two_signals_that_come_together_are_one() {
    let hello = Hello::start(&[("HELLO_STOP__DRAIN_SECONDS", "1s")]);
    hello.signal(Signal::TERM);
    std::thread::sleep(std::time::Duration::from_millis(5));
    hello.signal(Signal::TERM);
    let (code, written) = hello.end();
    assert_eq!(code, Some(0), "{written}");
}

#[test]
fn files_that_hang_hold_up_no_signal_and_the_reload_is_given_up() {
    if has_role() {
        // As a file on a network that is gone.
        let hang = |_: &nowwhat::config::Loaded| {
            let dir = nowwhat::Environment::of_process().get("HANG").map(std::path::PathBuf::from).expect("set");
            while dir.join("hang").exists() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Vec::new()
        };
        let service = service().check(hang);
        let done = service.run(service.sources(), nowwhat::Environment::of_process(), async |_| Ok(Router::new()));
        std::process::exit(i32::from(done.is_err()))
    }
    let dir = tempfile::tempdir().expect("a folder");
    let test = "lifecycle::files_that_hang_hold_up_no_signal_and_the_reload_is_given_up";
    let start = || other_role(test, &[("HANG", dir.path().to_str().expect("a path"))]).ready();
    let (stopped, given_up) = (start(), start());
    std::fs::write(dir.path().join("hang"), "").expect("written");
    for hello in [&stopped, &given_up] {
        hello.signal(Signal::HUP);
    }
    assert_eq!(status(stopped.address, "/livez"), 200);
    stopped.stop();
    let late = given_up.line("not reloaded: the configuration was not read");
    assert_eq!((&late["error"], &late["severity"]), (&"it took longer than 10 s".into(), &"ERROR".into()));
    given_up.signal(Signal::HUP);
    let hangs = given_up.nth_line(1, "not reloaded");
    assert!(hangs["error"].as_str().is_some_and(|error| error.contains("an earlier reload still reads")), "{hangs}");
    std::fs::remove_file(dir.path().join("hang")).expect("removed");
    let again = || {
        given_up.signal(Signal::HUP);
        std::thread::sleep(std::time::Duration::from_millis(20));
        given_up.written().contains("reloaded: nothing changed")
    };
    wait_until("reloaded", again);
    given_up.stop();
}

#[test]
fn what_a_part_did_not_take_over_is_not_told_as_changed_and_is_tried_again() {
    nowwhat::settings! {
        /// For this test.
        struct Settings {
            /// The oven.
            oven: Oven {
                /// How hot.
                celsius: u32 = "220", reload;
            }
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hello.toml");
    std::fs::write(&file, "").expect("written");
    let service = nowwhat::Service::new(nowwhat::version!("hello"), Settings::specs());
    let stuck = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let theirs = stuck.clone();
    let start = async move |boot: &mut Boot| {
        boot.on_reload(move |_| {
            let is_stuck = theirs.load(std::sync::atomic::Ordering::Relaxed);
            async move { if is_stuck { Err("the knob is stuck".into()) } else { Ok(()) } }
        });
        Ok(Router::new())
    };
    let server = TestServer::start(&service, |config| config.file(&file), start);
    std::fs::write(&file, "[oven]\ncelsius = 100\n[http]\nconnections_max = 7\n").expect("written");
    server.reload();
    let failed = server.line("not reloaded, what was in force before stays");
    assert_eq!((&failed["error"], &failed["settings"]), (&"the knob is stuck".into(), &"oven.celsius".into()));
    assert_eq!(server.line("reloaded")["message"], "not reloaded, what was in force before stays");
    let changed = || -> Vec<Value> {
        server.lines().into_iter().filter(|l| l["message"] == "reloaded").map(|l| l["changed"].clone()).collect()
    };
    assert_eq!(changed(), ["http.connections_max"]);
    stuck.store(false, std::sync::atomic::Ordering::Relaxed);
    server.reload();
    wait_until("taken over", || changed().len() == 2);
    assert_eq!(changed()[1], "oven.celsius");
    server.reload();
    assert!(server.line("reloaded: nothing changed")["changed"].is_null());
}

#[test]
fn a_start_that_fails_exits_with_the_chain_of_causes() {
    if has_role() {
        run(async |_: &mut Boot| {
            #[derive(Debug, thiserror::Error)]
            #[error("cannot open the shop")]
            struct Closed(#[source] std::io::Error);
            Err(Closed(std::io::Error::other("the key is lost")).into())
        });
    }
    let (code, written) = other_role("lifecycle::a_start_that_fails_exits_with_the_chain_of_causes", &[]).end();
    assert_eq!(code, Some(1), "{written}");
    let chain = "cannot open the shop: the key is lost";
    assert!(written.ends_with(&format!("hello: {chain}\n")), "{written}");
    assert!(messages(&written).iter().any(|line| line["error"] == chain && line["severity"] == "ERROR"), "{written}");

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let (code, written) = Hello::spawn(Command::new(program()), &[("HELLO_HTTP__LISTEN", &address)]).end();
    assert_eq!(code, Some(1), "{written}");
    assert!(written.contains(&format!("hello: cannot listen on {address}: Address already in use")), "{written}");
}

#[test]
fn a_start_that_hangs_ends_at_once_when_it_is_asked_to_stop() {
    if has_role() {
        run(async |_: &mut Boot| {
            tracing::info!("hanging");
            pending().await
        });
    }
    let hello = other_role("lifecycle::a_start_that_hangs_ends_at_once_when_it_is_asked_to_stop", &[]);
    hello.line("hanging");
    hello.signal(Signal::TERM);
    let (code, written) = hello.end();
    assert_eq!(code, Some(0), "{written}");
    assert!(written.contains("stopped while starting"), "{written}");
}

#[test]
fn a_service_that_cannot_go_on_stops_in_order_and_fails() {
    if has_role() {
        run(async |boot: &mut Boot| {
            let end = Arc::new(Notify::new());
            let asked = end.clone();
            boot.ends_when(pending());
            boot.ends_when(async move {
                asked.notified().await;
                "the flour is out".to_owned()
            });
            boot.on_stop("oven", async {
                tracing::info!("oven off");
                Ok(())
            });
            Ok(Router::new().route("/end", get(async move || end.notify_one())))
        });
    }
    let hello = other_role("lifecycle::a_service_that_cannot_go_on_stops_in_order_and_fails", &[]).ready();
    assert_eq!(status(hello.address, "/end"), 200);
    let (code, written) = hello.end();
    assert_eq!(code, Some(1), "{written}");
    let lines = messages(&written);
    let at =
        |message: &str| lines.iter().position(|line| line["message"] == message).unwrap_or_else(|| panic!("{message}"));
    assert!(at("stopping, because the service cannot go on") < at("oven off") && at("oven off") < at("stopped"));
    assert!(written.ends_with("hello: the flour is out\n"), "{written}");
}

#[test]
fn a_reload_that_hangs_does_not_hold_up_the_end() {
    if has_role() {
        run(async |boot: &mut Boot| {
            boot.on_reload(|_| async {
                tracing::info!("hanging");
                pending().await
            });
            Ok(Router::new())
        });
    }
    let hello = other_role("lifecycle::a_reload_that_hangs_does_not_hold_up_the_end", &[]).ready();
    hello.signal(Signal::HUP);
    hello.line("hanging");
    let written = hello.stop();
    assert!(written.contains("\"message\":\"stopped\""), "{written}");
}

#[test]
fn a_hangup_while_it_reloads_is_reloaded_after_it() {
    if has_role() {
        run(async |boot: &mut Boot| {
            let go = Arc::new(Notify::new());
            let waiting = go.clone();
            boot.on_reload(move |_| {
                let waiting = waiting.clone();
                async move {
                    tracing::info!("waiting");
                    waiting.notified().await;
                    Ok(())
                }
            });
            Ok(Router::new().route("/go", get(async move || go.notify_one())))
        });
    }
    let hello = other_role("lifecycle::a_hangup_while_it_reloads_is_reloaded_after_it", &[]).ready();
    hello.signal(Signal::HUP);
    hello.line("waiting");
    hello.signal(Signal::HUP);
    // It comes during the first reload or right after it; it is not lost either way.
    status(hello.address, "/go");
    hello.nth_line(1, "waiting");
    status(hello.address, "/go");
    hello.nth_line(1, "reloaded");
    hello.stop();
}

#[test]
fn requests_that_do_not_finish_are_cut_off_before_what_they_stand_on_goes_away() {
    struct Baking;
    impl Drop for Baking {
        fn drop(&mut self) {
            tracing::info!("cut off");
        }
    }
    if has_role() {
        run(async |boot: &mut Boot| {
            boot.on_stop("oven", async {
                tracing::info!("oven off");
                Ok(())
            });
            let bake = async || -> &'static str {
                let _baking = Baking;
                tracing::info!("baking");
                pending().await
            };
            Ok(Router::new().route("/bake", get(bake)))
        });
    }
    let test = "lifecycle::requests_that_do_not_finish_are_cut_off_before_what_they_stand_on_goes_away";
    let hello = other_role(test, &[("HELLO_STOP__GRACE_SECONDS", "1s")]).ready();
    let _stream = begin(hello.address, "/bake");
    hello.line("baking");
    let lines = messages(&hello.stop());
    let at =
        |message: &str| lines.iter().position(|line| line["message"] == message).unwrap_or_else(|| panic!("{message}"));
    assert!(at("requests did not finish in time and are cut off") < at("cut off"), "{lines:#?}");
    assert!(at("cut off") < at("oven off"), "{lines:#?}");
}
