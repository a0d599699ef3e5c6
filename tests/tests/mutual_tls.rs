//! Sensors with certificates: a verified certificate stands for a token of the sensor that it names, and for nothing else.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tests::{Collector, PATIENCE, blocks, catchment_with, program, said, wait_until};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

fn named(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).expect("names")
}

/// A folder with a collector's certificate, an authority of sensors and what it issued.
struct World {
    dir: tempfile::TempDir,
    ca: Authority,
}

/// An answer as curl tells it.
#[derive(Debug)]
struct Told {
    status: u16,
    body: Value,
}

impl Told {
    #[track_caller]
    fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, &self.body["code"]), (status, &json!(code)), "{self:?}");
    }
}

impl World {
    fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().expect("a folder"), ca: authority("sensors") };
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("made");
        world.write("server.pem", &made.cert.pem());
        world.write("server.key", &made.signing_key.serialize_pem());
        world.write("ca.pem", &world.ca.pem());
        world
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).expect("written");
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Issues a certificate, `NAME.pem` and `NAME.key`.
    fn issue(&self, file: &str, by: &Authority, params: &CertificateParams) {
        let key = KeyPair::generate().expect("a key");
        self.write(&format!("{file}.pem"), &params.signed_by(&key, by).expect("issued").pem());
        self.write(&format!("{file}.key"), &key.serialize_pem());
    }

    fn collector(&self, certificates: &str) -> Collector {
        let files = ["server.pem", "server.key", "ca.pem"].map(|name| self.path(name));
        let settings = [
            ("CATCHMENT_HTTP__TLS_CERTIFICATE", files[0].as_str()),
            ("CATCHMENT_HTTP__TLS_KEY", &files[1]),
            ("CATCHMENT_HTTP__TLS_CLIENT_CA", &files[2]),
            ("CATCHMENT_HTTP__TLS_CLIENT_CERTIFICATES", certificates),
        ];
        Collector::start_with(self.dir.path(), &settings)
    }

    /// Asks with curl, showing `certificate` when it is named; none when there is no answer.
    fn ask(&self, collector: &Collector, certificate: &str, path: &str, more: &[&str]) -> Option<Told> {
        let url = format!("{}{path}", collector.api.replace("http://127.0.0.1", "https://localhost"));
        let mut curl = Command::new("curl");
        curl.args(["-s", "-w", "\n%{http_code}", "--cacert", "server.pem", &url]).args(more).current_dir(&self.dir);
        if !certificate.is_empty() {
            curl.args(["--cert", &format!("{certificate}.pem"), "--key", &format!("{certificate}.key")]);
        }
        let output = curl.output().expect("curl runs");
        let text = said(&output);
        let (body, status) = text.rsplit_once('\n').expect("a status");
        let status = status.parse().ok().filter(|status| *status > 0 && output.status.success())?;
        Some(Told { status, body: serde_json::from_str(body).unwrap_or_default() })
    }

    /// The same, which is answered.
    #[track_caller]
    fn answered(&self, collector: &Collector, certificate: &str, path: &str, more: &[&str]) -> Told {
        self.ask(collector, certificate, path, more).expect("an answer")
    }

    fn send(&self, collector: &Collector, certificate: &str, more: &[&str]) -> Option<Told> {
        let json = ["-H", "content-type: application/json", "-d", "{\"temperature\":21.5}"];
        self.ask(collector, certificate, "/api/v1/events", &[&json, more].concat())
    }

    /// Registers a sensor as admin; its token.
    fn sensor(&self, collector: &Collector, name: &str) -> String {
        let (body, admin) = (json!({ "name": name }).to_string(), bearer(&collector.token));
        let made = self.answered(collector, "", "/api/v1/sensor", &["-d", &body, "-H", &admin]);
        assert_eq!(made.status, 201, "{made:?}");
        made.body["token"].as_str().expect("a token").to_owned()
    }

    /// Asks SQL as admin.
    fn rows(&self, collector: &Collector, sql: &str) -> Value {
        let (body, admin) = (json!({ "sql": sql }).to_string(), bearer(&collector.token));
        let answer = self.answered(collector, "", "/api/v1/query", &["-d", &body, "-H", &admin]);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["rows"].clone()
    }

    fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join("log")).expect("the log");
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}

#[test]
fn a_certificate_sends_for_the_sensor_it_names_over_both_versions_of_http_and_can_do_nothing_else() {
    let world = World::new();
    let collector = world.collector("optional");
    world.sensor(&collector, "roof");
    world.issue("roof", &world.ca, &named(&["roof"]));
    for version in ["--http1.1", "--http2"] {
        let sent = world.send(&collector, "roof", &[version]).expect("an answer");
        assert_eq!((sent.status, &sent.body["accepted"]), (200, &json!(1)), "{version}: {sent:?}");
    }
    assert_eq!(world.rows(&collector, "SELECT DISTINCT sensor FROM events"), json!([["roof"]]));
    let me = world.answered(&collector, "roof", "/api/v1/sensor", &[]).body;
    assert!(me["sensorId"] == "roof" && me["last_seen_at"].is_string(), "{me}");
    let sql = ["-d", "{\"sql\":\"SELECT 1\"}"];
    world.answered(&collector, "roof", "/api/v1/query", &sql).assert_problem(403, "insufficient_scope");
    for path in ["/api/v1/events", "/api/v1/sensors", "/api/v1/audit", "/api/v1/tokens"] {
        world.answered(&collector, "roof", path, &[]).assert_problem(403, "insufficient_scope");
    }
    assert_eq!(world.answered(&collector, "roof", "/api/v1/rejected", &[]).status, 200);
    let is_line = |line: &Value| {
        line["certificate"] == "roof"
            && line["message"].as_str().is_some_and(|m| m.starts_with("[200] POST /api/v1/ev"))
    };
    wait_until("its line", || world.log().iter().any(is_line));
    let checks = |outcome: &str| {
        collector.metric(&format!("catchment_registry_certificate_checks_total{{outcome=\"{outcome}\"}}"))
    };
    assert!(checks("verified") >= 1.0 && checks("remembered") >= 1.0);

    // A name in the subject counts where there is no other.
    let mut by_subject = CertificateParams::default();
    by_subject.distinguished_name = DistinguishedName::new();
    by_subject.distinguished_name.push(DnType::CommonName, "roof");
    world.issue("subject", &world.ca, &by_subject);
    assert_eq!(world.send(&collector, "subject", &[]).expect("an answer").status, 200);
}

#[test]
fn who_cannot_be_verified_gets_no_connection_and_who_is_no_sensor_no_further() {
    let world = World::new();
    let collector = world.collector("optional");
    world.sensor(&collector, "roof");
    let mut old = named(&["roof"]);
    (old.not_before, old.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    world.issue("expired", &world.ca, &old);
    world.issue("strange", &authority("sensors"), &named(&["roof"]));
    for certificate in ["expired", "strange"] {
        assert!(world.send(&collector, certificate, &[]).is_none(), "{certificate}");
    }
    assert!(collector.metric("tls_handshakes_failed_total") >= 2.0);
    let mut by_subject = named(&["a-host.example"]);
    by_subject.distinguished_name.push(DnType::CommonName, "roof");
    for (file, params) in [
        ("unknown", named(&["cellar"])),
        ("several", named(&["roof", "roof.example"])),
        ("subject", by_subject),
        ("empty", CertificateParams::default()),
    ] {
        world.issue(file, &world.ca, &params);
        world.send(&collector, file, &[]).expect("an answer").assert_problem(403, "certificate_refused");
    }
    // Headers that proxies write are nobody's certificate.
    for header in ["x-ssl-client-s-dn: CN=roof", "x-forwarded-client-cert: DNS=roof", "client-cert: :cm9vZg==:"] {
        world.send(&collector, "", &["-H", header]).expect("an answer").assert_problem(401, "missing_token");
    }

    world.issue("roof", &world.ca, &named(&["roof"]));
    assert_eq!(world.send(&collector, "roof", &[]).expect("an answer").status, 200);
    let admin = bearer(&collector.token);
    let switch = |disabled: bool| {
        let body = json!({ "disabled": disabled }).to_string();
        let done = world.answered(&collector, "", "/api/v1/sensors/roof", &["-X", "PATCH", "-d", &body, "-H", &admin]);
        assert_eq!(done.status, 200, "{done:?}");
    };
    switch(true);
    world.send(&collector, "roof", &[]).expect("an answer").assert_problem(403, "certificate_refused");
    switch(false);
    assert_eq!(world.send(&collector, "roof", &[]).expect("an answer").status, 200);
}

#[test]
fn a_token_that_comes_with_a_certificate_is_of_the_same_sensor() {
    let world = World::new();
    let collector = world.collector("optional");
    let (roof, cellar) = (world.sensor(&collector, "roof"), world.sensor(&collector, "cellar"));
    let admin = bearer(&collector.token);
    let app = json!({ "role": "send_only", "name": "app", "sensor": "roof" }).to_string();
    let app = world.answered(&collector, "", "/api/v1/tokens", &["-d", &app, "-H", &admin]).body;
    let app = app["token"].as_str().expect("a token").to_owned();
    world.issue("roof", &world.ca, &named(&["roof"]));
    world.issue("laptop", &world.ca, &named(&["laptop"]));
    let send = |certificate: &str, token: &str| {
        world.send(&collector, certificate, &["-H", &bearer(token)]).expect("an answer")
    };
    assert_eq!((send("roof", &roof).status, send("roof", &app).status), (200, 200));
    send("roof", &cellar).assert_problem(403, "certificate_mismatch");
    send("laptop", &cellar).assert_problem(403, "certificate_mismatch");
    send("roof", &collector.token).assert_problem(403, "certificate_mismatch");
    send("roof", "cat_of_nobody").assert_problem(401, "invalid_token");
    let me = ["-H", &bearer(&app)];
    world.answered(&collector, "roof", "/api/v1/sensor", &me).assert_problem(403, "insufficient_scope");
    for certificate in ["", "laptop"] {
        assert_eq!(world.answered(&collector, certificate, "/api/v1/sensors", &["-H", &admin]).status, 200);
    }
    assert_eq!(send("", &cellar).status, 200, "tokens alone come in as ever");
}

#[test]
fn where_certificates_are_required_nobody_comes_in_without_and_other_authorities_hold_from_a_reload_on() {
    let world = World::new();
    let collector = world.collector("optional");
    world.sensor(&collector, "roof");
    assert_eq!(collector.terminate(), 0);
    let collector = world.collector("required");
    world.issue("roof", &world.ca, &named(&["roof"]));
    let other = authority("other sensors");
    world.issue("other", &other, &named(&["roof"]));
    assert!(world.ask(&collector, "", "/livez", &[]).is_none());
    assert!(world.send(&collector, "", &["-H", &bearer(&collector.token)]).is_none());
    assert!(world.send(&collector, "other", &[]).is_none());
    assert_eq!(world.send(&collector, "roof", &["--http2"]).expect("an answer").status, 200);

    let reloaded = |text: &str, found: &str| {
        world.write("ca.pem", text);
        let before = world.log().len();
        collector.signal_hup();
        let told = || world.log().into_iter().skip(before).find(|line| line.to_string().contains(found));
        wait_until(found, || told().is_some());
    };
    reloaded("nothing", "cannot read the authorities of clients' certificates in");
    assert_eq!(world.send(&collector, "roof", &[]).expect("as before").status, 200);
    reloaded(&other.pem(), "\"changed\":\"http.tls_client_ca\"");
    assert_eq!(world.send(&collector, "other", &[]).expect("an answer").status, 200);
    assert!(world.send(&collector, "roof", &[]).is_none());
}

#[test]
fn a_certificate_that_expires_on_an_open_connection_is_refused_from_then_on() {
    let world = World::new();
    let collector = world.collector("optional");
    world.sensor(&collector, "roof");
    let mut short = named(&["roof"]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    short.not_after = date_time_ymd(1970, 1, 1) + now + Duration::from_secs(4);
    world.issue("short", &world.ca, &short);
    let place = collector.api.trim_start_matches("http://").to_owned();
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &place, "-cert", "short.pem", "-key", "short.key"])
        .current_dir(&world.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    let (mut to, mut from) =
        (client.stdin.take().expect("piped"), BufReader::new(client.stdout.take().expect("piped")));
    let mut ask = || {
        to.write_all(b"GET /api/v1/sensor HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
        let (mut status, mut length, mut line) = (String::new(), 0, String::new());
        while from.read_line(&mut line).expect("an answer") > 2 {
            if status.is_empty() {
                line.trim().clone_into(&mut status);
            }
            length = line.strip_prefix("content-length: ").map_or(length, |n| n.trim().parse().expect("a number"));
            line.clear();
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body).expect("a body");
        (status, serde_json::from_slice::<Value>(&body).expect("JSON"))
    };
    assert_eq!(ask().0, "HTTP/1.1 200 OK");
    let deadline = Instant::now() + PATIENCE;
    let (status, problem) = loop {
        match ask() {
            (status, _) if status.ends_with("200 OK") => assert!(Instant::now() < deadline, "it never expires"),
            refused => break refused,
        }
    };
    assert_eq!((status.as_str(), &problem["code"]), ("HTTP/1.1 403 Forbidden", &json!("certificate_refused")));
    drop(to);
    drop(client.kill());
    drop(client.wait());
}

#[test]
fn what_cannot_be_is_told_before_anything_runs() {
    let world = World::new();
    let (certificate, key, ca) = (world.path("server.pem"), world.path("server.key"), world.path("ca.pem"));
    let tls = [("CATCHMENT_HTTP__TLS_CERTIFICATE", certificate.as_str()), ("CATCHMENT_HTTP__TLS_KEY", &key)];
    let (client_ca, client_crl) = ("CATCHMENT_HTTP__TLS_CLIENT_CA", "CATCHMENT_HTTP__TLS_CLIENT_CRL");
    let required = ("CATCHMENT_HTTP__TLS_CLIENT_CERTIFICATES", "required");
    let check = |settings: &[(&str, &str)]| {
        let output = catchment_with(world.dir.path(), &["config", "check"], b"", settings);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check(&[&tls[..], &[(client_ca, &ca), required]].concat()).0, Some(0));
    for (settings, parts) in [
        (vec![(client_ca, ca.as_str())], ["http.tls_client_ca = ", "is given without http.tls_certificate"]),
        (
            [&tls[..], &[required]].concat(),
            ["http.tls_client_certificates = \"required\"", "without http.tls_client_ca"],
        ),
        ([&tls[..], &[(client_crl, &ca)]].concat(), ["http.tls_client_crl = ", "without http.tls_client_ca"]),
        ([&tls[..], &[(client_ca, "/nowhere.pem")]].concat(), ["http.tls_client_ca: cannot read", "No such file"]),
        ([&tls[..], &[(client_ca, &key)]].concat(), ["http.tls_client_ca: cannot read", "give a PEM file"]),
        ([&tls[..], &[(client_ca, &ca), (client_crl, &ca)]].concat(), ["http.tls_client_crl: cannot read", "X509 CRL"]),
        (
            [&tls[..], &[(client_ca, &ca), ("CATCHMENT_HTTP__TLS_CLIENT_CERTIFICATES", "maybe")]].concat(),
            ["http.tls_client_certificates", "optional or required"],
        ),
    ] {
        let (code, told) = check(&settings);
        assert!(code == Some(2) && parts.iter().all(|part| told.contains(part)), "{parts:?} in {told}");
    }
}

/// Runs commands of the document in a shell, where `catchment` is the program.
#[track_caller]
fn shell(dir: &Path, script: &str) -> String {
    let folder = program().parent().expect("a folder").display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.args(["-euc", script]).current_dir(dir).env("PATH", path);
    let output = command.output().expect("a shell");
    assert!(output.status.success(), "{script}: {}{}", said(&output), String::from_utf8_lossy(&output.stderr));
    said(&output)
}

#[test]
fn the_commands_of_the_document_make_an_authority_and_a_sensor_that_sends_and_is_refused_when_it_is_revoked() {
    let dir = tempfile::tempdir().expect("a folder");
    let document = include_str!("../../docs/CERTIFICATES.md");
    let (commands, settings) = (blocks(document, "sh"), blocks(document, "toml"));
    assert_eq!((commands.len(), settings.len()), (6, 2));
    for script in &commands[..3] {
        shell(dir.path(), script);
    }
    let file = dir.path().join("catchment.toml");
    std::fs::write(&file, &settings[0]).expect("written");
    let variable = [("CATCHMENT_CONFIG", file.to_str().expect("a text"))];
    let collector = Collector::start_with(dir.path(), &variable);
    let send = |collector: &Collector, script: &str| {
        let port = collector.api.rsplit(':').next().expect("a port");
        shell(dir.path(), &script.replace(":4711", &format!(":{port}")))
    };
    assert!(send(&collector, &commands[3]).contains("{\"accepted\":1,"));
    let (_, curl) = commands[3].split_once("\ncurl").expect("the second command");
    let curl = format!("curl{curl}");
    shell(dir.path(), &commands[4]);
    assert!(send(&collector, &curl).contains("certificate_refused"));
    shell(dir.path(), "catchment sensor enable roof");
    assert!(send(&collector, &curl).contains("{\"accepted\":1,"));
    assert_eq!(collector.terminate(), 0);

    shell(dir.path(), &commands[5]);
    let revoked = settings[1].trim_start_matches("[http]\n");
    std::fs::write(&file, format!("{}{revoked}", settings[0])).expect("written");
    let collector = Collector::start_with(dir.path(), &variable);
    assert!(!send(&collector, &format!("{} || true", curl.trim_end())).contains("accepted"));
    let another = commands[2].replace("roof.pem", "roof-2.pem");
    shell(dir.path(), &another);
    assert!(send(&collector, &curl.replace("roof.pem", "roof-2.pem")).contains("{\"accepted\":1,"));
}
