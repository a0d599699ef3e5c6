//! Sockets passed on by systemd: this test's process holds them, and starts itself again as the service, as systemd
//! would.

use super::*;
use crate::Environment;
use crate::serve::inherited::Inherited;
use rustix::process::{Pid, Signal, kill_process};
use std::net::TcpListener as StdListener;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

/// What this process is to do when it was started by a test.
const ROLE: &str = "NOWWHAT_TEST_ROLE";

/// What a process that looked for sockets and found none exits with.
const NONE_FOUND: i32 = 42;

/// The service: each listener answers with its name.
fn serve_until_terminated() {
    let mut inherited = Inherited::of_process();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut termination = Termination::watch().expect("signals");
        let (stopper, stop) = stop_signal();
        let (_limits, limits) = watch::channel(WIDE);
        let metrics = ConnectionMetrics::register(&mut Registry::default());
        let mut tasks = Vec::new();
        for name in ["admin", "api"] {
            let listener = inherited.take(name).expect("a TCP socket").expect("passed");
            let routes = Router::new().route("/", get(move || std::future::ready(name)));
            let (limits, metrics, stop) = (limits.clone(), metrics.clone(), stop.clone());
            tasks.push(tokio::spawn(listener.serve(routes, Serving { limits, metrics, tls: None, stop })));
        }
        assert_eq!(inherited.untaken().count(), 0);
        termination.next().await;
        stopper.stop();
        for task in tasks {
            task.await.expect("no panic");
        }
    });
}

/// Starts this test again in another role, with the two sockets as descriptors 3 and 4. The shell knows the id that the
/// process will have, and can give descriptors their numbers.
fn start(test: &str, role: &str, pid: &str, sockets: [&StdListener; 2]) -> Child {
    let [api, admin] = sockets.map(|socket| OwnedFd::from(socket.try_clone().expect("a descriptor")));
    let script = format!("export LISTEN_PID={pid}; exec \"$@\" 3<&0 4<&1 </dev/null >&2");
    let test = format!("serve::tests::inherited::{test}");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(std::env::current_exe().expect("a path"));
    command.args(["--exact", &test, "--nocapture"]).stdin(api).stdout(admin);
    command.env(ROLE, role).env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "api:admin");
    command.spawn().expect("started")
}

fn bound() -> StdListener {
    StdListener::bind("127.0.0.1:0").expect("a free port")
}

async fn ask(address: SocketAddr) -> String {
    let stream = TcpStream::connect(address).await.expect("nobody is refused");
    let (mut client, _connection) = Client::on(stream, Version::HTTP_11).await;
    client.text().await
}

#[test]
fn a_restart_with_passed_sockets_refuses_no_connection() {
    const TEST: &str = "a_restart_with_passed_sockets_refuses_no_connection";
    if Environment::of_process().get(ROLE).is_some() {
        return serve_until_terminated();
    }
    let (api, admin) = (bound(), bound());
    let addresses = [&api, &admin].map(|socket| socket.local_addr().expect("an address"));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let mut child = start(TEST, "serve", "$$", [&api, &admin]);
    runtime.block_on(async {
        assert_eq!(ask(addresses[0]).await, "api", "each name has its own socket");
        assert_eq!(ask(addresses[1]).await, "admin", "each name has its own socket");
    });
    // Someone asks all the time, while the service is restarted.
    let (enough, mut told) = watch::channel(false);
    let asking = runtime.spawn(async move {
        let mut answers = 0;
        while !*told.borrow_and_update() {
            assert_eq!(ask(addresses[0]).await, "api");
            answers += 1;
        }
        answers
    });
    for _ in 0..3 {
        kill_process(Pid::from_child(&child), Signal::TERM).expect("the process is ours");
        assert!(child.wait().expect("waited").success(), "stopped in order");
        // Nobody serves now.
        child = start(TEST, "serve", "$$", [&api, &admin]);
        runtime.block_on(ask(addresses[1]));
    }
    enough.send_replace(true);
    let answers: u64 = runtime.block_on(asking).expect("every connection was answered");
    assert!(answers > 0);
    kill_process(Pid::from_child(&child), Signal::TERM).expect("the process is ours");
    assert!(child.wait().expect("waited").success(), "stopped in order");
}

#[test]
fn sockets_meant_for_another_process_are_left_alone() {
    if Environment::of_process().get(ROLE).is_some() {
        std::process::exit(if Inherited::of_process().untaken().count() == 0 { NONE_FOUND } else { 1 });
    }
    let (api, admin) = (bound(), bound());
    let mut child = start("sockets_meant_for_another_process_are_left_alone", "look", "1", [&api, &admin]);
    assert_eq!(child.wait().expect("waited").code(), Some(NONE_FOUND));
}

#[tokio::test]
async fn a_name_of_its_own_comes_first_and_the_others_go_by_order() {
    let sockets = [bound(), bound(), bound()];
    let addresses = [0, 1, 2].map(|i| sockets[i].local_addr().expect("an address"));
    let names = ["bakery.socket", "api", "unknown"];
    let mut inherited = Inherited::from_passed(names.into_iter().zip(sockets.map(Ok)));
    assert_eq!(inherited.untaken().collect::<Vec<_>>(), ["", "api", ""]);
    let mut take = |name| inherited.take(name).expect("a TCP socket").map(|listener| listener.address);
    assert_eq!(take("api"), Some(addresses[1]));
    assert_eq!(take("admin"), Some(addresses[0]));
    assert_eq!(take("api"), Some(addresses[2]));
    assert_eq!(take("api"), None);
}

#[tokio::test]
async fn a_socket_that_cannot_be_served_is_an_error_when_it_is_asked_for() {
    let error = io::Error::new(io::ErrorKind::InvalidInput, "fd 3 is not a valid tcp socket");
    let mut inherited = Inherited::from_passed([("api", Err(error))]);
    let error = inherited.take("api").expect_err("not a TCP socket").to_string();
    assert!(error.contains("api") && error.contains("ListenStream=") && error.contains("fd 3"), "{error}");
}
