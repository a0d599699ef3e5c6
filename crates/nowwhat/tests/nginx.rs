//! `proxy/nginx.conf` as it stands in the documentation, run by Debian's nginx before a real service: the request id is one and the
//! same everywhere, and the client's address is believed of whom it should be.

mod running;

use nowwhat::Environment;
use nowwhat::testkit::wait_until;
use running::{Answer, Hello, LOCAL, ask};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const CONF: &str = include_str!("../proxy/nginx.conf");
/// A client on another machine, as far as nginx can see.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
/// A balancer before nginx.
const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7));

/// nginx, or `None` with a word when this machine has none.
///
/// # Panics
/// When `REQUIRE_SERVERS` says that nothing may be missing.
fn nginx() -> Option<PathBuf> {
    let environment = Environment::of_process();
    let path = environment.get("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
    let found = folders.map(|folder| Path::new(folder).join("nginx")).find(|program| program.is_file());
    if found.is_none() {
        let why = "nginx is missing: apt-get install -y nginx-light";
        assert!(environment.get("REQUIRE_SERVERS").is_none(), "REQUIRE_SERVERS is set, but {why}");
        drop(writeln!(std::io::stderr(), "skipped: {why}"));
    }
    found
}

/// A running nginx before a hello.
struct Proxy {
    child: Child,
    dir: TempDir,
    address: SocketAddr,
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from} stands once in proxy/nginx.conf");
    text.replace(from, to)
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port")
}

impl Proxy {
    fn start(program: &Path, hello: &Hello) -> Self {
        // A port that is free now may be another's when nginx takes it.
        (0..10).find_map(|_| Self::start_on(program, hello, free())).expect("a port that stays free")
    }

    /// None when the address was taken meanwhile.
    fn start_on(program: &Path, hello: &Hello, address: SocketAddr) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a folder");
        let log = dir.path().join("access.log");
        let conf = replaced(CONF, "127.0.0.1:8000", &hello.address.to_string());
        let conf = replaced(&conf, "listen 80;", &format!("listen {address};"));
        let conf = replaced(&conf, "/var/log/nginx/hello.log", &log.display().to_string());
        std::fs::write(dir.path().join("hello.conf"), conf).expect("a file");
        // What /etc/nginx/nginx.conf does, with nothing outside of the folder.
        let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|place| format!("{place}_temp_path {place};\n"))
            .concat();
        let main = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {{}}\n\
             http {{\naccess_log off;\n{places}include hello.conf;\n}}\n"
        );
        std::fs::write(dir.path().join("nginx.conf"), main).expect("a file");
        let mut command = Command::new(program);
        command.arg("-p").arg(dir.path()).arg("-c").arg(dir.path().join("nginx.conf"));
        command.arg("-e").arg(dir.path().join("error.log"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut proxy = Self { child: child.expect("nginx starts"), dir, address };
        let deadline = Instant::now() + nowwhat::testkit::PATIENCE;
        // It is written when nginx listens; whoever else may listen there writes none.
        while proxy.read("nginx.pid").is_empty() {
            let ended = proxy.child.try_wait().expect("a child").is_some();
            let error = proxy.read("error.log");
            if ended && error.contains("Address already in use") {
                return None;
            }
            assert!(!ended && Instant::now() < deadline, "nginx does not listen: {error}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(proxy)
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(file)).unwrap_or_default()
    }

    fn get(&self, from: IpAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
        ask(self.address, from, &format!("GET {path}"), headers)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Asks for a path of its own and returns the answer with the service's line about it.
fn asked(proxy: &Proxy, hello: &Hello, from: IpAddr, path: &str, headers: &[(&str, &str)]) -> (Answer, Value) {
    let answer = proxy.get(from, path, headers);
    let line = hello.line(&format!("[{}] GET {path}", answer.status));
    (answer, line)
}

#[test]
fn the_id_that_nginx_made_is_in_the_answer_the_problem_and_both_logs() {
    let Some(program) = nginx() else { return };
    let hello = Hello::start(&[("HELLO_HTTP__TRUSTED_PROXIES", "127.0.0.1")]);
    let proxy = Proxy::start(&program, &hello);
    let (answer, line) = asked(&proxy, &hello, CLIENT, "/hello/moon", &[]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = answer.header("x-request-id").expect("an id");
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id} is one of nginx, not a UUID");
    assert_eq!(line["request_id"], id);
    // Lines of the handler as well.
    let greeted = hello.line("greeted");
    assert_eq!(greeted["request_id"], id);
    wait_until("the line of nginx", || proxy.read("access.log").contains(id));

    let (answer, line) = asked(&proxy, &hello, CLIENT, "/none", &[]);
    assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/problem+json")));
    let id = answer.header("x-request-id").expect("an id");
    assert_eq!((&answer.json()["request_id"], &line["request_id"]), (&Value::from(id), &Value::from(id)));
}

#[test]
fn a_client_of_http_1_0_need_not_name_the_host() {
    let Some(program) = nginx() else { return };
    let hello = Hello::start(&[]);
    let proxy = Proxy::start(&program, &hello);
    let mut stream = TcpStream::connect(proxy.address).expect("it listens");
    stream.write_all(b"GET /hello/moon HTTP/1.0\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains(" 200 OK\r\n"), "{answer}");
}

#[test]
fn an_id_that_the_client_sent_is_kept_when_it_is_sane() {
    let Some(program) = nginx() else { return };
    let hello = Hello::start(&[("HELLO_HTTP__TRUSTED_PROXIES", "127.0.0.1")]);
    let proxy = Proxy::start(&program, &hello);
    let (answer, line) = asked(&proxy, &hello, CLIENT, "/kept", &[("X-Request-Id", "order-17")]);
    assert_eq!(answer.header("x-request-id"), Some("order-17"));
    assert_eq!((&line["request_id"], &answer.json()["request_id"]), (&"order-17".into(), &"order-17".into()));
    wait_until("the line of nginx", || proxy.read("access.log").contains("order-17"));
    for (path, odd) in [("/blank", "order 17"), ("/quoted", "\"17\""), ("/long", &"1".repeat(129)), ("/markup", "<b>")]
    {
        let (answer, line) = asked(&proxy, &hello, CLIENT, path, &[("X-Request-Id", odd)]);
        let id = answer.header("x-request-id").expect("an id");
        assert!(id != odd && id.len() == 32, "{id}");
        assert_eq!(line["request_id"], id);
    }
}

#[test]
fn the_clients_address_is_what_trusted_proxies_saw_and_no_forged_one() {
    let Some(program) = nginx() else { return };
    let hello = Hello::start(&[("HELLO_HTTP__TRUSTED_PROXIES", "127.0.0.1, 127.0.0.7")]);
    let proxy = Proxy::start(&program, &hello);
    let client = |from, path, headers: &[(&str, &str)]| asked(&proxy, &hello, from, path, headers).1["client"].clone();
    assert_eq!(client(CLIENT, "/plain", &[]), "127.0.0.9");
    assert_eq!(client(CLIENT, "/forged", &[("X-Forwarded-For", "203.0.113.6")]), "127.0.0.9");
    assert_eq!(client(CLIENT, "/forged-trusted", &[("X-Forwarded-For", "203.0.113.6, 127.0.0.1")]), "127.0.0.9");
    assert_eq!(client(CLIENT, "/other-kind", &[("Forwarded", "for=203.0.113.6")]), "127.0.0.9");
    // The balancer's word counts, what stands left of it does not.
    let balanced = [("X-Forwarded-For", "198.51.100.1, 203.0.113.9")];
    assert_eq!(client(BALANCER, "/balanced", &balanced), "203.0.113.9");
    // Around nginx: the peer is the client, and its own word is nobody's.
    ask(hello.address, CLIENT, "GET /around", &[("X-Forwarded-For", "203.0.113.6")]);
    assert_eq!(hello.line("[404] GET /around")["client"], "127.0.0.9");
}

#[test]
fn without_trusted_proxies_the_client_is_the_proxy() {
    let Some(program) = nginx() else { return };
    let hello = Hello::start(&[]);
    let proxy = Proxy::start(&program, &hello);
    let (answer, line) = asked(&proxy, &hello, CLIENT, "/none", &[("X-Forwarded-For", "203.0.113.6")]);
    assert_eq!(line["client"], LOCAL.to_string());
    assert_eq!(answer.header("x-request-id"), line["request_id"].as_str(), "the id does not depend on trust");
}

#[test]
fn a_port_that_another_took_meanwhile_is_given_up() {
    let Some(program) = nginx() else { return };
    let hello = Hello::start(&[]);
    let another = TcpListener::bind("127.0.0.1:0").expect("a port");
    assert!(Proxy::start_on(&program, &hello, another.local_addr().expect("an address")).is_none());
}
