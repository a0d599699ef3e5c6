//! Pages of other origins: a browser may send events from those that the configuration names, reads every answer there, and nothing else.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use tests::{Answer, Collector, PATIENCE, blocks, catchment_with, skipped, wait_until};

const APP: &str = "https://app.example.com";
const EVENTS: (&str, &str) = ("OPTIONS", "/api/v1/events");

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A token that is safe to publish in a page.
fn send_only(collector: &Collector) -> String {
    collector.sensor("page");
    let made = collector.add_token(&json!({ "role": "send_only", "name": "page", "sensor": "page" }));
    made["token"].as_str().expect("a token").to_owned()
}

fn preflight(collector: &Collector, origin: &str, headers: &str) -> Answer {
    let asked =
        [("origin", origin), ("access-control-request-method", "POST"), ("access-control-request-headers", headers)];
    collector.ask(EVENTS, "", &asked, b"")
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

#[test]
fn a_preflight_of_a_named_origin_is_allowed_what_sending_takes_and_one_of_another_origin_nothing() {
    let dir = folder();
    let origins = format!("{APP}, http://localhost:3000");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_CORS__ALLOW_ORIGINS", &origins)]);
    let headers = "authorization,content-encoding,content-type,idempotency-key,ce-id,ce-myextension";
    for origin in [APP, "http://localhost:3000"] {
        let answer = preflight(&collector, origin, headers);
        assert_eq!((answer.status, allowed(&answer)), (200, Some(origin)), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-methods"), Some("POST"));
        assert_eq!(answer.header("access-control-allow-headers"), Some(headers));
        assert_eq!(answer.header("access-control-max-age"), Some("3600"));
        assert_eq!(answer.header("access-control-allow-credentials"), None, "no cookies");
        assert!(answer.header("x-request-id").is_some(), "it is a request as every other");
        assert!(answer.header("vary").is_some_and(|vary| vary.contains("origin")), "{answer:?}");
    }
    for origin in ["https://evil.example.com", "http://app.example.com", "https://app.example.com:8443", "null"] {
        assert_eq!(allowed(&preflight(&collector, origin, headers)), None, "{origin}");
    }
    let log = || std::fs::read_to_string(dir.path().join("log")).expect("the log");
    wait_until("its line", || log().contains("[200] OPTIONS /api/v1/events"));
}

#[test]
fn the_question_of_a_sender_of_webhooks_is_another_one_at_the_same_path() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_CORS__ALLOW_ORIGINS", APP)]);
    let asked = [("webhook-request-origin", "hooks.example.com"), ("origin", APP)];
    let answer = collector.ask(EVENTS, "", &asked, b"");
    assert_eq!((answer.status, answer.header("webhook-allowed-origin")), (200, Some("hooks.example.com")));
    assert_eq!((answer.header("allow"), allowed(&answer)), (Some("POST,GET,HEAD"), None), "{answer:?}");
    assert_eq!(preflight(&collector, APP, "authorization").header("webhook-allowed-origin"), None);
    assert_eq!(collector.ask(EVENTS, "", &[], b"").status, 405, "neither");
}

#[test]
fn a_page_reads_every_answer_to_its_batches_whatever_went_wrong() {
    let dir = folder();
    let settings = [
        ("CATCHMENT_CORS__ALLOW_ORIGINS", APP),
        ("CATCHMENT_HTTP__BODY_BYTES_MAX", "1KiB"),
        ("CATCHMENT_HTTP__REQUEST_SECONDS", "1s"),
        ("CATCHMENT_AUTH__FAILURES_PER_MINUTE_MAX", "1"),
    ];
    let collector = Collector::start_with(dir.path(), &settings);
    let token = send_only(&collector);
    let post = |token: &str, body: &[u8], content_type: &str| {
        collector.post("/api/v1/events", token, body, &[("origin", APP), ("content-type", content_type)])
    };
    let json = "application/json";
    for (answer, status) in [
        (post(&token, b"{\"n\":1}", json), 200),
        (post(&token, b"{", json), 400),
        (post(&token, b"<n/>", "application/xml"), 415),
        (post(&token, &[b' '; 2000], json), 413),
        (post("cat_of_nobody", b"{}", json), 401),
        (post("cat_of_nobody", b"{}", json), 429),
        (post(&collector.token, b"{}", json), 403),
        (post("", b"{}", json), 401),
        (collector.ask(("DELETE", "/api/v1/events"), &token, &[("origin", APP)], b""), 405),
        // Read by the foundation: the body does not come in time.
        (half(&collector, &token), 408),
    ] {
        assert_eq!((answer.status, allowed(&answer)), (status, Some(APP)), "{answer:?}");
        let exposed = answer.header("access-control-expose-headers").expect("exposed").to_owned();
        for name in ["catchment-rejected", "retry-after", "ratelimit", "idempotency-replayed", "x-request-id"] {
            assert!(exposed.contains(name), "{name} in {exposed}");
        }
        assert!(answer.header("vary").is_some_and(|vary| vary.contains("origin")), "{answer:?}");
    }
    let other = collector.post("/api/v1/events", &token, b"{}", &[("origin", "https://evil.example.com")]);
    assert_eq!((other.status, allowed(&other)), (200, None), "the browser keeps it from the page");
    for path in ["/api/v1/events", "/api/v1/sensor", "/api/v1/events/1", "/api/v1/sensors", "/livez"] {
        for method in ["GET", "HEAD"] {
            let answer = collector.ask((method, path), &collector.token, &[("origin", APP)], b"");
            assert_eq!(allowed(&answer), None, "nothing but sending: {method} {path}");
        }
    }
}

/// The answer to a request whose body stops halfway.
fn half(collector: &Collector, token: &str) -> Answer {
    let mut stream = collector.connect();
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: x\r\norigin: {APP}\r\nauthorization: Bearer {token}\r\ncontent-length: 9\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.contains("\r\n\r\n") {
        let count = stream.read(&mut bytes).expect("an answer");
        text += &String::from_utf8_lossy(&bytes[..count]);
    }
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let headers =
        lines.map_while(|line| line.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned())).collect();
    Answer { status, headers, text: String::new() }
}

#[test]
fn any_origin_may_be_allowed_on_purpose_and_by_default_none_is() {
    let (dir, other) = (folder(), folder());
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_CORS__ALLOW_ORIGINS", "*")]);
    let answer = preflight(&collector, "https://anything.example", "authorization");
    assert_eq!((answer.status, allowed(&answer)), (200, Some("*")));
    let collector = Collector::start(other.path());
    let answer = preflight(&collector, APP, "authorization");
    assert_eq!((answer.status, allowed(&answer)), (405, None), "{answer:?}");
    assert_eq!(allowed(&collector.post("/api/v1/events", "", b"{}", &[("origin", APP)])), None);
}

#[test]
fn an_origin_that_no_browser_would_send_is_refused_by_name() {
    let dir = folder();
    for origin in ["https://app.example.com/", "https://app.example.com/app", "app.example.com", "https://x:443"] {
        let origins = format!("{APP},{origin}");
        let settings = [("CATCHMENT_CORS__ALLOW_ORIGINS", origins.as_str())];
        let output = catchment_with(dir.path(), &["config", "check"], b"", &settings);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        for part in ["cors.allow_origins", origin, "an origin as browsers send it", "nothing after it"] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }
}

/// A browser without a window; ended when it goes out of scope.
struct Browser(Child);

impl Browser {
    fn open(dir: &Path, url: &str) -> Self {
        let mut command = Command::new("chromium");
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.arg(format!("--user-data-dir={}", dir.join("browser").display())).arg("--remote-debugging-port=0");
        command.arg(url).env("HOME", dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("it starts"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), rustix::process::Signal::TERM);
        drop(self.0.wait());
    }
}

/// The files of a site: path, content type, content.
type Files = Vec<(&'static str, &'static str, String)>;

/// Serves a site from now on; what its pages report.
fn serve_site(listener: TcpListener, files: Files) -> Receiver<String> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A browser opens connections that it does not use; a page that goes away is its own affair.
            let (files, tell) = (files.clone(), tell.clone());
            std::thread::spawn(move || drop(serve(stream, &files, |report| drop(tell.send(report)))));
        }
    });
    told
}

fn serve(mut stream: TcpStream, files: &Files, report: impl FnOnce(String)) -> std::io::Result<()> {
    let (mut text, mut bytes) = (String::new(), [0; 8192]);
    let (head, body) = loop {
        let count = stream.read(&mut bytes)?;
        text += &String::from_utf8_lossy(&bytes[..count]);
        let length = |head: &str| {
            let lower = head.to_lowercase();
            lower.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0)
        };
        match text.split_once("\r\n\r\n") {
            Some((head, body)) if body.len() >= length(head) => break (head.to_owned(), body.to_owned()),
            _ if count == 0 => return Ok(()),
            _ => {}
        }
    };
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (content_type, content) = match files.iter().find(|(name, ..)| *name == path) {
        Some((_, content_type, content)) => (*content_type, content.as_str()),
        None => ("text/plain", ""),
    };
    if head.starts_with("POST") {
        report(body);
    }
    let length = content.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(content.as_bytes())
}

fn has_browser() -> bool {
    let is_there = Command::new("chromium").arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        skipped("chromium is not installed");
    }
    is_there
}

#[test]
fn the_page_of_the_document_sends_from_another_origin() {
    if !has_browser() {
        return;
    }
    let dir = folder();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_CORS__ALLOW_ORIGINS", &origin)]);
    let token = send_only(&collector);
    let document = include_str!("../../docs/SENDING.md");
    let module = blocks(document, "javascript").into_iter().next().expect("the sender");
    let page = blocks(document, "html").into_iter().next().expect("the page");
    let page = page.replace("http://127.0.0.1:4711", &collector.api).replace("\"TOKEN\"", &format!("\"{token}\""));
    let files = vec![("/", "text/html", page), ("/catchment.mjs", "text/javascript", module)];
    let _reports = serve_site(listener, files);
    let _browser = Browser::open(dir.path(), &format!("{origin}/"));
    collector.wait_for("the click", |c| c.rows("SELECT count(*) FROM events WHERE type = 'click'") == [[json!(1)]]);
    assert_eq!(collector.rows("SELECT sensor, subject FROM events"), [[json!("page"), json!("/")]]);
}

#[test]
fn a_page_of_a_named_origin_sees_refusals_and_headers_and_one_of_another_origin_cannot_send() {
    if !has_browser() {
        return;
    }
    let dir = folder();
    let script = |collector: &Collector, token: &str| {
        format!(
            "<!doctype html><script type=module>
const ask = async (token, body) => {{
  const headers = {{ authorization: `Bearer ${{token}}`, 'content-type': 'application/json', 'idempotency-key': crypto.randomUUID() }};
  try {{
    const answer = await fetch('{}/api/v1/events', {{ method: 'POST', headers, body }});
    const [window, id] = ['catchment-idempotency-window', 'x-request-id'].map((name) => answer.headers.get(name));
    return {{ status: answer.status, window, id: id !== null, code: (await answer.json()).code ?? null }};
  }} catch (error) {{
    return {{ failed: error.name }};
  }}
}};
const seen = [await ask('{token}', '{{\"n\": 1}}'), await ask('cat_of_nobody', '{{}}')];
await fetch('/report', {{ method: 'POST', body: JSON.stringify(seen) }});
</script>",
            collector.api
        )
    };
    // The collector allows the site under one of its two names: to a browser these are two origins.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let origin = format!("http://localhost:{port}");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_CORS__ALLOW_ORIGINS", &origin)]);
    let token = send_only(&collector);
    let told = serve_site(listener, vec![("/", "text/html", script(&collector, &token))]);
    let seen = |host: &str| -> Value {
        let _browser = Browser::open(dir.path(), &format!("http://{host}:{port}/"));
        serde_json::from_str(&told.recv_timeout(PATIENCE).expect("a report")).expect("JSON")
    };
    let named = seen("localhost");
    assert_eq!(named[0], json!({ "status": 200, "window": "600", "id": true, "code": null }));
    assert_eq!(named[1], json!({ "status": 401, "window": null, "id": true, "code": "invalid_token" }));
    let other = seen("127.0.0.1");
    assert_eq!(other, json!([{ "failed": "TypeError" }, { "failed": "TypeError" }]));
    assert_eq!(
        collector.rows("SELECT count(*) FROM events"),
        [[json!(1)]],
        "the preflight kept the other from sending"
    );
}

#[test]
fn an_origin_that_may_send_events_is_not_let_in_with_the_cookie_of_who_signed_in() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_CORS__ALLOW_ORIGINS", APP)]);
    let with = json!({ "token": collector.token }).to_string();
    let signed_in = collector.post("/api/v1/session", "", with.as_bytes(), &[("sec-fetch-site", "same-origin")]);
    let cookie = signed_in.header("set-cookie").and_then(|set| set.split(';').next()).expect("a cookie").to_owned();
    for path in ["/api/v1/events", "/api/v1/query", "/api/v1/session"] {
        let asked = [("origin", APP), ("access-control-request-method", "POST")];
        let preflight = collector.ask(("OPTIONS", path), "", &asked, b"");
        assert!(preflight.header("access-control-allow-credentials").is_none(), "{preflight:?}");
        for site in [None, Some(("sec-fetch-site", "cross-site"))] {
            let mut headers = vec![("origin", APP), ("cookie", &*cookie)];
            headers.extend(site);
            let answer = collector.ask(("POST", path), "", &headers, b"{}");
            assert_eq!((answer.status, &answer.json()["code"]), (403, &json!("cross_site")), "{answer:?}");
            assert!(answer.header("access-control-allow-credentials").is_none(), "{answer:?}");
        }
    }
}
