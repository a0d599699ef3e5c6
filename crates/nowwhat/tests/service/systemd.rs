//! What systemd hears of the whole service, and its sockets.

use super::running::{Hello, LOCAL, ask, program};
use super::{has_role, other_role, run};
use nowwhat::Boot;
use nowwhat::testkit::{PATIENCE, wait_until};
use rustix::process::Signal;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is told next.
fn heard(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let bytes = socket.recv(&mut buffer).expect("a message");
    String::from_utf8(buffer[..bytes].to_vec()).expect("text")
}

/// What is told next that is no sign of life.
fn told(socket: &UnixDatagram) -> String {
    std::iter::repeat_with(|| heard(socket)).find(|message| message != "WATCHDOG=1\n").expect("endless")
}

#[test]
fn systemd_hears_of_start_reload_life_and_stop() {
    const WATCHDOG: Duration = Duration::from_secs(1);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let watchdog = WATCHDOG.as_micros().to_string();
    let settings = [
        ("NOTIFY_SOCKET", path.to_str().expect("a text")),
        ("WATCHDOG_USEC", &watchdog),
        ("HELLO_STOP__DRAIN_SECONDS", "3s"),
    ];
    let hello = Hello::start(&settings);
    assert!(told(&socket).starts_with("READY=1\n"));
    // Twice in each period, over some periods: a busy machine may hold up the one or the other.
    const SIGNS: u32 = 9;
    let began = Instant::now();
    for _ in 0..SIGNS {
        assert_eq!(heard(&socket), "WATCHDOG=1\n");
    }
    assert!(began.elapsed() < (SIGNS - 1) * WATCHDOG, "too seldom: {SIGNS} in {:?}", began.elapsed());
    hello.signal(Signal::HUP);
    let reloading = told(&socket);
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|t| t.strip_suffix('\n'));
    assert!(time.is_some_and(|time| time.parse::<u64>().is_ok()), "{reloading}");
    assert!(told(&socket).starts_with("READY=1\n"));
    hello.signal(Signal::TERM);
    assert_eq!(told(&socket), "STOPPING=1\n");
    assert_eq!(heard(&socket), "WATCHDOG=1\n", "it lives while it drains");
    assert_eq!(hello.end().0, Some(0));
}

#[test]
fn a_start_that_takes_its_time_tells_systemd_probes_and_the_log_how_far_it_is() {
    if has_role() {
        run(async |boot: &mut Boot| {
            let progress = boot.progress();
            progress.tell("reads the stock: 0 %");
            tracing::info!(admin_address = boot.admin_address.to_string(), "reading");
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                progress.tell(format_args!("reads the stock: {} %", 40));
            }
        });
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let this = "systemd::a_start_that_takes_its_time_tells_systemd_probes_and_the_log_how_far_it_is";
    let hello = other_role(this, &[("NOTIFY_SOCKET", path.to_str().expect("a text"))]);
    for percent in ["0", "40", "40"] {
        let told = heard(&socket);
        assert_eq!(told, format!("STATUS=reads the stock: {percent} %\nEXTEND_TIMEOUT_USEC=120000000\n"));
    }
    let admin = hello.line("reading")["admin_address"].as_str().and_then(|a| a.parse().ok()).expect("an address");
    let why = "the service is starting: reads the stock: 40 %";
    let answer = ask(admin, LOCAL, "GET /startupz", &[]);
    assert_eq!((answer.status, &answer.json()["status"]), (503, &serde_json::json!("starting")));
    assert_eq!(answer.json()["reasons"][0]["reason"], why);
    assert_eq!(ask(admin, LOCAL, "GET /readyz", &[]).json()["reasons"][0]["reason"], why);
    assert_eq!(hello.line("still starting")["progress"], "reads the stock: 40 %");
    hello.signal(Signal::TERM);
    assert_eq!(hello.end().0, Some(0));
}

/// hello with the socket as descriptor 3, and a setting more. The shell knows the id that the process will have, and can give descriptors
/// their numbers.
fn begun_with_socket(socket: &TcpListener, more: &[(&str, &str)]) -> Hello {
    let socket = OwnedFd::from(socket.try_clone().expect("a descriptor"));
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "export LISTEN_PID=$$; exec \"$0\" 3<&0 </dev/null"]).arg(program()).stdin(Stdio::from(socket));
    // The address of the settings is not listened on.
    let settings = [("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "http"), ("HELLO_HTTP__LISTEN", "127.0.0.1:1")];
    Hello::spawn(command, &[&settings, more].concat())
}

fn with_socket(socket: &TcpListener) -> Hello {
    begun_with_socket(socket, &[]).ready()
}

#[test]
fn a_socket_of_systemd_beyond_loopback_is_refused_without_tls_like_an_address_of_the_settings() {
    let socket = TcpListener::bind("0.0.0.0:0").expect("a port");
    let (code, said) = begun_with_socket(&socket, &[]).end();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("the socket http of systemd listens on 0.0.0.0:") && said.contains("in clear"), "{said}");
    begun_with_socket(&socket, &[("HELLO_HTTP__INSECURE", "true")]).ready().stop();
}

#[test]
fn a_restart_with_a_socket_of_systemd_refuses_no_connection() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    let (enough, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut hello = with_socket(&socket);
    assert_eq!(hello.address, address);
    assert_eq!(hello.line("listening on a socket of systemd")["name"], "http");
    let asking = [(); 4].map(|()| {
        let (enough, answers) = (enough.clone(), answers.clone());
        std::thread::spawn(move || {
            while !enough.load(Ordering::Relaxed) {
                assert_eq!(ask(address, LOCAL, "GET /hello/moon", &[]).status, 200);
                answers.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    for _ in 0..3 {
        let before = answers.load(Ordering::Relaxed);
        wait_until("load", || answers.load(Ordering::Relaxed) > before + 20);
        hello.stop();
        hello = with_socket(&socket);
    }
    let before = answers.load(Ordering::Relaxed);
    wait_until("load", || answers.load(Ordering::Relaxed) > before + 20);
    enough.store(true, Ordering::Relaxed);
    for thread in asking {
        thread.join().expect("every connection is answered");
    }
    hello.stop();
}
