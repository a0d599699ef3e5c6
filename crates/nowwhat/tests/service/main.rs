//! The whole service does it: what each layer promises, asked of a real process or of a [`TestServer`](nowwhat::testkit::TestServer).

mod development;
mod failures;
mod lifecycle;
mod limits;
mod log_lines;
mod otlp;
mod own_subscriber;
mod reloading;
#[path = "../running/mod.rs"]
mod running;
mod systemd;
mod test_kit;
mod tls;
mod watching;

use axum::Router;
use nowwhat::{Boot, BoxError, Environment, Service};
use running::Hello;
use std::io::Write;
use std::process::Command;

/// Set in a process that a test started to be its service.
const ROLE: &str = "NOWWHAT_TEST_ROLE";

/// A service without settings of its own, called as the example is.
fn service() -> Service {
    Service::new(nowwhat::version!("hello"), Vec::new())
}

/// Whether this process is to be the service of a test.
fn has_role() -> bool {
    Environment::of_process().get(ROLE).is_some()
}

/// Starts this test again in its other role; `test` is its full name, `lifecycle::it_stops`.
fn other_role(test: &str, settings: &[(&str, &str)]) -> Hello {
    let mut command = Command::new(std::env::current_exe().expect("a test knows its own file"));
    command.args(["--exact", test, "--nocapture"]);
    Hello::spawn(command, &[settings, &[(ROLE, "service")]].concat())
}

/// Runs the service in this process and ends the process with what came of it, as `main` does.
fn run(start: impl AsyncFnOnce(&mut Boot) -> Result<Router, BoxError>) -> ! {
    let service = service();
    let done = service.run(service.sources(), Environment::of_process(), start);
    if let Err(error) = &done {
        drop(writeln!(std::io::stderr(), "hello: {error}"));
    }
    std::process::exit(i32::from(done.is_err()))
}
